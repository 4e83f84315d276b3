"""The federation's certificate authority, which issues the server's and the sites' certificates.

Certificates follow RFC 5280. Serial numbers are random. Validity starts one hour in the past to
allow for slow clocks. Of a request, only the verified name and keys enter a certificate.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from mamfed_common.errors import SetupError
from mamfed_common.runtime.bounded import KEY_BYTES, read_bytes
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_common.security.certificates import (
    check_validity,
    common_name,
    node_uri,
    read_certificate,
)
from mamfed_common.security.enrolment import EnrolmentRequest, check_request
from mamfed_common.security.keys import new_ec_key, openssh_text, read_key, write_key
from mamfed_server.settings import ServerHome

AUTHORITY_DAYS = 3653
"""Ten years."""
CERTIFICATE_DAYS = 397
SLOW_CLOCK = timedelta(hours=1)


def make_authority(home: ServerHome, name: str) -> bool:
    """Create the federation's authority if there is none; return whether it is new.

    Args:
        home: The coordinator's home.
        name: The federation's name, 1 to 64 characters.

    Raises:
        SetupError: The key of an existing certificate is missing, or the authority belongs to
            another federation.
    """
    if home.ca.exists():
        read_key(home.ca_key, EllipticCurvePrivateKey)
        if common_name(load_authority(home)) != name:
            raise SetupError(
                f"{home.ca}: belongs to another federation than {name!r}; choose another home"
            )
        return False
    # A key without a certificate is left by a crash between the two steps; reuse it.
    key = _ec_key(home.ca_key)
    subject = _name(name)
    builder = _builder(subject, subject, key.public_key(), datetime.now(UTC), AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(certificates=True), critical=True)
    _write(home.ca, builder.sign(key, SHA384()))
    return True


def make_plan_key(home: ServerHome) -> bool:
    """Create the key that signs plans if there is none; return whether it is new.

    Raises:
        SetupError: The private key of an existing public key is missing.
    """
    if home.plan_public_key.exists() and not home.plan_key.exists():
        raise SetupError(
            f"{home.plan_key}: missing, and sites trust no other; restore it from backup"
        )
    is_new = not home.plan_key.exists()
    if is_new:
        write_key(home.plan_key, Ed25519PrivateKey.generate())
    write_atomic(home.plan_public_key, openssh_text(load_plan_key(home).public_key()) + "\n")
    return is_new


def load_authority(home: ServerHome) -> x509.Certificate:
    """Read the authority's certificate.

    Raises:
        SetupError: It is missing or damaged.
    """
    return read_certificate(home.ca)


def load_server_certificate(home: ServerHome) -> x509.Certificate:
    """Read the server's certificate.

    Raises:
        SetupError: It is missing or damaged.
    """
    return read_certificate(home.server_certificate)


def load_plan_key(home: ServerHome) -> Ed25519PrivateKey:
    """Read the key that signs plans.

    Raises:
        SetupError: It is missing, damaged or readable by others, or is not the key of ``plan.pub``.
    """
    key = read_key(home.plan_key, Ed25519PrivateKey)
    # Any 32 bytes are a key of Ed25519: only its public half tells whether it is the same one.
    if home.plan_public_key.exists():
        text = read_bytes(home.plan_public_key, KEY_BYTES).decode(errors="replace")
        if text.split() != openssh_text(key.public_key()).split():
            raise SetupError(
                f"{home.plan_key}: not the key of {home.plan_public_key}: one of them is damaged; "
                "restore it from backup, or, if you replaced the key, remove plan.pub and run init"
            )
    return key


def issue_server(home: ServerHome, hosts: Sequence[str], days: int = CERTIFICATE_DAYS) -> None:
    """Write a server certificate, and its key if there is none.

    An existing key is kept, so that only one file is replaced, atomically: a running server never
    reads a certificate and a key that do not match.

    Args:
        home: The coordinator's home.
        hosts: Names and addresses at which sites reach the server.
        days: Validity in days, limited by the authority's own expiry.

    Raises:
        SetupError: The authority cannot be used.
    """
    key = _ec_key(home.server_key)
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    now = datetime.now(UTC)
    builder = _leaf(home, "mamfed-server", key.public_key(), names, now, days)
    builder = _for(builder, ExtendedKeyUsageOID.SERVER_AUTH)
    _write(home.server_certificate, _signed(home, builder))


def issue_site(
    home: ServerHome,
    request: EnrolmentRequest,
    days: int = CERTIFICATE_DAYS,
    now: datetime | None = None,
) -> bytes:
    """Issue a site's certificate.

    Args:
        home: The coordinator's home.
        request: The site's request, which is verified here.
        days: Validity in days, limited by the authority's own expiry.
        now: The start of the validity; None: the current time.

    Returns:
        The certificate, PEM.

    Raises:
        SetupError: The request is invalid, or the authority cannot be used.
    """
    check_request(request)
    uri = x509.UniformResourceIdentifier(node_uri(request.node_key()))
    names = x509.SubjectAlternativeName([uri])
    start = now or datetime.now(UTC)
    builder = _leaf(home, request.site, request.tls_key(), names, start, days)
    builder = _for(builder, ExtendedKeyUsageOID.CLIENT_AUTH)
    return _signed(home, builder).public_bytes(Encoding.PEM)


def _ec_key(path: Path) -> EllipticCurvePrivateKey:
    """Read a key, creating it if it does not exist."""
    if not path.exists():
        write_key(path, new_ec_key())
    return read_key(path, EllipticCurvePrivateKey)


def _leaf(
    home: ServerHome,
    name: str,
    key: EllipticCurvePublicKey,
    alternatives: x509.SubjectAlternativeName,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    authority = load_authority(home)
    check_validity(authority, datetime.now(UTC), f"{home.ca}: the authority's certificate")
    left = (authority.not_valid_after_utc - now) // timedelta(days=1)
    builder = _builder(_name(name), authority.subject, key, now, min(days, left))
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    builder = builder.add_extension(issuer, critical=False)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = builder.add_extension(_usage(certificates=False), critical=True)
    return builder.add_extension(alternatives, critical=False)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLOW_CLOCK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    """Return the purpose of a key (RFC 5280, 4.2.1.3): signing certificates, or TLS."""
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _for(builder: x509.CertificateBuilder, purpose: ObjectIdentifier) -> x509.CertificateBuilder:
    return builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)


def _signed(home: ServerHome, builder: x509.CertificateBuilder) -> x509.Certificate:
    key = read_key(home.ca_key, EllipticCurvePrivateKey)
    if key.public_key() != load_authority(home).public_key():
        raise SetupError(
            f"{home.ca_key}: not the key of {home.ca}; restore both from the same backup"
        )
    return builder.sign(key, SHA384())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, certificate: x509.Certificate) -> None:
    private_directory(path.parent)
    write_atomic(path, certificate.public_bytes(Encoding.PEM))
