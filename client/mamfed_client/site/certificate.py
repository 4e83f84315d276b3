"""The certificate that identifies a site to the coordinator."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509

from mamfed_client.site.settings import SiteHome
from mamfed_common.errors import SetupError
from mamfed_common.security.certificates import read_certificate


def site_certificate(home: SiteHome) -> x509.Certificate:
    """Return the site's certificate from ``certs/``.

    Raises:
        SetupError: It is missing or damaged.
    """
    if not home.certificate.exists():
        raise SetupError(
            f"{home.certificate}: not found; run mamfed-client join with the coordinator's welcome"
        )
    return read_certificate(home.certificate)


def days_left(certificate: x509.Certificate) -> int:
    """Return the number of whole days until a certificate expires; negative if it has expired."""
    return (certificate.not_valid_after_utc - datetime.now(UTC)).days
