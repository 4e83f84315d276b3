"""A site's keys, its request to the coordinator, and the coordinator's welcome."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mamfed_client.site.settings import SiteHome
from mamfed_common import __version__
from mamfed_common.errors import SetupError
from mamfed_common.protocol.versions import flower_version
from mamfed_common.runtime.documents import validated
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_common.security.certificates import node_uri
from mamfed_common.security.enrolment import (
    EnrolmentRequest,
    Welcome,
    check_welcome,
    read_welcome,
    write_document,
)
from mamfed_common.security.keys import new_ec_key, openssh_text, read_key, write_key


def make_keys(home: SiteHome) -> bool:
    """Create the site's two keys where missing; return whether any was created."""
    missing = [path for path in (home.node_key, home.tls_key) if not path.exists()]
    for path in missing:
        write_key(path, new_ec_key(), openssh=path == home.node_key)
    return bool(missing)


def replace_keys(home: SiteHome) -> Path:
    """Set the keys aside and create new ones; return the folder of the old ones.

    The site cannot connect until it has joined with the welcome to a new request.
    """
    numbers = (home.path / f"keys.old-{n}" for n in range(1, 10_000))
    aside = next(path for path in numbers if not path.exists())
    home.keys.rename(aside)
    make_keys(home)
    return aside


def load_node_key(home: SiteHome) -> EllipticCurvePrivateKey:
    """Read the key that identifies this node to Flower.

    Raises:
        SetupError: It is missing, damaged or readable by others.
    """
    return read_key(home.node_key, EllipticCurvePrivateKey)


def load_tls_key(home: SiteHome) -> EllipticCurvePrivateKey:
    """Read the key of this site's certificate.

    Raises:
        SetupError: It is missing, damaged or readable by others.
    """
    return read_key(home.tls_key, EllipticCurvePrivateKey)


def build_request(home: SiteHome, site: str, contact: str = "") -> EnrolmentRequest:
    """Build the request for a certificate, signed with the site's keys.

    Args:
        home: The site's home, with keys.
        site: The site's name.
        contact: Contact for the coordinator's phone call.

    Raises:
        SetupError: A key cannot be used, or the contact is not one printable line.
    """
    node_key, tls_key = load_node_key(home), load_tls_key(home)
    uri = x509.UniformResourceIdentifier(node_uri(node_key.public_key()))
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)]))
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .sign(tls_key, SHA384())
    )
    values = {
        "site": site,
        "node_public_key": openssh_text(node_key.public_key()),
        "certificate_request": csr.public_bytes(Encoding.PEM).decode(),
        "contact": contact,
        "mamfed_version": __version__,
        "flower_version": flower_version(),
    }
    request = validated(EnrolmentRequest, values, "request")
    signature = node_key.sign(request.signed_bytes(), ECDSA(SHA384()))
    return request.model_copy(update={"signature": base64.b64encode(signature).decode()})


def load_welcome(home: SiteHome) -> Welcome:
    """Read the welcome with which this site joined.

    Raises:
        SetupError: The site has not joined, or the file is damaged.
    """
    if not home.welcome.exists():
        raise SetupError(
            f"{home.welcome}: not found; run mamfed-client enroll, send request.json to the "
            "coordinator, and run mamfed-client join with the welcome they send back"
        )
    return read_welcome(home.welcome)


def check_own(home: SiteHome, welcome: Welcome, site: str) -> None:
    """Check that a welcome is for this site and its keys.

    Raises:
        SetupError: It is for another site or other keys, is inconsistent, or is not valid now; or
            a key cannot be used.
    """
    if welcome.site != site:
        raise SetupError(f"welcome: for {welcome.site}, but site.yaml calls this site {site}")
    check_welcome(welcome, load_tls_key(home).public_key(), load_node_key(home).public_key())


def news_in(home: SiteHome, welcome: Welcome) -> list[str] | None:
    """Return what differs from the welcome that this site trusts; None: it trusts none."""
    try:
        return welcome.differences(load_welcome(home))
    except SetupError:  # none yet, or a damaged one: nothing is known
        return None


def join(home: SiteHome, welcome: Welcome) -> None:
    """Install a checked welcome and its certificates; each file is replaced atomically.

    A running node reloads its certificate when it changes.
    """
    private_directory(home.certs)
    write_atomic(home.ca, welcome.ca_certificate)
    write_atomic(home.certificate, welcome.certificate)
    write_document(home.welcome, welcome)
