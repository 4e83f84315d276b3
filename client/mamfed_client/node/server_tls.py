"""TLS to the coordinator with this site's certificate, and the reasons in its refusals."""

from __future__ import annotations

import ssl

import httpx
from cryptography.hazmat.primitives.serialization import Encoding

from mamfed_client.site.settings import SiteHome
from mamfed_common.errors import SetupError
from mamfed_common.security.certificates import pair_reason, read_certificate


def tls_context(home: SiteHome) -> ssl.SSLContext:
    """Return a TLS 1.3 context with only the federation's authority and the site's certificate.

    Raises:
        SetupError: A file is missing or damaged, or key and certificate do not match.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    authority = read_certificate(home.ca)
    try:
        context.load_verify_locations(cadata=authority.public_bytes(Encoding.DER))
        context.load_cert_chain(home.certificate, home.tls_key)
    except OSError as error:
        reason = pair_reason(home.certs, error)
        raise SetupError(
            f"{home.certs}: this site's certificate cannot be used ({reason}); run mamfed-client "
            "join with the newest welcome"
        ) from None
    return context


def detail_of(response: httpx.Response, otherwise: str) -> str:
    """Return the coordinator's reason for a refusal, reduced to printable characters."""
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return otherwise
    return "".join(c if c.isprintable() else " " for c in detail)[:300]
