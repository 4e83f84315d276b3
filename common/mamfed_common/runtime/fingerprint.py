"""All that a kept result depends on, by name: only the same question gets the same answer again.

Whoever keeps a result writes its fingerprint beside it. Whoever finds the result compares: equal
ones are reused, and that is said; other ones are made anew, or refused with what differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mamfed_common.errors import OutputError
from mamfed_common.runtime.files import write_atomic

SHOWN = 12
"""Characters of a hash that people are shown."""


def sha256_of(content: Any) -> str:
    """Hash what JSON can hold; unlike words joined by blanks, no two contents look alike.

    Args:
        content: Texts, numbers, None, and lists and mappings of such; NaN is none of them.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class FingerprintDifference(NamedTuple):
    """One thing in which two fingerprints differ.

    Attributes:
        name: Its name, those within others behind a dot.
        kept: What the kept result depends on; None: it does not say.
        asked: What is asked for now; None: nothing of the kind.
    """

    name: str
    kept: Any
    asked: Any

    def __str__(self) -> str:
        """Say it in words; hashes are cut short."""
        name = self.name.replace("_", " ").replace(".", ": ")
        return f"{name} was {formatted(self.kept)}, is now {formatted(self.asked)}"


@dataclass(frozen=True)
class Fingerprint:
    """What a result depends on.

    Attributes:
        parts: By name, what JSON can hold: hashes of bytes, versions of code, options.
    """

    parts: Mapping[str, Any]

    @classmethod
    def of(cls, **parts: Any) -> Fingerprint:
        """Name what a result depends on."""
        return cls(json.loads(json.dumps(parts, allow_nan=False)))  # tuples become lists

    @property
    def sha256(self) -> str:
        """One name for all of it."""
        return sha256_of(self.parts)

    def differences(self, kept: Mapping[str, Any]) -> list[FingerprintDifference]:
        """Return what a kept result's parts have otherwise; empty where it may be reused."""
        before, now = dict(flattened(kept)), dict(flattened(self.parts))
        return [
            FingerprintDifference(name, before.get(name), now.get(name))
            for name in dict.fromkeys([*now, *before])
            if (name in before, before.get(name)) != (name in now, now.get(name))
        ]

    def check(self, kept: Mapping[str, Any], where: str, advice: str) -> None:
        """Refuse a kept result of another question.

        Args:
            kept: Its parts.
            where: What it is, for the error.
            advice: What to do, for the error.

        Raises:
            OutputError: They differ; the first differences are named.
        """
        if found := self.differences(kept):
            raise OutputError(f"{where}: {describe_differences(found)}; {advice}")

    def write(self, path: Path) -> None:
        """Write it beside the result (0600)."""
        write_atomic(path, json.dumps(self.parts, indent=2) + "\n")


def describe_differences(differences: Sequence[FingerprintDifference], most: int = 3) -> str:
    """Say in one line what differs, at most so many things."""
    more = len(differences) - most
    words = [str(difference) for difference in differences[:most]]
    return ", ".join(words) + (f", and {more} more" if more > 0 else "")


def flattened(parts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield single values by their names, those within others behind a dot."""
    for name, value in parts.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def formatted(value: Any) -> str:
    """Write a value for people; a hash is cut short."""
    if value is None:
        return "not there"
    if isinstance(value, str):
        is_hash = len(value) in (32, 64) and not value.strip("0123456789abcdef")
        return value[:SHOWN] if is_hash else value
    return json.dumps(value)
