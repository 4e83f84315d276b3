"""The registry of a federation's sites: one file per site in ``sites/``.

A running server reads the files again when they change, so that an approval, a renewal or a
revocation takes effect within seconds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from pydantic import Field

from mamfed_common.config import SITE_NAME, Config
from mamfed_common.errors import LinkError, SetupError
from mamfed_common.runtime.documents import read_sealed
from mamfed_common.runtime.files import may_pass, os_error_line, private_directory, write_atomic
from mamfed_common.runtime.seal import sealed
from mamfed_common.security.certificates import URI_PREFIX, names_in
from mamfed_common.security.enrolment import Words
from mamfed_server.settings import ServerHome

logger = logging.getLogger(__name__)

FINGERPRINT = r"^[0-9a-f]{64}$"

STALE_SECONDS = 4.0
"""How long the registry is used as it was last read while it cannot be read, as on a failing disk.
After that nobody is admitted, because a revocation could be among what cannot be read."""
NO_SITES = "no site is approved yet: approve one with mamfed-server sites approve"


class IssuedCertificate(Config):
    """One certificate issued to a site.

    Attributes:
        serial: Its serial number, hexadecimal.
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
        node_public_key: The key that identifies its Flower node: EC P-384, OpenSSH.
        node_fingerprint: SHA-256 of that key's DER SubjectPublicKeyInfo, 64 hex digits.
        certificates: Certificates of this key; older ones stay valid until they expire.
        status: Whether it may take part.
        approved_at: When this key was approved.
        revoked_at: When it was revoked.
        contact: The site's contact.
        replaced: Fingerprints of its former node keys; they are never approved again.
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
        """Return when its newest certificate expires."""
        return max(certificate.not_after for certificate in self.certificates)


def load_sites(home: ServerHome) -> dict[str, SiteEntry]:
    """Read all sites, sorted by name.

    Raises:
        SetupError: A file is damaged, or its name is not that of its site.
    """
    return {path.stem: _read_entry(path) for path in sorted(home.sites.glob("[!.]*.json"))}


def active_sites(home: ServerHome) -> list[str]:
    """Return the names of the sites that may take part.

    Raises:
        SetupError: A file is damaged, or its name is not that of its site.
    """
    return [name for name, entry in load_sites(home).items() if entry.status == "active"]


def save_site(home: ServerHome, entry: SiteEntry) -> None:
    """Write a site's file (0600)."""
    private_directory(home.sites)
    text = sealed(entry.model_dump_json(indent=2)) + "\n"
    write_atomic(home.sites / f"{entry.site}.json", text)


