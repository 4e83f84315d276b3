"""The sites of a federation: one file each in ``sites/``, and who may come in.

The files are the truth. A running server reads them again when they change, so that an approval, a
renewal and a revocation take effect within seconds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from pydantic import Field

from mamfed_common.config import SITE_NAME, Config
from mamfed_common.errors import LinkError, SetupError
from mamfed_common.runtime.documents import read_json
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_common.security.certificates import URI_PREFIX, names_in
from mamfed_common.security.enrolment import Words
from mamfed_server.settings import ServerHome

logger = logging.getLogger(__name__)

FINGERPRINT = r"^[0-9a-f]{64}$"

NO_SITES = "no site is approved yet: mamfed-server sites approve takes one in"


class IssuedCertificate(Config):
    """One certificate that a site was given.

    Attributes:
        serial: Its serial number, in hex digits.
        not_before: Start of its validity.
        not_after: End of its validity.
    """

    serial: str = Field(pattern=r"^[0-9a-f]{1,40}$")
    not_before: datetime
    not_after: datetime


class SiteEntry(Config):
    """One site of the federation.

    Attributes:
        site: Its name.
        node_public_key: The key by which Flower knows its node: EC P-384, OpenSSH.
        node_fingerprint: SHA-256 of that key's DER SubjectPublicKeyInfo, 64 hex digits.
        certificates: Certificates of this key; older ones hold until they expire.
        status: Whether it may take part.
        approved_at: When this key was approved.
        revoked_at: When it was revoked.
        contact: Whom to phone.
        replaced: Fingerprints of node keys that it had before; they are never approved again.
    """

    site: str = Field(pattern=SITE_NAME)
    node_public_key: str = Field(max_length=512)
    node_fingerprint: str = Field(pattern=FINGERPRINT)
    certificates: tuple[IssuedCertificate, ...]
    status: Literal["active", "revoked"] = "active"
    approved_at: datetime
    revoked_at: datetime | None = None
    contact: Words = ""
    replaced: tuple[str, ...] = ()

    def expiry(self) -> datetime:
        """Return when its newest certificate ends."""
        return max(certificate.not_after for certificate in self.certificates)


def load_sites(home: ServerHome) -> dict[str, SiteEntry]:
    """Read all sites, in the order of their names.

    Raises:
        SetupError: A file is damaged, or holds another site than its name says.
    """
    return {path.stem: _read_entry(path) for path in sorted(home.sites.glob("[!.]*.json"))}


def active_sites(home: ServerHome) -> list[str]:
    """Return the names of the sites that may take part.

    Raises:
        SetupError: A file is damaged, or holds another site than its name says.
    """
    return [name for name, entry in load_sites(home).items() if entry.status == "active"]


def save_site(home: ServerHome, entry: SiteEntry) -> None:
    """Write a site's file (0600)."""
    private_directory(home.sites)
    write_atomic(home.sites / f"{entry.site}.json", entry.model_dump_json(indent=2) + "\n")


class Registry:
    """Who may come in, as ``sites/`` says now; safe to share between threads."""

    def __init__(self, home: ServerHome, every_seconds: float = 1.0) -> None:
        """Watch a home's sites, looking at most once in ``every_seconds`` for changes."""
        self._folder = home.sites
        self._every_seconds = every_seconds
        self._lock = threading.Lock()
        self._read: dict[str, tuple[_Stamp, SiteEntry | None]] = {}
        self._look_at = float("-inf")

    def entries(self) -> Mapping[str, SiteEntry]:
        """Return the sites by name, revoked ones too. A damaged file's site is left out."""
        with self._lock:
            self._look_in_time()
            return {site: entry for site, (_, entry) in self._read.items() if entry is not None}

    def entry(self, site: str) -> SiteEntry | None:
        """Return one site's entry, None where there is none that can be read."""
        with self._lock:
            self._look_in_time()
            return self._read[site][1] if site in self._read else None

    def check(self, certificate_der: bytes, node_public_key_der_sha256: str | None) -> SiteEntry:
        """Return the site that shows a certificate. TLS has checked its chain and its dates.

        Args:
            certificate_der: The certificate that the site showed.
            node_public_key_der_sha256: Fingerprint of the key that signs its Flower requests;
                None where a request is not signed.

        Raises:
            LinkError: It is not one of the federation, is revoked, or its keys do not belong
                together.
        """
        shown = _shown(certificate_der)
        entry = self.entry(shown.site)
        if entry is None:
            raise LinkError(f"certificate of {shown.site} is not of this federation")
        if entry.status != "active":
            raise LinkError(f"certificate of {shown.site} is revoked; ask the coordinator")
        if {shown.fingerprint, node_public_key_der_sha256 or shown.fingerprint} != {
            entry.node_fingerprint
        }:
            raise LinkError(f"certificate of {shown.site} belongs to another node key")
        if shown.serial not in {certificate.serial for certificate in entry.certificates}:
            raise LinkError(f"certificate of {shown.site} has a serial number that is unknown here")
        return entry

    def _look_in_time(self) -> None:
        if time.monotonic() >= self._look_at:
            self._look()
            self._look_at = time.monotonic() + self._every_seconds

    def _look(self) -> None:
        """Read the files that changed since the last look."""
        stamps = _stamps(self._folder)
        for site in self._read.keys() - stamps.keys():
            del self._read[site]
        for site, stamp in sorted(stamps.items()):
            if site not in self._read or self._read[site][0] != stamp:
                self._read[site] = stamp, self._read_again(site)

    def _read_again(self, site: str) -> SiteEntry | None:
        try:
            return _read_entry(self._folder / f"{site}.json")
        except SetupError as error:  # one damaged file must not shut the others out
            logger.error("%s; this site is not let in", error)
            return None


_Stamp = tuple[int, int, int]


class _Shown(NamedTuple):
    site: str
    fingerprint: str
    serial: str


@lru_cache(maxsize=16384)
def _shown(certificate_der: bytes) -> _Shown:
    """Read what a certificate says; sites show the same one with every request."""
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        site, uri = names_in(certificate, "certificate")
    except (ValueError, SetupError):
        raise LinkError("certificate is not one of a mamfed site") from None
    return _Shown(site, uri.removeprefix(URI_PREFIX), f"{certificate.serial_number:x}")


def _stamps(folder: Path) -> dict[str, _Stamp]:
    found: dict[str, _Stamp] = {}
    if not folder.is_dir():
        return found
    with os.scandir(folder) as items:
        for item in items:
            if item.name.endswith(".json") and not item.name.startswith("."):
                stat = item.stat()
                stamp = stat.st_mtime_ns, stat.st_size, stat.st_ino
                found[item.name.removesuffix(".json")] = stamp
    return found


def _read_entry(path: Path) -> SiteEntry:
    entry = read_json(SiteEntry, path)
    if entry.site != path.stem:
        raise SetupError(f"{path}: holds site {entry.site}; its name must be {entry.site}.json")
    return entry
