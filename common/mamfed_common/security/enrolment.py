"""Enrolment of a site: its request, and the coordinator's welcome.

A request carries public keys only and is signed by the node's key; a welcome holds no secret. The
files travel by mail, so each has a fingerprint that both sides compare by phone.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AfterValidator, Field

from mamfed_common.config import SITE_NAME, Config, printable
from mamfed_common.errors import SetupError
from mamfed_common.runtime.documents import read_json
from mamfed_common.runtime.file_kinds import FileKind, expecting
from mamfed_common.runtime.files import write_atomic
from mamfed_common.security.certificates import (
    check_chain,
    common_name,
    names_in,
    node_uri,
    p384_key,
    parse_certificate,
)
from mamfed_common.security.keys import parse_openssh, spki
from mamfed_common.security.signing import fingerprint

SITE = Annotated[str, Field(pattern=SITE_NAME)]


Words = Annotated[str, Field(max_length=200), AfterValidator(printable)]
FederationName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(printable)]
"""The common name of the federation's authority; X.509 allows 64 characters."""


class EnrolmentRequest(Config):
    """A site's request to its coordinator, to enrol and again before its certificate expires.

    Attributes:
        format: Name and version of the format.
        site: The name that the site asks for.
        node_public_key: The key by which Flower knows the node: EC P-384, OpenSSH format.
        certificate_request: PKCS10 in PEM with the TLS key, the site's name as common name and
            the node key's fingerprint as URI.
        contact: Person to phone.
        mamfed_version: The site's version of mamfed.
        flower_version: The site's version of Flower.
        signature: ECDSA with SHA-384 by the node key over :meth:`signed_bytes`, base64.
    """

    format: Literal["mamfed request 1"] = "mamfed request 1"
    site: SITE
    node_public_key: str = Field(max_length=512)
    certificate_request: str = Field(max_length=4096)
    contact: Words = ""
    mamfed_version: str = Field(pattern=r"^[0-9A-Za-z.+-]{1,32}$")
    flower_version: str = Field(pattern=r"^[0-9A-Za-z.+-]{1,32}$")
    signature: str = Field(default="", max_length=256)

    def signed_bytes(self) -> bytes:
        """Return the bytes that are signed: the other fields as canonical JSON."""
        values = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    def node_key(self) -> EllipticCurvePublicKey:
        """Return the node's public key.

        Raises:
            SetupError: It is not EC P-384 in OpenSSH format.
        """
        return parse_openssh(self.node_public_key, EllipticCurvePublicKey, "request's node key")

    def csr(self) -> x509.CertificateSigningRequest:
        """Return the certificate request.

        Raises:
            SetupError: It is not PKCS10 in PEM.
        """
        try:
            return x509.load_pem_x509_csr(self.certificate_request.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise SetupError("request: its certificate request is damaged") from None

    def tls_key(self) -> EllipticCurvePublicKey:
        """Return the key for which a certificate is requested.

        Raises:
            SetupError: It is not EC P-384.
        """
        return p384_key(self.csr(), "request's TLS key")

    def fingerprint(self) -> str:
        """Return the fingerprint to compare by phone; it covers the name and both keys."""
        keys = spki(self.node_key()) + spki(self.tls_key())
        return fingerprint(self.site.encode() + keys)


class Welcome(Config):
    """The coordinator's answer to a request. It holds no secret.

    Attributes:
        format: Name and version of the format.
        federation: The federation's name, which is its authority's common name.
        site: The site's name in the federation.
        server: ``host:port``, IPv6 addresses in brackets.
        ca_certificate: The certificate of the federation's authority, PEM.
        certificate: The site's certificate, PEM.
        plan_key: The key that signs plans: Ed25519, OpenSSH format.
        contact: Person to phone.
    """

    format: Literal["mamfed welcome 1"] = "mamfed welcome 1"
    federation: FederationName
    site: SITE
    server: str = Field(pattern=r"^([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$")
    ca_certificate: str = Field(max_length=8192)
    certificate: str = Field(max_length=8192)
    plan_key: str = Field(max_length=512)
    contact: Words = ""

    def address(self) -> tuple[str, int]:
        """Return the server's host, without brackets, and port."""
        host, _, port = self.server.rpartition(":")
        return host.strip("[]"), int(port)

    def plan_public_key(self) -> Ed25519PublicKey:
        """Return the key that signs plans.

        Raises:
            SetupError: It is not Ed25519 in OpenSSH format.
        """
        return parse_openssh(self.plan_key, Ed25519PublicKey, "welcome's plan key")

    def authority(self) -> x509.Certificate:
        """Return the authority's certificate.

        Raises:
            SetupError: It is damaged.
        """
        return parse_certificate(self.ca_certificate, "welcome's authority")

    def site_certificate(self) -> x509.Certificate:
        """Return the site's certificate.

        Raises:
            SetupError: It is damaged.
        """
        return parse_certificate(self.certificate, "welcome's certificate")

    def fingerprint(self) -> str:
        """Return the fingerprint to compare by phone, see :func:`federation_fingerprint`."""
        return federation_fingerprint(self.server, self.authority(), self.plan_public_key())

    def differences(self, other: Welcome) -> list[str]:
        """Return in words what the fingerprint covers and another welcome has otherwise."""
        differs = {
            "address": self.server != other.server,
            "authority": self.authority() != other.authority(),
            "plan key": spki(self.plan_public_key()) != spki(other.plan_public_key()),
        }
        return [what for what, is_other in differs.items() if is_other]


FINGERPRINT_PURPOSE = "mamfed federation 2"


def federation_fingerprint(
    server: str, authority: x509.Certificate, plan_key: Ed25519PublicKey
) -> str:
    """Return the fingerprint to compare by phone.

    It covers all that a site trusts and cannot check itself: the server's address, the authority's
    certificate with the federation's name, and the plan key. The rest of a welcome follows from
    these and from the site's own keys (docs/decisions/0055).
    """
    covered = [
        FINGERPRINT_PURPOSE,
        server,
        authority.public_bytes(Encoding.DER).hex(),
        spki(plan_key).hex(),
    ]
    return fingerprint(json.dumps(covered).encode())


def check_request(request: EnrolmentRequest) -> None:
    """Check that a request is consistent and its signatures are valid.

    Raises:
        SetupError: A signature does not verify, or the certificate request names another site or
            another node key.
    """
    csr, node_key = request.csr(), request.node_key()
    request.tls_key()
    if not _is_self_signed(csr):
        raise SetupError("request: its certificate request is not signed by its TLS key")
    site, uri = names_in(csr, "request")
    if site != request.site:
        raise SetupError(
            f"request: from {request.site}, but its certificate request is for {site!r}"
        )
    if uri != node_uri(node_key):
        raise SetupError("request: its certificate request names another node key")
    try:
        signature = base64.b64decode(request.signature, validate=True)
        node_key.verify(signature, request.signed_bytes(), ECDSA(SHA384()))
    except (binascii.Error, ValueError, InvalidSignature):
        raise SetupError("request: altered after it was signed; ask for it again") from None


def check_welcome(
    welcome: Welcome,
    tls_key: EllipticCurvePublicKey,
    node_key: EllipticCurvePublicKey,
    now: datetime | None = None,
) -> None:
    """Check that a welcome is consistent and meant for this site's keys.

    Args:
        welcome: The welcome.
        tls_key: This site's public TLS key.
        node_key: This site's public node key.
        now: Time of the check; None means the current time.

    Raises:
        SetupError: Its certificate is for other keys or another site, was not issued by its
            authority, or is not valid now.
    """
    welcome.plan_public_key()
    authority, certificate = welcome.authority(), welcome.site_certificate()
    site, uri = names_in(certificate, "welcome")
    if p384_key(certificate, "welcome") != tls_key or uri != node_uri(node_key):
        raise SetupError(
            "welcome: its certificate is not for this site's keys; send the newest request.json "
            "and join with the answer to it"
        )
    if site != welcome.site:
        raise SetupError(f"welcome: for {welcome.site}, but its certificate is for {site!r}")
    # The name is shown with the fingerprint, so it must be the one that the fingerprint covers.
    if common_name(authority) != welcome.federation:
        raise SetupError("welcome: its authority belongs to another federation than it states")
    check_chain(authority, certificate, now or datetime.now(UTC), "welcome")


def read_request(path: Path) -> EnrolmentRequest:
    """Read a request file without checking its signatures.

    Raises:
        SetupError: It cannot be read or is not a request.
    """
    with expecting(FileKind.REQUEST, path):
        return read_json(EnrolmentRequest, path)


def read_welcome(path: Path) -> Welcome:
    """Read a welcome file without checking its certificates.

    Raises:
        SetupError: It cannot be read or is not a welcome.
    """
    with expecting(FileKind.WELCOME, path):
        return read_json(Welcome, path)


def write_document(path: Path, document: EnrolmentRequest | Welcome) -> None:
    """Write a request or a welcome as indented JSON."""
    write_atomic(path, document.model_dump_json(indent=2) + "\n")


def _is_self_signed(csr: x509.CertificateSigningRequest) -> bool:
    try:
        return csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
