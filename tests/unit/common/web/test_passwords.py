"""Signing in by password, and where a page may be served without."""

import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.routing import Route
from tests.unit.common.web.served import served

from mamfed_common.errors import LinkError, SetupError
from mamfed_common.runtime.child_processes import ask_process
from mamfed_common.web import passwords
from mamfed_common.web.application import TRIES
from mamfed_common.web.pages import Look, Pages
from mamfed_common.web.serving import Listen, check_listen, prepare

PASSWORD = "three random words"
PAGES = Pages("mamfed_common.web", Look("Test", "test"))
ROUTES = [Route("/", lambda r: PAGES.notice(r, "First", f"for {r.state.session.who}"))]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "passwords"
    assert passwords.set_password(path, "anna", PASSWORD)
    return path


@pytest.fixture
def tls(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("*.hospital.org")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    paths[1].write_bytes(pem)
    return paths


def test_a_password_file_is_private_and_holds_no_password(file):
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert PASSWORD not in file.read_text()
    assert passwords.is_right(file, "anna", PASSWORD)
    assert not passwords.is_right(file, "anna", PASSWORD + "x")
    assert not passwords.is_right(file, "berta", PASSWORD)
    assert passwords.set_password(file, "berta", "another long one")
    assert not passwords.set_password(file, "anna", "a new long secret")
    assert passwords.check_file(file) == 2
    assert not passwords.is_right(file, "anna", PASSWORD)


@pytest.mark.parametrize(("name", "password"), [("a b", PASSWORD), ("", PASSWORD), ("a", "short")])
def test_a_bad_name_or_password_is_refused(tmp_path, name, password):
    with pytest.raises(SetupError, match="expected"):
        passwords.set_password(tmp_path / "p", name, password)


@pytest.mark.parametrize("line", ["anna:plain", "anna:scrypt:2:8:1:AA==:AA==", "a b:c", "x"])
def test_a_damaged_or_weak_line_is_refused(file, line):
    file.write_text(line + "\n")
    with pytest.raises(SetupError, match="line 1 is damaged"):
        passwords.is_right(file, "anna", PASSWORD)


def test_a_file_that_others_may_read_is_refused(file):
    file.chmod(0o640)
    with pytest.raises(SetupError, match="chmod 600"):
        passwords.check_file(file)


def test_one_signs_in_over_tls_by_name_and_password(file, tls, tmp_path):
    listen = Listen(password_file=file, certificate=tls[0], key=tls[1])
    trust = ssl.create_default_context(cafile=str(tls[0]))
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with (
        served(ROUTES, tmp_path, listen, PAGES) as site,
        httpx.Client(base_url=site.base, verify=trust) as client,
    ):
        assert site.base.startswith("https://localhost:")
        origin = {"origin": site.base}
        form = client.get("/", headers={"accept": "text/html"}, follow_redirects=True)
        assert 'type="password"' in form.text
        wrong = client.post("/sign-in", data={"name": "anna", "password": "x"}, headers=origin)
        assert wrong.status_code == 401
        answer = client.post(
            "/sign-in", data={"name": "anna", "password": PASSWORD}, headers=origin
        )
        assert answer.status_code == 303
        assert "Secure" in answer.headers["set-cookie"]
        assert "for anna" in client.get("/").text
        named = {"host": f"mammo.hospital.org:{site.base.rpartition(':')[2]}"}
        assert client.get("/", headers=named).status_code == 200
        assert client.get("/", headers={"host": "a.b.hospital.org"}).status_code == 421
        client.cookies.clear()
        tries = [
            client.post("/sign-in", data={"name": "a", "password": "b"}, headers=origin).status_code
            for _ in range(int(TRIES))
        ]
        assert tries[-1] == 429


def test_another_address_needs_tls_and_passwords(file, tls):
    with pytest.raises(SetupError, match="--cert, --key, --password-file"):
        check_listen(Listen(host="0.0.0.0"))
    with pytest.raises(SetupError, match="give --password-file too"):
        check_listen(Listen(host="::", certificate=tls[0], key=tls[1]))
    with pytest.raises(SetupError, match="expected an IP address"):
        check_listen(Listen(host="hospital"))
    with pytest.raises(SetupError, match="expected both or none"):
        check_listen(Listen(certificate=tls[0]))
    with pytest.raises(SetupError, match="subjectAltName"):
        check_listen(Listen(certificate=file, key=tls[1]))
    check_listen(Listen("0.0.0.0", 0, file, *tls))
    check_listen(Listen("::1"))


def test_a_port_in_use_is_one_line(tmp_path):
    with served(ROUTES, tmp_path, pages=PAGES) as site:
        taken = Listen(port=int(site.base.rpartition(":")[2]))
        with pytest.raises(LinkError, match="choose another --port"):
            with prepare(PAGES, ROUTES, taken, tmp_path):
                pass


@pytest.mark.parametrize("program", ["mamfed-client", "mamfed-server"])
def test_both_programs_write_a_password_file(tmp_path, program):
    command = Path(sys.executable).with_name(program)
    argv = (str(command), "password", str(tmp_path / "p"), "anna")
    done = ask_process(argv, 60, text=PASSWORD + "\n")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/p: anna added\n"), done.stderr
    assert passwords.is_right(tmp_path / "p", "anna", PASSWORD)
    done = ask_process(argv, 60, text="short\n")
    assert done.returncode
    assert "found 5 characters" in done.stderr
