"""The record of everything that left this site: JSON lines, each chained to the one before.

``audit.jsonl`` only grows. Each line holds the hash of the line before it and its own SHA-256.
``audit.head`` beside it holds how far the record goes, so that a cut end shows too. The chain has
no key: it shows accidents and edits, not a forger who rewrites both files; for that, copy the last
hash (``mamfed-client audit verify`` prints it) to where the forger cannot write.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from mamfed_common.config import Config
from mamfed_common.errors import AuditError
from mamfed_common.runtime.files import reason, write_atomic
from mamfed_common.runtime.lock import short_lock

Kind = Literal["describe", "train", "evaluate", "fault", "torn"]
START = "0" * 64
"""What the first line names as the hash of the line before it."""
MAX_LINE = 1 << 20
"""No line is longer: the largest has some 150 bytes for each array of the network."""


class ArrayEntry(Config):
    """One array that left.

    Attributes:
        name: Its name.
        sha256: SHA-256 of its values, little-endian, in C order.
        bytes: Their size.
    """

    name: str
    sha256: str
    bytes: int = Field(ge=0)


class Entry(Config):
    """One line: one message that left, or what a power cut left of a line.

    Attributes:
        n: The line's number, counted from 1.
        time: When, UTC.
        kind: ``describe``, ``train`` and ``evaluate`` answer the server's requests; ``fault`` is an
            error code in an answer's place; ``torn`` holds what a power cut left of a line.
        stage: The stage of a ``train``.
        round: Its round.
        model: Of an ``evaluate`` that is about this site's personal model, ``personal``. Where it
            is None the line has no such key: records from before 0033 go on.
        plan_sha256: The plan that was asked for; empty where the request could not be read.
        policy_sha256: The policy that let it leave.
        weights: The arrays.
        bytes: Size of arrays and values as the wire carries them.
        values: All else, by name.
        to: The federation.
        previous: Hash of the line before.
        sha256: SHA-256 of the line without this, as canonical JSON.
    """

    n: int = Field(ge=1)
    time: str
    kind: Kind
    stage: str | None = None
    round: int | None = None
    model: Literal["personal"] | None = None
    plan_sha256: str = ""
    policy_sha256: str = ""
    weights: tuple[ArrayEntry, ...] = ()
    bytes: int = Field(default=0, ge=0)
    values: dict[str, Any] = Field(default_factory=dict)
    to: str = ""
    previous: str
    sha256: str = ""

    def sealed(self) -> Entry:
        """Return the entry with its hash."""
        text = _canonical(self._values("sha256"))
        return self.model_copy(update={"sha256": hashlib.sha256(text.encode()).hexdigest()})

    def line(self) -> str:
        """Return the line that stands for the entry, its newline included; all is ASCII."""
        return _canonical(self._values()) + "\n"

    def _values(self, *without: str) -> dict[str, Any]:
        absent = {"model"} if self.model is None else set()
        return self.model_dump(mode="json", exclude={*without, *absent})


class Head(Config):
    """How far the record goes: its whole lines, the last one's hash, and the file's size."""

    count: int = Field(default=0, ge=0)
    sha256: str = START
    bytes: int = Field(default=0, ge=0)

    def after(self, entry: Entry) -> Head:
        """Return the head once an entry is part of the record."""
        return Head(count=entry.n, sha256=entry.sha256, bytes=self.bytes + len(entry.line()))


class Record(NamedTuple):
    """A record that holds together.

    Attributes:
        entries: Its lines.
        head: How far it goes, lines that the head file does not know of yet included.
        unfinished: A torn line at its end, which the next entry will name.
    """

    entries: list[Entry]
    head: Head
    unfinished: bytes


class AuditLog:
    """The record of one site, for writing. Several processes may hold one."""

    def __init__(self, path: Path) -> None:
        """Write to this file, made by the first entry (0600)."""
        self.path = path

    def append(self, kind: Kind, **facts: Any) -> Entry:
        """Add an entry and see it onto the disk.

        Args:
            kind: What left.
            facts: Other fields of :class:`Entry` but ``n``, ``time`` and the hashes.

        Raises:
            AuditError: The record's end is not what was last written: nothing may be added to a
                record that somebody changed. Or it cannot be written.
        """
        try:
            with short_lock(self.path, fcntl.LOCK_EX, os.O_RDWR | os.O_CREAT) as fd:
                head, unfinished = self._end(fd)
                if unfinished:  # longer than what it names, it overwrites all of that
                    entry = _entry(head, "torn", {"values": _torn(unfinished)})
                    head = self._write(fd, head, entry)
                entry = _entry(head, kind, facts)
                self._write(fd, head, entry)
                return entry
        except OSError as error:
            raise AuditError(
                f"{self.path}: cannot be written: {reason(self.path, error)}"
            ) from None

    def _end(self, fd: int) -> tuple[Head, bytes]:
        """Read only what follows the head, so that a long record costs nothing."""
        if not head_path_of(self.path).exists() and os.fstat(fd).st_size == 0:
            self._write_head(Head())
        head = read_head(self.path)
        _check_last_line(self.path, fd, head)
        record = _chain(self.path, head, _read(fd, head.bytes))
        return record.head, record.unfinished

    def _write(self, fd: int, head: Head, entry: Entry) -> Head:
        data, place = entry.line().encode(), head.bytes
        while data:  # a disk that fills up takes a part; the next call raises
            written = os.pwrite(fd, data, place)
            data, place = data[written:], place + written
        os.fsync(fd)
        head = head.after(entry)
        self._write_head(head)
        return head

    def _write_head(self, head: Head) -> None:
        write_atomic(head_path_of(self.path), head.model_dump_json() + "\n")


def head_path_of(path: Path) -> Path:
    """Return where a record's head lies."""
    return path.with_suffix(".head")