class Registry:
    """The sites as in ``sites/`` now; safe to share between threads."""

    def __init__(self, home: ServerHome, every_seconds: float = 1.0) -> None:
        """Watch the sites of a home, checking for changes at most every ``every_seconds``."""
        self._folder = home.sites
        self._every_seconds = every_seconds
        self._lock = threading.Lock()
        self._cache: dict[str, tuple[_Stamp, SiteEntry | None]] = {}
        self._next_refresh = self._read_at = float("-inf")
        self._unread: OSError | None = None

    def entries(self) -> Mapping[str, SiteEntry]:
        """Return the sites by name, revoked ones included, without those with damaged files."""
        with self._lock:
            self._refresh_if_due()  # as last read while the disk fails: nobody is admitted by this
            return {site: entry for site, (_, entry) in self._cache.items() if entry is not None}

    def entry(self, site: str) -> SiteEntry | None:
        """Return one site's entry; None: it is unknown or its file is damaged.

        Raises:
            OSError: The registry has not been readable for longer than ``STALE_SECONDS``.
        """
        with self._lock:
            self._refresh_if_due()
            if self._unread and time.monotonic() - self._read_at > STALE_SECONDS:
                raise self._unread
            return self._cache[site][1] if site in self._cache else None

    def check(self, certificate_der: bytes, node_public_key_der_sha256: str | None) -> SiteEntry:
        """Return the entry of the site with this certificate, whose chain TLS has verified.

        The dates are checked again: a connection may outlive its certificate.

        Args:
            certificate_der: The site's certificate.
            node_public_key_der_sha256: Fingerprint of the key that signs its Flower requests;
                None: the request is not signed.

        Raises:
            LinkError: The site is unknown or revoked, or the certificate is not registered for
                this node key, or not valid now.
            OSError: The registry cannot be read.
        """
        presented = _identity_in(certificate_der)
        entry = self.entry(presented.site)
        if entry is None:
            raise LinkError(f"certificate of {presented.site} is not of this federation")
        if entry.status != "active":
            raise LinkError(f"certificate of {presented.site} is revoked; ask the coordinator")
        if {presented.fingerprint, node_public_key_der_sha256 or presented.fingerprint} != {
            entry.node_fingerprint
        }:
            raise LinkError(f"certificate of {presented.site} belongs to another node key")
        if presented.serial not in {certificate.serial for certificate in entry.certificates}:
            raise LinkError(
                f"certificate of {presented.site} has a serial number that is unknown here"
            )
        if not presented.not_before <= datetime.now(UTC) <= presented.not_after:
            until = f"{presented.not_after:%Y-%m-%d %H:%M}"
            raise LinkError(
                f"certificate of {presented.site} is valid until {until} UTC; renew it with "
                "mamfed-client enroll"
            )
        return entry

    def _refresh_if_due(self) -> None:
        if time.monotonic() < self._next_refresh:
            return
        try:
            self._refresh()
        except OSError as error:  # such as no descriptor left, or a failing disk: it may pass
            if self._unread is None:
                logger.error("cannot read the registry now: %s", os_error_line(error))
            self._unread = error
        else:
            self._unread, self._read_at = None, time.monotonic()
        self._next_refresh = time.monotonic() + self._every_seconds

    def _refresh(self) -> None:
        """Read the files that have changed since the last refresh."""
        stamps = _stamps(self._folder)
        for site in self._cache.keys() - stamps.keys():
            del self._cache[site]
        for site, stamp in sorted(stamps.items()):
            if site not in self._cache or self._cache[site][0] != stamp:
                self._cache[site] = stamp, self._load(site)

    def _load(self, site: str) -> SiteEntry | None:
        try:
            return _read_entry(self._folder / f"{site}.json")
        except SetupError as error:  # one damaged file must not lock out the other sites
            if may_pass(cause := error.__context__):
                assert isinstance(cause, OSError)
                raise cause from None
            logger.error("%s; this site is not admitted", error)
            return None


_Stamp = tuple[int, int, int]


class _Identity(NamedTuple):
    site: str
    fingerprint: str
    serial: str
    not_before: datetime
    not_after: datetime


def site_in(certificate_der: bytes) -> str:
    """Return the site that a certificate names, which says nothing about its admission.

    Raises:
        LinkError: It is not a certificate of a site.
    """
    return _identity_in(certificate_der).site


@lru_cache(maxsize=16384)  # a site presents the same certificate with every request
def _identity_in(certificate_der: bytes) -> _Identity:
    """Return the identity in a certificate."""
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        site, uri = names_in(certificate, "certificate")
    except (ValueError, SetupError):
        raise LinkError("certificate is not one of a mamfed site") from None
    return _Identity(
        site,
        uri.removeprefix(URI_PREFIX),
        f"{certificate.serial_number:x}",
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _stamps(folder: Path) -> dict[str, _Stamp]:
    stamps: dict[str, _Stamp] = {}
    if not folder.is_dir():
        return stamps
    with os.scandir(folder) as items:
        for item in items:
            if item.name.endswith(".json") and not item.name.startswith("."):
                stat = item.stat()
                stamp = stat.st_mtime_ns, stat.st_size, stat.st_ino
                stamps[item.name.removesuffix(".json")] = stamp
    return stamps


def _read_entry(path: Path) -> SiteEntry:
    entry = read_sealed(SiteEntry, path)
    if entry.site != path.stem:
        raise SetupError(
            f"{path}: contains site {entry.site}; rename the file to {entry.site}.json"
        )
    return entry
