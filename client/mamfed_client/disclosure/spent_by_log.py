"""What the audit log says that differential privacy has spent.

The ledger (``privacy_ledger.py``) is one file, which somebody may delete, or replace by a copy from
a backup. The audit log names epsilon with every update that left, and the coordinator countersigns
it, so a ledger with less than that is not the latest one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from mamfed_client.disclosure.audit_entry import Entry
from mamfed_client.disclosure.audit_log import MAX_LINE, tampered
from mamfed_common.protocol.tasks import PrivacySpent
from mamfed_common.runtime.files import reason
from mamfed_common.runtime.lock import short_lock


def spent_by_log(path: Path) -> PrivacySpent | None:
    """Return what was spent with the last private update that left; None: there was none.

    The log is read from its end, so that the cost does not grow with it once there is such a line.

    Raises:
        AuditError: The log cannot be read, or has a line that is longer than any.
    """
    if not path.exists():
        return None
    try:
        with short_lock(path, fcntl.LOCK_SH, os.O_RDONLY) as fd:
            found = (_spent(line) for line in _from_the_end(path, fd) if b'"privacy":{' in line)
            return next((spent for spent in found if spent is not None), None)
    except OSError as error:
        raise tampered(f"{path}: cannot be read: {reason(path, error)}") from None


def _from_the_end(path: Path, fd: int) -> Iterator[bytes]:
    """Yield the lines of a log, the last one first."""
    end, rest = os.fstat(fd).st_size, b""
    while end:
        start = max(0, end - MAX_LINE)
        rest, *lines = (os.pread(fd, end - start, start) + rest).split(b"\n")
        yield from reversed(lines)
        if len(rest) > MAX_LINE:
            raise tampered(f"{path}: a line is longer than {MAX_LINE} bytes")
        end = start
    yield rest


def _spent(line: bytes) -> PrivacySpent | None:
    try:
        entry = Entry.model_validate_json(line)
        return PrivacySpent.model_validate(entry.values["privacy"]) if entry.values else None
    except (ValidationError, KeyError):  # torn, or another value of this name: `verify` judges it
        return None
