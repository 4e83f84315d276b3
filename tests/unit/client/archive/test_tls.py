"""Why TLS to an archive failed is told in words, whichever side it failed at."""

import socket
import ssl
import threading
from time import monotonic

import pytest
from tests.unit.server.certificates import write_machines

from mamfed_client.archive import tls
from mamfed_client.archive.tls import tls_error, tls_of, why
from mamfed_client.site.archive_settings import DicomWebSettings, TlsSettings
from mamfed_common.errors import SetupError


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    return write_machines(tmp_path_factory.mktemp("certs"), "good")


def settings(certs, ca="ca", name="ca-good"):
    pair = {"certificate": certs / f"{name}.pem", "key": certs / f"{name}.key"} if name else {}
    return TlsSettings(ca_file=certs / f"{ca}.pem", **pair)


def met(listening, calling):
    """Let one side call the other; return why it failed at each, empty where it did not."""
    server = tls_of(listening, is_server=True)
    client = tls_of(calling)

    def answer():
        connection, _ = listener.accept()
        try:
            with server.wrap_socket(connection, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError:
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with client.wrap_socket(socket.socket(), server_hostname="127.0.0.1") as wrapped:
                wrapped.connect(listener.getsockname())
                wrapped.send(b"x")
                wrapped.recv(1)
        except OSError:
            pass
        thread.join(10)
    return server.failure, client.failure


def test_both_sides_trust_each_other(certs):
    assert met(settings(certs), settings(certs)) == ("", "")


@pytest.mark.parametrize(
    ("listening", "calling", "at_listener", "at_caller"),
    [
        ({}, {"ca": "stranger"}, "does not trust this site (tls", "is not trusted ("),
        ({"name": "ca-expired"}, {}, "(sslv3 alert certificate expired)", "has expired"),
        ({}, {"name": "ca-expired"}, "its certificate has expired", "certificate expired)"),
        ({}, {"name": "stranger-good"}, "is not trusted (", "does not trust this site"),
        ({}, {"name": ""}, "", "certificate required)"),
    ],
)
def test_each_side_says_what_is_wrong(certs, listening, calling, at_listener, at_caller):
    server, client = met(settings(certs, **listening), settings(certs, **calling))
    assert at_listener in server
    # TLS 1.3 refuses a caller's certificate after its handshake: by an alert, or a reset before it
    assert at_caller in client or ("name" in calling and not client)


def test_a_side_without_tls_is_named(certs):
    context = tls_of(settings(certs))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"no TLS\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OSError), socket.create_connection(listener.getsockname()) as plain:  # noqa: PT011
            context.wrap_socket(plain, server_hostname="127.0.0.1")
        thread.join(10)
    assert "no TLS is spoken there" in context.failure


def test_who_says_nothing_to_the_listener_is_left_soon(certs, monkeypatch):
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.2)
    context = tls_of(settings(certs), is_server=True)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        connection, _ = listener.accept()
        begun = monotonic()
        with pytest.raises(TimeoutError):
            context.wrap_socket(connection, server_side=True)
        assert monotonic() - begun < 10
    assert context.failure


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ca_file": "nowhere.pem"}, "nowhere.pem: No such file"),
        ({"ca_file": "ca-good.key"}, "found no certificates, expected PEM"),
        ({"certificate": "nowhere.pem"}, "nowhere.pem: No such file"),
        ({"key": "stranger-good.key"}, "expected the private key"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(certs, changed, words):
    paths = {key: certs / name for key, name in changed.items()}
    with pytest.raises(SetupError, match=words):
        tls_of(settings(certs).model_copy(update=paths))


def test_a_key_with_a_passphrase_asks_nobody(certs, tmp_path):
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key((certs / "ca-good.key").read_bytes(), None)
    secret = BestAvailableEncryption(b"a secret")
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    with pytest.raises(SetupError, match="without passphrase"):
        tls_of(settings(certs).model_copy(update={"key": tmp_path / "key"}))


def test_certificate_and_key_come_together(certs):
    for make, more in ((TlsSettings, {}), (DicomWebSettings, {"url": "https://pacs.example"})):
        with pytest.raises(ValueError, match="set both or neither"):
            make(ca_file=certs / "ca.pem", certificate=certs / "x", **more)


def test_an_error_of_tls_is_found_within_those_of_requests():
    inner = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    assert tls_error(ConnectionError(Exception("first", inner))) is inner
    assert tls_error(ConnectionError("no")) is None
    assert "no TLS is spoken" in why(ConnectionResetError(104, "reset"))
