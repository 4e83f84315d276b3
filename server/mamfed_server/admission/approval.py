"""Approve sites, renew their certificates and revoke them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from cryptography.hazmat.primitives.serialization import Encoding

from mamfed_common.errors import SetupError
from mamfed_common.protocol.versions import FLOWER, same_minor
from mamfed_common.runtime.documents import did_you_mean
from mamfed_common.runtime.lock import home_lock
from mamfed_common.security.certificates import common_name, parse_certificate
from mamfed_common.security.enrolment import (
    EnrolmentRequest,
    Welcome,
    check_request,
    federation_fingerprint,
)
from mamfed_common.security.keys import openssh_text
from mamfed_common.security.signing import node_fingerprint
from mamfed_server.admission.certificate_authority import issue_site, load_authority, load_plan_key
from mamfed_server.admission.registry import IssuedCertificate, SiteEntry, load_sites, save_site
from mamfed_server.settings import ServerHome, ServerSettings, load_settings


class Approval(StrEnum):
    """The effect of approving a request."""

    NEW = "a new site"
    RENEWAL = "renewal, signed by the site's known key"
    REPLACEMENT = "a known site with a new key: its old key will be revoked"


def consider(home: ServerHome, request: EnrolmentRequest, *, replace: bool = False) -> Approval:
    """Verify a request and check it against the known sites; return what approval would do.

    Args:
        home: The coordinator's home.
        request: The request.
        replace: Whether a known site may use a new key.

    Raises:
        SetupError: The request is invalid, its key or name belongs to another site, or its key was
            revoked.
    """
    check_request(request)
    _check_versions(request)
    sites = load_sites(home)
    known, key = sites.get(request.site), node_fingerprint(request.node_key())
    _check_unique(request.site, key, sites)
    if known is None:
        return Approval.NEW
    if key in known.replaced or (known.status == "revoked" and key == known.node_fingerprint):
        raise SetupError(
            f"{request.site}: its key was revoked and cannot be used again; at the site, run: "
            "mamfed-client enroll --new-keys"
        )
    if key == known.node_fingerprint:
        return Approval.RENEWAL
    if not replace:
        raise SetupError(
            f"{request.site}: known with a different key; phone {known.contact or 'the site'}, "
            "then give --replace, which revokes the old key"
        )
    return Approval.REPLACEMENT


def approve(home: ServerHome, request: EnrolmentRequest, *, replace: bool = False) -> Welcome:
    """Issue a site's certificate and write the site's file; return the welcome for the site.

    Raises:
        SetupError: As in :func:`consider`, or the authority cannot be used.
    """
    settings = load_settings(home)
    with home_lock(home.path):
        return _approve(home, request, settings, replace=replace)


def _approve(
    home: ServerHome, request: EnrolmentRequest, settings: ServerSettings, *, replace: bool
) -> Welcome:
    approval = consider(home, request, replace=replace)
    pem = issue_site(home, request, settings.certificate_days).decode()
    known = load_sites(home).get(request.site)
    if approval is Approval.RENEWAL and known is not None:
        entry = _renewed(known, request, pem)
    else:
        entry = _approved(known, request, pem)
    authority = load_authority(home)
    welcome = Welcome(
        federation=common_name(authority),
        site=request.site,
        server=settings.address(),
        ca_certificate=authority.public_bytes(Encoding.PEM).decode(),
        certificate=pem,
        plan_key=openssh_text(load_plan_key(home).public_key()),
        contact=settings.contact,
    )
    save_site(home, entry)
    return welcome


def own_fingerprint(home: ServerHome) -> str:
    """Return the fingerprint that sites compare: of the address, the authority and the plan key.

    Raises:
        SetupError: ``server.yaml``, the authority or the plan key cannot be used.
    """
    public_key = load_plan_key(home).public_key()
    return federation_fingerprint(load_settings(home).address(), load_authority(home), public_key)


def revoke(home: ServerHome, site: str) -> SiteEntry:
    """Revoke a site; return its entry.

    Raises:
        SetupError: There is no such home or site, or it is already revoked.
    """
    with home_lock(home.path):
        known = revocable(home, site)
        entry = known.model_copy(update={"status": "revoked", "revoked_at": datetime.now(UTC)})
        save_site(home, entry)
    return entry


def revocable(home: ServerHome, site: str) -> SiteEntry:
    """Return the entry of a site that can be revoked.

    Raises:
        SetupError: There is no such home or site, or it is already revoked.
    """
    load_settings(home)
    sites = load_sites(home)
    known = sites.get(site)
    if known is None:
        suggestion = did_you_mean(site, sorted(sites))
        raise SetupError(
            f"{site}: no such site{suggestion}; list the sites with mamfed-server sites list"
        )
    if known.status == "revoked":
        raise SetupError(f"{site}: already revoked, on {known.revoked_at:%Y-%m-%d}")
    return known


def _approved(known: SiteEntry | None, request: EnrolmentRequest, pem: str) -> SiteEntry:
    return SiteEntry(
        site=request.site,
        node_public_key=openssh_text(request.node_key()),
        node_fingerprint=node_fingerprint(request.node_key()),
        certificates=(_issued(pem),),
        approved_at=datetime.now(UTC),
        contact=request.contact,
        replaced=() if known is None else (*known.replaced, known.node_fingerprint),
    )


def _renewed(known: SiteEntry, request: EnrolmentRequest, pem: str) -> SiteEntry:
    now = datetime.now(UTC)
    valid = tuple(c for c in known.certificates if c.not_after > now)
    contact = request.contact or known.contact
    return known.model_copy(update={"certificates": (*valid, _issued(pem)), "contact": contact})


def _issued(pem: str) -> IssuedCertificate:
    certificate = parse_certificate(pem, "new certificate")
    return IssuedCertificate(
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _check_unique(site: str, key: str, sites: dict[str, SiteEntry]) -> None:
    for other in sites.values():
        if other.site == site:
            continue
        if other.site.casefold() == site.casefold():  # the same file on some file systems
            raise SetupError(f"{site}: {other.site} is known; names must differ in more than case")
        if key == other.node_fingerprint or key in other.replaced:
            raise SetupError(
                f"{site}: its node key is that of {other.site}; each site needs a key of its own"
            )


def _check_versions(request: EnrolmentRequest) -> None:
    if not same_minor(request.mamfed_version):
        raise SetupError(
            f"{request.site}: found mamfed {request.mamfed_version}, expected this server's minor "
            "version; install it at the site and enroll again"
        )
    if request.flower_version not in FLOWER:
        raise SetupError(
            f"{request.site}: found Flower {request.flower_version}, expected {FLOWER}; install it "
            "at the site and enroll again"
        )
