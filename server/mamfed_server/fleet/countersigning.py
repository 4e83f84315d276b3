"""Countersign the heads of the sites' audit logs, and notice a log that was rewritten.

A site names the head of its log in a header of its requests, and the answer carries the signature.
The last head of each site is kept in the coordinator's home: a log can only grow, so an earlier or
another head than that is not signed, and the journal says so.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mamfed_common.protocol.versions import AUDIT_SEAL_HEADER
from mamfed_common.runtime.bounded import STATE_BYTES, read_values
from mamfed_common.runtime.files import refusal_words, write_atomic
from mamfed_common.security.audit_seal import AuditSeal, parse_head

logger = logging.getLogger(__name__)

AUDIT_HEADS = "audit_heads.json"
"""File of the coordinator's home with the last head of each site."""
MAX_HEADER = 80
"""Longest header that can name a head."""


def rewritten(site: str) -> str:
    """Return the warning about a log that does not continue the one before."""
    return (
        f"{site}: its audit log does not continue the one countersigned before: it was rewritten, "
        "restored from a backup or begun anew; ask the site, and compare with audit_heads.json"
    )


class Countersigner:
    """Signs heads; safe to call from several threads."""

    def __init__(
        self, path: Path, key: Ed25519PrivateKey, on_rewritten: Callable[[str], None]
    ) -> None:
        """Sign with the plan key.

        Args:
            path: File with the last head of each site, created with the first.
            key: The plan key.
            on_rewritten: Called once with a site whose log does not continue the one before.
        """
        self._path = path
        self._key = key
        self._on_rewritten = on_rewritten
        self._told: set[str] = set()
        self._doubtful: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()
        self._heads = _read(path)

    def headers(self, site: str, named: bytes) -> list[tuple[bytes, bytes]]:
        """Return the header that answers the head that a request names; empty if it is none."""
        head = parse_head(named.decode("latin-1")) if len(named) <= MAX_HEADER else None
        if head is None or not head[0]:
            return []
        with self._lock:
            if not self._continues(site, *head):
                return []
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        seal = AuditSeal(site=site, count=head[0], sha256=head[1], time=now).signed_by(self._key)
        return [(AUDIT_SEAL_HEADER.encode(), seal.header().encode())]

    def _continues(self, site: str, count: int, sha256: str) -> bool:
        """Record a head that may follow the last one; return whether to sign it."""
        last = self._heads.get(site, (0, ""))
        if (count, sha256) == last:
            return True
        if count <= last[0]:
            # Of two requests at once the later one may be read first; a wrong head comes again.
            if self._doubtful.get(site) == (count, sha256) and site not in self._told:
                self._told.add(site)
                self._on_rewritten(site)
            self._doubtful[site] = (count, sha256)
            return False
        heads = {**self._heads, site: (count, sha256)}
        try:
            write_atomic(self._path, json.dumps(heads, sort_keys=True) + "\n")
        except OSError as error:  # a full disk: the site names the head again
            logger.warning("%s cannot be written: %s", self._path.name, refusal_words(error))
            return False
        self._heads = heads
        return True


def _read(path: Path) -> dict[str, tuple[int, str]]:
    """Return the last heads; a damaged file is said, and begins anew."""
    try:
        found = read_values(path, STATE_BYTES) if path.exists() else {}
        return {str(site): (int(count), str(sha256)) for site, (count, sha256) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        logger.error("%s: damaged; the sites' audit heads are recorded anew", path)
        return {}
