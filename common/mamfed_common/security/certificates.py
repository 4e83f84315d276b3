"""Contents and validity of a site's certificate (X.509, RFC 5280).

The common name is the site's name; a URI ``urn:mamfed:node:SHA256`` identifies the key by which
Flower knows the site's node. A certificate without its node key, or a node key with another site's
certificate, is therefore useless.
"""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from mamfed_common.errors import SetupError
from mamfed_common.runtime.bounded import KEY_BYTES
from mamfed_common.runtime.files import reason
from mamfed_common.runtime.text import NotTextError, read_text
from mamfed_common.security.signing import node_fingerprint

URI_PREFIX = "urn:mamfed:node:"


def node_uri(public_key: EllipticCurvePublicKey) -> str:
    """Return the URI that identifies a node's key in a certificate."""
    return f"{URI_PREFIX}{node_fingerprint(public_key)}"


def parse_certificate(pem: str, origin: str) -> x509.Certificate:
    """Read a certificate from PEM; ``origin`` names it in errors.

    Raises:
        SetupError: It is not a certificate.
    """
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise SetupError(f"{origin}: not a certificate in PEM; ask for the file again") from None


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate's PEM file.

    Raises:
        SetupError: It cannot be read, or is not a certificate.
    """
    try:
        pem = read_text(path, KEY_BYTES)
    except (OSError, NotTextError) as error:
        raise SetupError(f"{path}: the certificate cannot be read: {reason(path, error)}") from None
    return parse_certificate(pem, str(path))


def pair_reason(path: Path, error: OSError) -> str:
    """Return why a certificate and its key cannot be loaded into a TLS context.

    An ``ssl.SSLError`` is an OSError too, but its number is OpenSSL's own.
    """
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return reason(path, error)


def p384_key(
    document: x509.Certificate | x509.CertificateSigningRequest, origin: str
) -> EllipticCurvePublicKey:
    """Return the public key in a certificate or a certificate request.

    Raises:
        SetupError: It is not EC P-384; ``origin`` names the document.
    """
    try:
        key = document.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise SetupError(f"{origin}: a key of another type, expected EC P-384")
    return key


def names_in(
    document: x509.Certificate | x509.CertificateSigningRequest, origin: str
) -> tuple[str, str]:
    """Return the site's name and the node URI in a certificate or a certificate request.

    Raises:
        SetupError: It does not hold exactly one of each; ``origin`` names the document.
    """
    try:
        san = document.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = san.get_values_for_type(x509.UniformResourceIdentifier)
        (name,) = document.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise SetupError(f"{origin}: expected one common name and one node URI in it") from None
    return str(name.value), uri


def common_name(certificate: x509.Certificate) -> str:
    """Return a certificate's common name; empty if it has none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def check_validity(certificate: x509.Certificate, now: datetime, whose: str) -> None:
    """Refuse a certificate outside its validity period; ``whose`` names it in the error.

    Raises:
        SetupError: It has expired, or is not valid yet (possibly because of a wrong clock).
    """
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    clock = f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC"
    if now < start:
        raise SetupError(f"{whose} is valid from {start:%Y-%m-%d %H:%M} UTC only; {clock}")
    if now > end:
        raise SetupError(f"{whose} expired on {end:%Y-%m-%d %H:%M} UTC; {clock}")


def check_chain(
    authority: x509.Certificate, certificate: x509.Certificate, now: datetime, origin: str
) -> None:
    """Check that an authority issued a site's certificate for a client, and that it is valid.

    Raises:
        SetupError: It did not, or one of the two is outside its validity period.
    """
    check_validity(authority, now, f"{origin}: its authority")
    check_validity(certificate, now, f"{origin}: its certificate")
    verifier = PolicyBuilder().store(Store([authority])).time(now).build_client_verifier()
    try:
        verifier.verify(certificate, [])
    except VerificationError:
        raise SetupError(f"{origin}: its certificate was not issued by its authority") from None
