"""How a site becomes part of a federation: its request, and the coordinator's welcome.

A request carries public keys only and is signed by the node's key; a welcome holds no secret.
Each has a fingerprint that both sides compare by phone, since the files travel by mail.
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

from mamfed_common.config import SITE_NAME, Config
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


def _printable(text: str) -> str:
    if not text.isprintable():  # it is shown in a terminal: no escape sequences
        raise ValueError("holds characters that cannot be printed")
    return text


Words = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
FederationName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
"""The common name of the federation's authority; X.509 allows 64 characters."""


class EnrolmentRequest(Config):
    """What a site sends to its coordinator, once and before its certificate expires.

    Attributes:
        format: Names the format and its version.
        site: What the site wants to be called.
        node_public_key: The key by which Flower knows the node: EC P-384, OpenSSH.
        certificate_request: PKCS10 in PEM with the TLS key, the site's name as common name and
            the node key's fingerprint as URI.
        contact: Whom to phone.
        mamfed_version: The site's mamfed.
        flower_version: The site's Flower.
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
        """Return what the signature is over: the other fields as canonical JSON."""
        values = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    def node_key(self) -> EllipticCurvePublicKey:
        """Return the node's public key.

        Raises:
            SetupError: It is not EC P-384 in OpenSSH's format.
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
        """Return the key that a certificate is asked for.

        Raises:
            SetupError: It is not EC P-384.
        """
        return p384_key(self.csr(), "request's TLS key")

    def fingerprint(self) -> str:
        """Return what to read over the phone: it covers the name and both keys."""
        keys = spki(self.node_key()) + spki(self.tls_key())
        return fingerprint(self.site.encode() + keys)


class Welcome(Config):
    """What the coordinator answers. It holds no secret.

    Attributes:
        format: Names the format and its version.
        federation: The federation's name, which is its authority's common name.
        site: What the federation calls the site.
        server: ``host:port``, IPv6 addresses in brackets.
        ca_certificate: The certificate of the federation's authority, PEM.
        certificate: The site's certificate, PEM.
        plan_key: The key that signs plans: Ed25519, OpenSSH.
        contact: Whom to phone.
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
            SetupError: It is not Ed25519 in OpenSSH's format.
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
        """Return what to read over the phone: it covers the authority and the plan key."""
        return federation_fingerprint(self.authority(), self.plan_public_key())


def federation_fingerprint(authority: x509.Certificate, plan_key: Ed25519PublicKey) -> str:
    """Return what both sides compare by phone: it covers the authority and the plan key."""
    return fingerprint(authority.public_bytes(Encoding.DER) + spki(plan_key))


def check_request(request: EnrolmentRequest) -> None:
    """Check all that a request says of itself.

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
        raise SetupError(f"request: of {request.site}, but its certificate request is of {site!r}")
    if uri != node_uri(node_key):
        raise SetupError("request: its certificate request names another node key")
    try:
        signature = base64.b64decode(request.signature, validate=True)
        node_key.verify(signature, request.signed_bytes(), ECDSA(SHA384()))
    except (binascii.Error, ValueError, InvalidSignature):
        raise SetupError("request: changed after it was signed; ask for it again") from None


def check_welcome(
    welcome: Welcome,
    tls_key: EllipticCurvePublicKey,
    node_key: EllipticCurvePublicKey,
    now: datetime | None = None,
) -> None:
    """Check that a welcome is for this site's keys and holds together.

    Args:
        welcome: The welcome.
        tls_key: This site's public TLS key.
        node_key: This site's public node key.
        now: The time to check at; None: now.

    Raises:
        SetupError: Its certificate is for other keys or another site, not of its authority, or
            not valid now.
    """
    welcome.plan_public_key()
    authority, certificate = welcome.authority(), welcome.site_certificate()
    site, uri = names_in(certificate, "welcome")
    if p384_key(certificate, "welcome") != tls_key or uri != node_uri(node_key):
        raise SetupError(
            "welcome: its certificate is for other keys than this site's; send the newest "
            "request.json and join its answer"
        )
    if site != welcome.site:
        raise SetupError(f"welcome: for {welcome.site}, but its certificate is of {site!r}")
    # The name is shown beside the fingerprint, so it must be the one that the fingerprint covers.
    if common_name(authority) != welcome.federation:
        raise SetupError("welcome: its authority is of another federation than it says")
    check_chain(authority, certificate, now or datetime.now(UTC), "welcome")


def read_request(path: Path) -> EnrolmentRequest:
    """Read a request file, unchecked.

    Raises:
        SetupError: It cannot be read or is no request.
    """
    with expecting(FileKind.REQUEST, path):
        return read_json(EnrolmentRequest, path)


def read_welcome(path: Path) -> Welcome:
    """Read a welcome file, unchecked.

    Raises:
        SetupError: It cannot be read or is no welcome.
    """
    with expecting(FileKind.WELCOME, path):
        return read_json(Welcome, path)


def write_document(path: Path, document: EnrolmentRequest | Welcome) -> None:
    """Write a request or a welcome as JSON that people can read."""
    write_atomic(path, document.model_dump_json(indent=2) + "\n")


def _is_self_signed(csr: x509.CertificateSigningRequest) -> bool:
    try:
        return csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
