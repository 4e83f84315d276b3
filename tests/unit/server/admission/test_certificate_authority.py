import socket
import ssl
import stat
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from cryptography import x509

from mamfed_client.site import identity
from mamfed_client.site.settings import SiteHome
from mamfed_common.errors import SetupError
from mamfed_common.security.keys import new_ec_key, write_key
from mamfed_server.admission.certificate_authority import (
    issue_server,
    issue_site,
    load_authority,
    load_plan_key,
    make_authority,
    make_plan_key,
)
from mamfed_server.settings import ServerHome

HOSTS = ["fl.example.org", "127.0.0.1", "::1"]


def _openssl(*arguments):
    result = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture
def home(tmp_path):
    home = ServerHome(tmp_path / "coordinator")
    make_authority(home, "North")
    issue_server(home, HOSTS)
    make_plan_key(home)
    return home


@pytest.fixture
def site(tmp_path):
    site = SiteHome(tmp_path / "site")
    identity.make_keys(site)
    return site


@pytest.fixture
def request_(site):
    return identity.build_request(site, "a")


@pytest.fixture
def certificate(home, site, request_):
    """The site's certificate, in its place."""
    site.certs.mkdir()
    site.ca.write_bytes(home.ca.read_bytes())
    site.certificate.write_bytes(issue_site(home, request_))
    return site.certificate


def test_openssl_verifies_both_certificates_for_their_purpose_only(home, certificate):
    # -purpose, not -x509_strict: strictness asks a root for what RFC 5280 leaves out of one.
    for path, purpose, other in [
        (home.server_certificate, "sslserver", "sslclient"),
        (certificate, "sslclient", "sslserver"),
    ]:
        verify = "verify", "-CAfile", home.ca, "-purpose"
        assert _openssl(*verify, purpose, path) == (0, f"{path}: OK\n")
        assert "unsuitable certificate purpose" in _openssl(*verify, other, path)[1]


@pytest.mark.parametrize("host", HOSTS)
def test_the_server_certificate_is_for_each_of_its_hosts(home, host):
    option = "-verify_ip" if ":" in host or host[0].isdigit() else "-verify_hostname"
    verify = "verify", "-CAfile", home.ca, option
    assert _openssl(*verify, host, home.server_certificate)[0] == 0
    other = "127.0.0.2" if option == "-verify_ip" else "fl.example.com"
    assert "mismatch" in _openssl(*verify, other, home.server_certificate)[1]


def test_openssl_reads_what_a_site_certificate_says(certificate, request_):
    text = _openssl("x509", "-in", certificate, "-noout", "-text")[1]
    fingerprint = _openssl("x509", "-in", certificate, "-noout", "-pubkey")[1]
    assert "Issuer: CN = North" in text
    assert "Subject: CN = a\n" in text
    assert f"URI:urn:mamfed:node:{_node_sha256(request_)}\n" in text
    assert "CA:FALSE" in text
    assert "NIST CURVE: P-384" in text
    assert "ecdsa-with-SHA384" in text
    assert fingerprint.startswith("-----BEGIN PUBLIC KEY-----")


def _node_sha256(request):
    command = ["ssh-keygen", "-e", "-m", "PKCS8", "-f", "/dev/stdin"]
    try:
        pem = subprocess.run(
            command, input=request.node_public_key, capture_output=True, check=True, text=True
        ).stdout
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=pem.encode(), capture_output=True
    ).stdout
    digest = subprocess.run(["sha256sum"], input=der, capture_output=True, check=True).stdout
    return digest.decode().split()[0]


def test_the_authority_may_sign_sites_and_no_further_authority(home):
    text = _openssl("x509", "-in", home.ca, "-noout", "-text")[1]
    assert "CA:TRUE, pathlen:0" in text
    assert "Certificate Sign, CRL Sign" in text
    years = load_authority(home).not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=3652) < years < timedelta(days=3653)


def test_a_site_and_its_server_shake_hands_by_tls_1_3(home, site, certificate):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(home.ca)
    server.load_cert_chain(home.server_certificate, home.server_key)
    client = ssl.create_default_context(cafile=str(site.ca))
    client.load_cert_chain(certificate, site.tls_key)
    assert _shaken(server, client) == (("commonName", "a"),)


def _shaken(server, client):
    listener = socket.create_server(("127.0.0.1", 0))
    seen = []

    def accept():
        connection, _ = listener.accept()
        with server.wrap_socket(connection, server_side=True) as tls:
            seen.append(tls.getpeercert()["subject"][0])
            tls.sendall(b"x")

    thread = threading.Thread(target=accept)
    thread.start()
    with (
        socket.create_connection(listener.getsockname()) as plain,
        client.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        assert tls.recv(1) == b"x"
    thread.join()
    listener.close()
    return seen[0]


def test_serial_numbers_are_random(home, request_):
    pems = [issue_site(home, request_) for _ in range(4)]
    serials = sorted(x509.load_pem_x509_certificate(pem).serial_number for pem in pems)
    assert all(serial.bit_length() > 100 for serial in serials)
    assert min(b - a for a, b in pairwise(serials)) > 2**64


def test_a_certificate_starts_an_hour_ago_and_ends_when_asked(home, request_):
    now = datetime(2027, 1, 1, tzinfo=UTC)
    pem = issue_site(home, request_, days=10, now=now)
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.not_valid_before_utc == datetime(2026, 12, 31, 23, tzinfo=UTC)
    assert certificate.not_valid_after_utc == datetime(2027, 1, 11, tzinfo=UTC)


def test_no_certificate_outlives_its_authority(home, request_):
    certificate = x509.load_pem_x509_certificate(issue_site(home, request_, days=99_999))
    assert certificate.not_valid_after_utc <= load_authority(home).not_valid_after_utc


def test_a_request_that_does_not_hold_gets_no_certificate(home, request_):
    with pytest.raises(SetupError, match="altered after it was signed"):
        issue_site(home, request_.model_copy(update={"contact": "x"}))


def test_only_the_owner_may_read_keys(home):
    for path in (home.ca_key, home.server_key, home.plan_key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in (home.ca.parent, home.server_key.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["ca_key", "server_key", "plan_key"])
def test_a_key_open_to_others_is_refused(home, request_, name):
    key = getattr(home, name)
    key.chmod(0o644)
    with pytest.raises(SetupError, match=f"chmod 600 {key}"):
        _use_all_keys(home, request_)


def _use_all_keys(home, request):
    issue_site(home, request)
    issue_server(home, HOSTS)
    load_plan_key(home)


def test_the_key_of_another_authority_signs_nothing(home, request_):
    home.ca_key.unlink()
    write_key(home.ca_key, new_ec_key())
    with pytest.raises(SetupError, match="not the key of"):
        issue_site(home, request_)
