"""The certificate by which a site shows itself to the coordinator."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509

from mamfed_client.site.settings import SiteHome
from mamfed_common.errors import SetupError
from mamfed_common.security.certificates import read_certificate


def site_certificate(home: SiteHome) -> x509.Certificate:
    """Return the site's certificate as it lies in ``certs/``.

    Raises:
        SetupError: It is missing or damaged.
    """
    if not home.certificate.exists():
        raise SetupError(
            f"{home.certificate}: no certificate there; mamfed-client join the welcome"
        )
    return read_certificate(home.certificate)


def days_left(certificate: x509.Certificate) -> int:
    """Return for how many whole days a certificate is still valid; negative: expired."""
    return (certificate.not_valid_after_utc - datetime.now(UTC)).days
