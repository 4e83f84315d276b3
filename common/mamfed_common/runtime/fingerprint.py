"""Fingerprints of everything that a saved result depends on.

A fingerprint is saved with each result. A saved result with an equal fingerprint is reused, and
that is reported; otherwise the result is computed again, or refused with the differences.
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
"""Characters of a hash in messages."""


def sha256_of(content: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form; different values never collide.

    Args:
        content: Texts, numbers except NaN, None, and lists and mappings of these.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class FingerprintDifference(NamedTuple):
    """A difference between two fingerprints.

    Attributes:
        name: Name of the value, with dots for nested names.
        kept: Value of the saved result; None if it has none.
        asked: Value requested now; None if there is none.
    """

    name: str
    kept: Any
    asked: Any

    def __str__(self) -> str:
        """Return the difference as text, with shortened hashes."""
        name = self.name.replace("_", " ").replace(".", ": ")
        return f"{name} was {formatted(self.kept)}, is now {formatted(self.asked)}"


@dataclass(frozen=True)
class Fingerprint:
    """Everything that a result depends on.

    Attributes:
        parts: JSON values by name: hashes of bytes, versions of code, options.
    """

    parts: Mapping[str, Any]

    @classmethod
    def of(cls, **parts: Any) -> Fingerprint:
        """Return the fingerprint of named values."""
        return cls(json.loads(json.dumps(parts, allow_nan=False)))  # tuples become lists

    @property
    def sha256(self) -> str:
        """Return one hash over all parts."""
        return sha256_of(self.parts)

    def differences(self, kept: Mapping[str, Any]) -> list[FingerprintDifference]:
        """Return the differences from a saved result's parts; empty if it may be reused."""
        before, now = dict(flattened(kept)), dict(flattened(self.parts))
        return [
            FingerprintDifference(name, before.get(name), now.get(name))
            for name in dict.fromkeys([*now, *before])
            if (name in before, before.get(name)) != (name in now, now.get(name))
        ]

    def check(self, kept: Mapping[str, Any], where: str, advice: str) -> None:
        """Refuse a saved result that depends on something else.

        Args:
            kept: Parts of the saved result.
            where: Name of the saved result, for the error.
            advice: What to do, for the error.

        Raises:
            OutputError: The parts differ; the message names the first differences.
        """
        if found := self.differences(kept):
            raise OutputError(f"{where}: {describe_differences(found)}; {advice}")

    def write(self, path: Path) -> None:
        """Write the fingerprint to a file (0600), next to the result."""
        write_atomic(path, json.dumps(self.parts, indent=2) + "\n")


def describe_differences(differences: Sequence[FingerprintDifference], most: int = 3) -> str:
    """Return up to ``most`` differences in one line, and the number of the others."""
    more = len(differences) - most
    words = [str(difference) for difference in differences[:most]]
    return ", ".join(words) + (f", and {more} more" if more > 0 else "")


def flattened(parts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield single values with their names, with dots for nested names."""
    for name, value in parts.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def formatted(value: Any) -> str:
    """Return a value as text, with hashes shortened."""
    if value is None:
        return "not there"
    if isinstance(value, str):
        is_hash = len(value) in (32, 64) and not value.strip("0123456789abcdef")
        return value[:SHOWN] if is_hash else value
    return json.dumps(value)
