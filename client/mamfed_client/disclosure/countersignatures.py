"""The coordinator's signatures over the heads of this site's audit log, in ``audit.seals``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from mamfed_client.disclosure.audit_log import read_head
from mamfed_common.errors import AuditError
from mamfed_common.runtime.bounded import STATE_BYTES, read_bytes
from mamfed_common.runtime.files import reason, refusal_words, write_atomic
from mamfed_common.security.audit_seal import AuditSeal

logger = logging.getLogger(__name__)

Keys = Callable[[], Sequence[Ed25519PublicKey]]
MAX_LENGTH = 300
"""Longest header that can hold a signature."""


def seals_path_of(path: Path) -> Path:
    """Return the path of the countersigned heads of an audit log."""
    return path.with_suffix(".seals")


class Countersignatures:
    """The countersigned heads of a site's log, as its node collects them."""

    def __init__(self, log: Path, site: str, keys: Keys) -> None:
        """Collect those of one log.

        Args:
            log: The audit log.
            site: The site's name in the federation.
            keys: Returns the coordinator's keys.
        """
        self._log = log
        self._site = site
        self._keys = keys
        self._last: tuple[int, str] | None = None

    def header(self) -> str | None:
        """Return the head to be countersigned, as a header; None if the last one is."""
        try:
            head = read_head(self._log)
        except AuditError:  # nothing has left, or the log is damaged: the gate says so
            return None
        if self._last is None:
            seals = read_seals(self._log, damaged_ok=True)
            self._last = (seals[-1].count, seals[-1].sha256) if seals else (0, "")
        if not head.count or (head.count, head.sha256) == self._last:
            return None
        return f"{head.count} {head.sha256}"

    def keep(self, header: str) -> None:
        """Store a signature from an answer, if it is one of the coordinator over this log."""
        seal = _parse(self._site, header)
        if seal is None or (seal.count, seal.sha256) == self._last:
            return
        if not seal.is_signed(self._keys()):
            logger.error("the answer's signature over the audit log is not the coordinator's")
            return
        lines = [*read_seals(self._log, damaged_ok=True), seal]
        text = "".join(f"{line.model_dump_json()}\n" for line in lines)
        try:
            write_atomic(seals_path_of(self._log), text)
        except OSError as error:  # a full disk: the head is named again
            logger.warning("audit.seals cannot be written: %s", refusal_words(error))
            return
        self._last = (seal.count, seal.sha256)


def read_seals(log: Path, *, damaged_ok: bool = False) -> list[AuditSeal]:
    """Return the countersigned heads of a log, the oldest first.

    Args:
        log: The audit log.
        damaged_ok: Whether to skip lines that cannot be read.

    Raises:
        AuditError: A line cannot be read.
    """
    path, seals = seals_path_of(log), []
    try:
        lines = read_bytes(path, STATE_BYTES).splitlines() if path.exists() else []
    except OSError as error:
        raise AuditError(f"{path}: cannot be read: {reason(path, error)}") from None
    for number, line in enumerate(lines, 1):
        try:
            seals.append(AuditSeal.model_validate_json(line))
        except ValidationError:
            if not damaged_ok:
                raise AuditError(f"{path}: line {number} was changed") from None
    return seals


def _parse(site: str, header: str) -> AuditSeal | None:
    words = header.split(" ") if len(header) <= MAX_LENGTH else []
    if len(words) != 4 or not words[0].isascii() or not words[0].isdigit():
        return None
    count, sha256, time, signature = words
    try:
        return AuditSeal(site=site, count=int(count), sha256=sha256, time=time, signature=signature)
    except ValidationError:
        return None
