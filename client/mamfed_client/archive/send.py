"""Send results to the archive: each object once, counted as sent when the archive says so."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Any

from mamfed_client.archive.objects import Archive, ObjectRefused, Unreachable
from mamfed_client.archive.pull import WAITS
from mamfed_common.errors import LinkError
from mamfed_common.runtime.bounded import IMAGE_BYTES, STATE_BYTES, parse_json, read_bytes
from mamfed_common.runtime.files import cannot_write, give_to_owner
from mamfed_common.runtime.seal import sealed, unsealed
from mamfed_common.runtime.terminal import Advance

JOURNAL = ".sent.jsonl"
"""A line for each object that an archive has confirmed."""


@dataclass
class SendResult:
    """What a call sent.

    Attributes:
        objects: Number of objects in the folder.
        sent: Objects that the archive confirmed now.
        sent_before: Objects that it confirmed in an earlier call.
        refused: Files that it did not take, with the reason.
        stopped: What ended the call early; None: nothing did.
    """

    objects: int
    sent: int = 0
    sent_before: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    stopped: LinkError | None = None

    @property
    def not_reached(self) -> int:
        """Return the number of objects that were not tried."""
        return self.objects - self.sent - self.sent_before - len(self.refused)

    def to_json(self) -> dict[str, Any]:
        """Return the counts, and the files that were refused."""
        return {
            "objects": self.objects,
            "sent": self.sent,
            "sent_before": self.sent_before,
            "refused": len(self.refused),
            "not_reached": self.not_reached,
            "refusals": self.refused,
        }


def send_files(
    archive: Archive,
    where: str,
    folder: Path,
    files: Sequence[Path],
    advance: Advance,
    pause: Callable[[float], None] = sleep,
) -> SendResult:
    """Send the files that an archive has not confirmed yet; end early if it does not answer.

    Args:
        archive: The archive.
        where: What tells it from others.
        folder: The folder of results, which keeps the journal.
        files: The DICOM files below the folder.
        advance: Called after each file.
        pause: Called with seconds to wait before trying again.

    Raises:
        OutputError: The journal cannot be written.
    """
    result, known = SendResult(len(files)), _confirmed(folder / JOURNAL)
    for file in files:
        data = read_bytes(file, IMAGE_BYTES)
        key = hashlib.sha256(f"{where}\n".encode() + data).hexdigest()
        if key in known:
            result.sent_before += 1
            advance(1, 0)
            continue
        try:
            _patiently(archive, data, pause)
        except ObjectRefused as error:
            result.refused[file.relative_to(folder).as_posix()] = str(error)
        except LinkError as error:
            result.stopped = error
            break
        else:
            result.sent += 1
            _confirm(folder / JOURNAL, key)
        advance(1, len(result.refused))
    return result


def count_unsent(where: str, folder: Path, files: Sequence[Path]) -> int:
    """Return how many files an archive has not confirmed yet."""
    known = _confirmed(folder / JOURNAL)
    digests = (
        hashlib.sha256(f"{where}\n".encode() + read_bytes(file, IMAGE_BYTES)) for file in files
    )
    return sum(digest.hexdigest() not in known for digest in digests)


def _patiently(archive: Archive, data: bytes, pause: Callable[[float], None]) -> None:
    for wait in WAITS:
        try:
            return archive.send(data)
        except Unreachable:
            pause(wait)
    return archive.send(data)


def _confirmed(journal: Path) -> set[str]:
    try:
        lines = read_bytes(journal, STATE_BYTES).splitlines()
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise cannot_write(journal, error) from None
    return {key for line in lines if (key := _key(line))}


def _key(line: bytes) -> str:
    try:
        entry = parse_json(unsealed(line.decode()))
    except ValueError:
        return ""
    return str(entry.get("confirmed", "")) if isinstance(entry, dict) else ""


def _confirm(journal: Path, key: str) -> None:
    try:
        descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            give_to_owner(descriptor, journal.parent)
            file.write(sealed(json.dumps({"confirmed": key})).encode() + b"\n")
    except OSError as error:
        raise cannot_write(journal, error) from None
