"""What a site makes of a coordinator's answer."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from tests.unit.client.homes import new_coordinator, new_site
from typer.testing import CliRunner

from mamfed_client.site import identity
from mamfed_common.errors import SetupError
from mamfed_common.security.enrolment import (
    check_welcome,
    read_welcome,
)
from mamfed_common.security.keys import new_ec_key, openssh_text
from mamfed_server.admission.approval import approve

runner = CliRunner()


@pytest.fixture
def coordinator(tmp_path):
    return new_coordinator(tmp_path / "coordinator")


@pytest.fixture
def site(tmp_path):
    return new_site(tmp_path / "a")


@pytest.fixture
def request_(site):
    return identity.build_request(site, "a", "Dr. A, 123")


@pytest.fixture
def welcome(coordinator, request_):
    return approve(coordinator, request_)


def _check(home, welcome, **settings):
    keys = identity.load_tls_key(home).public_key(), identity.load_node_key(home).public_key()
    check_welcome(welcome, *keys, **settings)


def test_a_welcome_is_for_the_site_that_asked(site, welcome):
    _check(site, welcome)
    assert welcome.federation == "North"
    assert welcome.address() == ("localhost", 9555)


@pytest.mark.parametrize(("text", "address"), [("[::1]:9443", ("::1", 9443)), ("h:1", ("h", 1))])
def test_an_address_is_read_without_brackets(welcome, text, address):
    assert welcome.model_copy(update={"server": text}).address() == address


def test_a_welcome_for_other_keys_is_refused(tmp_path, site, welcome):
    other = new_site(tmp_path / "other")
    node, tls = identity.load_node_key(site), identity.load_tls_key(site)
    for keys in [
        (identity.load_tls_key(other), node),
        (tls, identity.load_node_key(other)),
    ]:
        with pytest.raises(SetupError, match="not for this site's keys"):
            check_welcome(welcome, *(key.public_key() for key in keys))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("site", "b", "for b, but its certificate is for 'a'"),
        ("federation", "South", "another federation"),
        ("plan_key", openssh_text(new_ec_key().public_key()), "expected Ed25519"),
        ("plan_key", "ssh-ed25519 AAAA", "not a public key"),
        ("ca_certificate", "", "authority: not a certificate"),
        ("certificate", "x", "certificate: not a certificate"),
    ],
)
def test_a_welcome_with_a_field_changed_is_refused(site, welcome, field, value, words):
    with pytest.raises(SetupError, match=words):
        _check(site, welcome.model_copy(update={field: value}))


def test_a_welcome_with_another_authority_of_the_same_name_is_refused(tmp_path, site, welcome):
    forged = new_coordinator(tmp_path / "forged").ca.read_text()
    with pytest.raises(SetupError, match="not issued by its authority"):
        _check(site, welcome.model_copy(update={"ca_certificate": forged}))


def test_a_certificate_of_this_site_by_another_site_is_refused(site, request_, welcome):
    """A site's certificate must not be good for making others."""
    key = identity.load_tls_key(site)
    mine = x509.load_pem_x509_certificate(welcome.certificate.encode())
    forged = (
        x509.CertificateBuilder()
        .subject_name(mine.subject)
        .issuer_name(mine.issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(mine.not_valid_before_utc)
        .not_valid_after(mine.not_valid_after_utc)
        .add_extension(
            mine.extensions.get_extension_for_class(x509.SubjectAlternativeName).value, False
        )
        .sign(key, SHA384())
    )
    pem = forged.public_bytes(Encoding.PEM).decode()
    with pytest.raises(SetupError, match="not issued by its authority"):
        _check(site, welcome.model_copy(update={"certificate": pem}))


def test_a_welcome_with_the_servers_certificate_is_refused(coordinator, site, welcome):
    pem = coordinator.server_certificate.read_text()
    with pytest.raises(SetupError, match="one common name and one node URI"):
        _check(site, welcome.model_copy(update={"certificate": pem}))


def test_a_welcome_outside_its_dates_names_the_clock(site, welcome):
    now = datetime.now(UTC)
    _check(site, welcome, now=now + timedelta(days=396))
    with pytest.raises(SetupError, match=r"expired on .*; this machine's clock says \d{4}-"):
        _check(site, welcome, now=now + timedelta(days=398))
    with pytest.raises(SetupError, match=r"valid from .* only; this machine's clock says \d{4}-"):
        _check(site, welcome, now=now - timedelta(hours=2))


def test_a_slow_clock_of_half_an_hour_does_no_harm(site, welcome):
    _check(site, welcome, now=datetime.now(UTC) - timedelta(minutes=30))


def test_the_fingerprint_of_a_welcome_covers_address_authority_and_plan_key(tmp_path, welcome):
    other = new_coordinator(tmp_path / "other")
    key = openssh_text(Ed25519PrivateKey.generate().public_key())
    addresses = "evil.example.org:9443", f"{welcome.address()[0]}:1"
    changes = [{"ca_certificate": other.ca.read_text()}, {"plan_key": key}]
    changes += [{"server": address} for address in addresses]
    prints = {welcome.model_copy(update=change).fingerprint() for change in changes}
    assert len({*prints, welcome.fingerprint()}) == 5
    assert welcome.model_copy(update={"contact": "x"}).fingerprint() == welcome.fingerprint()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("server", "h"),
        ("server", "h:1;rm"),
        ("server", "::1:99"),
        ("federation", "\x1b[1m"),
        ("format", "x"),
        ("contact", "\n"),
        ("ca_certificate", "x" * 8193),
        ("key", "x"),
    ],
)
def test_a_welcome_file_with_a_value_out_of_bounds_is_refused(tmp_path, welcome, field, value):
    (tmp_path / "w.json").write_text(json.dumps({**welcome.model_dump(), field: value}))
    with pytest.raises(SetupError, match=field):
        read_welcome(tmp_path / "w.json")
