"""Who vouches for an audit log: the site signs each line, the coordinator its heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mamfed_client.disclosure.active_policy import read_active_policy
from mamfed_client.disclosure.audit_entry import Entry
from mamfed_client.disclosure.audit_log import tampered
from mamfed_client.disclosure.countersignatures import read_seals, seals_path_of
from mamfed_client.site.settings import SiteHome
from mamfed_common.config import Config
from mamfed_common.errors import SetupError
from mamfed_common.security.keys import read_key


class AuditKeys(NamedTuple):
    """The keys that an audit log is checked with.

    Attributes:
        site: The site's node key; None: signatures of lines are not checked.
        coordinator: Keys of the coordinator.
    """

    site: EllipticCurvePublicKey | None = None
    coordinator: Sequence[Ed25519PublicKey] = ()


NO_KEYS = AuditKeys()


class CountersignedHead(Config):
    """A head that the coordinator signed: the lines up to it are what they were at that time."""

    count: int
    sha256: str
    time: str


class AuditProofs(Config):
    """What is signed of an audit log.

    Attributes:
        signed: Lines that the site's key signed; older versions signed none.
        countersigned: Heads that the coordinator countersigned, the oldest first.
        unknown_seals: Signatures over heads by a key that this site does not trust now.
    """

    signed: int = 0
    countersigned: tuple[CountersignedHead, ...] = ()
    unknown_seals: int = 0


def keys_of(home: SiteHome) -> AuditKeys:
    """Return the keys of a site's home, as far as there are any yet.

    Raises:
        SetupError: The node key is there and cannot be used.
    """
    site = None
    if home.node_key.exists():
        site = read_key(home.node_key, EllipticCurvePrivateKey).public_key()
    try:
        return AuditKeys(site, read_active_policy(home).trusted_keys)
    except SetupError:  # not joined yet, or a mistake in site.yaml: the log can still be checked
        return AuditKeys(site)


def check_proofs(path: Path, entries: Sequence[Entry], keys: AuditKeys) -> AuditProofs:
    """Check all signatures of an audit log whose chain is intact.

    Raises:
        AuditError: A line is not signed though one before it is, or a countersigned line is gone
            or another one: the log was rewritten.
    """
    signed = [entry for entry in entries if entry.signature is not None]
    if signed:
        for entry in entries[signed[0].n - 1 :]:
            if entry.signature is None or (keys.site and not entry.is_signed(keys.site)):
                raise tampered(f"{path}: line {entry.n} is not signed by this site's key")
    heads, unknown = [], 0
    for seal in read_seals(path):
        if not seal.is_signed(keys.coordinator):
            unknown += 1
            continue
        if seal.count > len(entries) or entries[seal.count - 1].sha256 != seal.sha256:
            raise tampered(
                f"{seals_path_of(path)}: the coordinator countersigned another line {seal.count} "
                f"at {seal.time}, so {path.name} was rewritten"
            )
        heads.append(CountersignedHead(count=seal.count, sha256=seal.sha256, time=seal.time))
    return AuditProofs(signed=len(signed), countersigned=tuple(heads), unknown_seals=unknown)
