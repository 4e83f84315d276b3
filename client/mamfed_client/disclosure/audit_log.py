"""The audit log of everything that left this site: JSON lines, each chained to the one before.

``audit.jsonl`` only grows. Each line holds the hash of the previous line and its own SHA-256.
``audit.head`` beside it holds the log's length, which reveals a missing end. The site's node key
signs each line, and the coordinator countersigns the head (``countersignatures.py``), so that not
even the site can rewrite what left before.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from pydantic import ValidationError

from mamfed_client.disclosure.audit_entry import START, ArrayEntry, Entry, Head, Kind
from mamfed_common.errors import AuditError
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_bytes
from mamfed_common.runtime.files import reason, write_atomic
from mamfed_common.runtime.lock import short_lock

__all__ = ["START", "ArrayEntry", "AuditLog", "Entry", "Head", "Kind", "Record", "read_record"]

MAX_LINE = 1 << 20
"""Upper limit of a line in bytes: the longest has about 150 bytes per array of the network."""


class Record(NamedTuple):
    """An intact audit log.

    Attributes:
        entries: Its lines.
        head: Its end, including lines that the head file does not count yet.
        unfinished: A truncated line at the end, which the next entry will record.
    """

    entries: list[Entry]
    head: Head
    unfinished: bytes


class AuditLog:
    """The audit log of one site, for writing. Several processes may write to it."""

    def __init__(self, path: Path, key: EllipticCurvePrivateKey | None = None) -> None:
        """Write to this file, which the first entry creates (0600); the key signs each line."""
        self.path = path
        self._key = key

    def append(self, kind: Kind, **facts: Any) -> Entry:
        """Add an entry and flush it to the disk.

        Args:
            kind: Kind of the message.
            facts: Other fields of :class:`Entry` except ``n``, ``time`` and the hashes.

        Raises:
            AuditError: The end of the log is not what was last written, so that somebody changed
                it and nothing may be added; or it cannot be written.
        """
        try:
            with short_lock(self.path, fcntl.LOCK_EX, os.O_RDWR | os.O_CREAT) as fd:
                head, unfinished = self._end(fd)
                if unfinished:  # the entry is longer than the remains it records and overwrites
                    torn = {"values": _torn(unfinished)}
                    entry = _entry(head, "torn", torn, self._key)
                    head = self._write(fd, head, entry)
                entry = _entry(head, kind, facts, self._key)
                self._write(fd, head, entry)
                return entry
        except OSError as error:
            raise AuditError(
                f"{self.path}: cannot be written: {reason(self.path, error)}"
            ) from None

    def _end(self, fd: int) -> tuple[Head, bytes]:
        """Read only what follows the head, so that the cost does not grow with the log."""
        if not head_path_of(self.path).exists() and os.fstat(fd).st_size == 0:
            self._write_head(Head())
        head = read_head(self.path)
        _check_last_line(self.path, fd, head)
        record = _chain(self.path, head, _read(fd, head.bytes))
        return record.head, record.unfinished

    def _write(self, fd: int, head: Head, entry: Entry) -> Head:
        data, place = entry.line().encode(), head.bytes
        while data:  # a disk that fills up accepts a part; the next call raises
            written = os.pwrite(fd, data, place)
            data, place = data[written:], place + written
        os.fsync(fd)
        head = head.after(entry)
        self._write_head(head)
        return head

    def _write_head(self, head: Head) -> None:
        write_atomic(head_path_of(self.path), head.model_dump_json() + "\n")


def head_path_of(path: Path) -> Path:
    """Return the path of an audit log's head."""
    return path.with_suffix(".head")


def read_head(path: Path) -> Head:
    """Read an audit log's head.

    Raises:
        AuditError: The head is missing or damaged.
    """
    head_path = head_path_of(path)
    try:
        return Head.model_validate_json(read_bytes(head_path, DOCUMENT_BYTES))
    except OSError:
        raise tampered(f"{head_path}: missing, but {path.name} is there") from None
    except ValidationError:
        raise tampered(f"{head_path}: damaged") from None


def read_record(path: Path) -> Record:
    """Read an audit log and check every line; before anything has left, there is none.

    Raises:
        AuditError: A line was changed, removed, added or moved, or the end was cut off; the first
            such line is named.
    """
    if not head_path_of(path).exists() and not (path.exists() and path.stat().st_size):
        return Record([], Head(), b"")
    try:
        with short_lock(path, fcntl.LOCK_SH, os.O_RDONLY) as fd:
            head, data = read_head(path), _read(fd, 0)
    except OSError as error:
        raise tampered(f"{path}: cannot be read: {reason(path, error)}") from None
    record = _chain(path, Head(), data)
    hashes = [START, *(entry.sha256 for entry in record.entries)]
    if len(hashes) <= head.count:
        end = f"{path}: ends at line {len(record.entries)}, but its head names line {head.count}"
        raise tampered(end)
    if hashes[head.count] != head.sha256:
        raise tampered(f"{path}: line {head.count} is not the one named by its head")
    return record


def _chain(path: Path, head: Head, data: bytes) -> Record:
    """Check the lines that follow a head."""
    entries = []
    *lines, unfinished = data.split(b"\n")
    for line in lines:
        entry, place = _parse(line), f"{path}: line {head.count + 1}"
        if entry is None or entry.line().encode() != line + b"\n" or not _is_sealed(entry):
            raise tampered(f"{place} was changed")
        if (entry.n, entry.previous) != (head.count + 1, head.sha256):
            raise tampered(f"{place} does not follow the one before it")
        head = head.after(entry)
        entries.append(entry)
    return Record(entries, head, unfinished)


def _is_sealed(entry: Entry) -> bool:
    return entry.sealed().sha256 == entry.sha256


def _parse(line: bytes) -> Entry | None:
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        return None


def _entry(
    head: Head, kind: Kind, facts: Mapping[str, Any], key: EllipticCurvePrivateKey | None
) -> Entry:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Entry(n=head.count + 1, time=now, kind=kind, previous=head.sha256, **facts).sealed(key)


def _torn(line: bytes) -> dict[str, Any]:
    return {"torn_bytes": len(line), "torn_text": line.decode("ascii", "backslashreplace")}


def _check_last_line(path: Path, fd: int, head: Head) -> None:
    """Refuse a log in which the head's line is not at the head's position."""
    tail = os.pread(fd, min(head.bytes, MAX_LINE), max(head.bytes - MAX_LINE, 0))
    entry = _parse(tail.removesuffix(b"\n").rpartition(b"\n")[2])
    matches = head.count == head.bytes == 0 or (
        os.fstat(fd).st_size >= head.bytes
        and entry is not None
        and entry.sealed().sha256 == head.sha256
    )
    if not matches:
        raise tampered(f"{path}: does not end with line {head.count}, as its head says")


def _read(fd: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb") as file:
        return file.read()


def tampered(what: str) -> AuditError:
    """Return the error about a log that is not as it was written."""
    return AuditError(
        f"{what}. The audit log was changed: keep a copy of it and of its head for an "
        "investigation, then move both away to start a new log"
    )