def read_head(path: Path) -> Head:
    """Read how far a record goes.

    Raises:
        AuditError: The head is missing or damaged.
    """
    head_path = head_path_of(path)
    try:
        return Head.model_validate_json(head_path.read_bytes())
    except OSError:
        raise AuditError(_tampered(f"{head_path}: missing, but {path.name} is there")) from None
    except ValidationError:
        raise AuditError(_tampered(f"{head_path}: damaged")) from None


def read_record(path: Path) -> Record:
    """Read a record and check every line of it; a site from which nothing left has none.

    Raises:
        AuditError: A line was changed, removed, added or moved, or the end was cut; the first such
            line is named.
    """
    if not head_path_of(path).exists() and not (path.exists() and path.stat().st_size):
        return Record([], Head(), b"")
    try:
        with short_lock(path, fcntl.LOCK_SH, os.O_RDONLY) as fd:
            head, data = read_head(path), _read(fd, 0)
    except OSError as error:
        raise AuditError(_tampered(f"{path}: cannot be read: {reason(path, error)}")) from None
    record = _chain(path, Head(), data)
    hashes = [START, *(entry.sha256 for entry in record.entries)]
    if len(hashes) <= head.count:
        found = f"{path}: ends at line {len(record.entries)}, but its head names line {head.count}"
        raise AuditError(_tampered(found))
    if hashes[head.count] != head.sha256:
        raise AuditError(_tampered(f"{path}: line {head.count} is not the one that its head names"))
    return record


def _chain(path: Path, head: Head, data: bytes) -> Record:
    """Check the lines that follow a head."""
    entries = []
    *lines, unfinished = data.split(b"\n")
    for line in lines:
        entry, place = _parse(line), f"{path}: line {head.count + 1}"
        if entry is None or entry.line().encode() != line + b"\n" or entry.sealed() != entry:
            raise AuditError(_tampered(f"{place} was changed"))
        if (entry.n, entry.previous) != (head.count + 1, head.sha256):
            raise AuditError(_tampered(f"{place} does not follow the one before it"))
        head = head.after(entry)
        entries.append(entry)
    return Record(entries, head, unfinished)


def _parse(line: bytes) -> Entry | None:
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        return None


def _entry(head: Head, kind: Kind, facts: Mapping[str, Any]) -> Entry:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Entry(n=head.count + 1, time=now, kind=kind, previous=head.sha256, **facts).sealed()


def _torn(line: bytes) -> dict[str, Any]:
    return {"torn_bytes": len(line), "torn_text": line.decode("ascii", "backslashreplace")}


def _check_last_line(path: Path, fd: int, head: Head) -> None:
    """Refuse a record that does not end, at the head's place, with the head's line."""
    tail = os.pread(fd, min(head.bytes, MAX_LINE), max(head.bytes - MAX_LINE, 0))
    entry = _parse(tail.removesuffix(b"\n").rpartition(b"\n")[2])
    known = head.count == head.bytes == 0 or (
        os.fstat(fd).st_size >= head.bytes
        and entry is not None
        and entry.sealed().sha256 == head.sha256
    )
    if not known:
        raise AuditError(
            _tampered(f"{path}: its end is not line {head.count}, which its head names")
        )


def _read(fd: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb") as file:
        return file.read()


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def _tampered(what: str) -> str:
    return (
        f"{what}. Somebody or something changed the record: keep a copy of it and of its head for "
        "whoever looks into it; then move both away, and a new record begins"
    )
