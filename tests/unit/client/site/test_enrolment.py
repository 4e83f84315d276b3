"""What a site asks of its coordinator."""

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from tests.unit.client.homes import new_site
from typer.testing import CliRunner

from mamfed_client.site import identity
from mamfed_common.errors import SetupError
from mamfed_common.runtime.documents import read_json
from mamfed_common.security.certificates import node_uri
from mamfed_common.security.enrolment import (
    EnrolmentRequest,
    Welcome,
    check_request,
    read_request,
    write_document,
)
from mamfed_common.security.keys import new_ec_key, openssh_text

runner = CliRunner()


@pytest.fixture
def site(tmp_path):
    return new_site(tmp_path / "a")


@pytest.fixture
def request_(site):
    return identity.build_request(site, "a", "Dr. A, 123")


def _signed_again(request, key):
    """What an attacker could do who holds the node's key."""
    signature = key.sign(request.signed_bytes(), ECDSA(SHA384()))
    return request.model_copy(update={"signature": base64.b64encode(signature).decode()})


def _csr(key, names=("a",), uris=(), algorithm=None):
    attributes = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in names]
    uris = [x509.UniformResourceIdentifier(uri) for uri in uris]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if uris:
        builder = builder.add_extension(x509.SubjectAlternativeName(uris), critical=False)
    return builder.sign(key, algorithm or SHA384()).public_bytes(Encoding.PEM).decode()


def test_a_request_holds_together(request_):
    check_request(request_)
    assert request_.site == "a"


def test_a_request_holds_public_keys_only(site, request_):
    text = request_.model_dump_json()
    assert "PRIVATE" not in text
    for path in (site.node_key, site.tls_key):
        secret = path.read_text().splitlines()[2]
        assert secret not in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("site", "b"),
        ("contact", "Dr. B, 666"),
        ("mamfed_version", "9.9.9"),
        ("flower_version", "9.9.9"),
        ("signature", ""),
        ("signature", "AAAA"),
        ("signature", "é"),
        ("node_public_key", openssh_text(new_ec_key().public_key())),
        ("certificate_request", _csr(new_ec_key(), uris=["urn:mamfed:node:00"])),
        ("certificate_request", "-----BEGIN CERTIFICATE REQUEST-----"),
    ],
)
def test_a_request_with_a_field_changed_is_refused(request_, field, value):
    with pytest.raises(SetupError, match=r"^request"):
        check_request(request_.model_copy(update={field: value}))


def test_a_request_whose_certificate_request_is_of_other_names_is_refused(site, request_):
    key, uri = identity.load_node_key(site), node_uri(request_.node_key())
    other = f"urn:mamfed:node:{'0' * 64}"
    cases = {
        "from a, but its certificate request is for 'b'": _csr(new_ec_key(), ["b"], [uri]),
        "another node key": _csr(new_ec_key(), ["a"], [other]),
        "one common name and one node URI": _csr(new_ec_key(), ["a"], [uri, other]),
        "one common name": _csr(new_ec_key(), ["a", "b"], [uri]),
        "one common name and": _csr(new_ec_key(), ["a"]),
        "expected EC P-384": _csr(generate_private_key(SECP256R1()), ["a"], [uri]),
    }
    for words, csr in cases.items():
        changed = request_.model_copy(update={"certificate_request": csr})
        with pytest.raises(SetupError, match=words):
            check_request(_signed_again(changed, key))


def test_a_certificate_request_not_signed_by_its_key_is_refused(site, request_):
    der = bytearray(request_.csr().public_bytes(Encoding.DER))
    der[-1] ^= 1
    text = base64.encodebytes(der).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
    changed = request_.model_copy(update={"certificate_request": pem})
    with pytest.raises(SetupError, match="not signed by its TLS key"):
        check_request(_signed_again(changed, identity.load_node_key(site)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "mamfed request 2"),
        ("site", "../a"),
        ("site", ""),
        ("contact", "x" * 201),
        ("contact", "\x1b[2Jyes"),
        ("contact", "right\u202eleft"),
        ("node_public_key", "x" * 513),
        ("certificate_request", "x" * 4097),
        ("signature", "x" * 257),
        ("mamfed_version", "1.0\n"),
        ("more", "x"),
    ],
)
def test_a_request_file_with_a_value_out_of_bounds_is_refused(tmp_path, request_, field, value):
    values = {**request_.model_dump(), field: value}
    (tmp_path / "r.json").write_text(json.dumps(values))
    with pytest.raises(SetupError, match=field):
        read_request(tmp_path / "r.json")


def test_a_request_comes_back_from_its_file(tmp_path, request_):
    write_document(tmp_path / "r.json", request_)
    assert read_request(tmp_path / "r.json") == request_
    assert (tmp_path / "r.json").read_text().count("\n") > 8, "people can read it"


def test_the_fingerprint_covers_name_and_both_keys(tmp_path, site, request_):
    again = identity.build_request(site, "a", "another contact")
    assert again.fingerprint() == request_.fingerprint(), "stable, so that it can be compared again"
    assert identity.build_request(site, "b").fingerprint() != request_.fingerprint()
    site.tls_key.unlink()
    identity.make_keys(site)
    third = identity.build_request(site, "a")
    site.node_key.unlink()
    identity.make_keys(site)
    assert len({r.fingerprint() for r in (request_, third, identity.build_request(site, "a"))}) == 3


def test_flower_takes_the_node_key(site):
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes, uses_nist_ec_curve

    key = identity.load_node_key(site).public_key()
    assert isinstance(key, EllipticCurvePublicKey)
    assert uses_nist_ec_curve(key)
    assert public_key_to_bytes(key).startswith(b"-----BEGIN PUBLIC KEY-----")


def test_models_of_both_files_refuse_what_is_missing(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    for model in (EnrolmentRequest, Welcome):
        with pytest.raises(SetupError, match="is missing"):
            read_json(model, tmp_path / "x.json")
