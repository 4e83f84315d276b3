"""A proxy that fails is named as the proxy, never with its password."""

import socket
import threading

import httpx
import pytest

from mamfed_client.node.connection_errors import explain, is_server_down
from mamfed_client.node.proxies import VARIABLES, check_proxy, proxy_to
from mamfed_common.errors import LinkError

SECRET = "S3cr3t"
SERVER = "coordinator.example:9555"


@pytest.fixture
def through(monkeypatch):
    """Sets the environment to one proxy, and nothing else."""

    def set_proxy(url, *, variable="HTTPS_PROXY", no_proxy=""):
        for name in (*VARIABLES, "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(variable, url)
        monkeypatch.setenv("NO_PROXY", no_proxy)

    return set_proxy


@pytest.fixture
def answering():
    """Starts a proxy that answers every request with the same bytes; returns its port."""
    sockets = []

    def start(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return listener.getsockname()[1]

    yield start
    for listener in sockets:
        listener.close()


def failure():
    with pytest.raises(httpx.TransportError) as caught, httpx.Client(timeout=5) as client:
        client.get(f"https://{SERVER}/health")
    words = explain(caught.value, SERVER)
    assert SECRET not in words
    assert words.startswith(f"{SERVER}: ")
    return words


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_unknown_proxy_is_named_by_host_and_variable(through, variable):
    through(f"http://user:{SECRET}@proxy.invalid:3128", variable=variable)
    words = failure()
    assert f"the proxy proxy.invalid:3128 ({variable}) has an unknown host name" in words
    assert "NO_PROXY=coordinator.example" in words


def test_a_proxy_without_anyone_behind_its_port_is_named(through):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    through(f"http://user:{SECRET}@127.0.0.1:{port}")
    assert f"the proxy 127.0.0.1:{port} (HTTPS_PROXY): connection refused" in failure()


@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"403 Forbidden"])
def test_what_a_proxy_answers_is_said(through, answering, status):
    port = answering(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)
    through(f"http://user:{SECRET}@127.0.0.1:{port}")
    assert f"blocked the connection ({status.decode()})" in failure()


def test_a_proxy_behind_which_tls_fails_is_named_too(through, answering):
    port = answering(b"HTTP/1.1 200 OK\r\n\r\nno TLS at all")
    through(f"http://127.0.0.1:{port}")
    assert "during the TLS handshake; the proxy" in failure()


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}/x@proxy.example:3128",
        f"http://user:{SECRET}@proxy.example:port",
        f"ftp://user:{SECRET}@proxy.example:3128",
        f"http://user:{SECRET}@[::1",
    ],
)
def test_a_proxy_that_is_none_is_refused_without_quoting_it(through, url):
    through(url)
    with pytest.raises(LinkError, match=r"the proxy .*HTTPS_PROXY.*cannot be used") as caught:
        check_proxy(SERVER)
    assert SECRET not in str(caught.value)


def test_a_server_that_no_proxy_leads_to_is_blamed_itself(through):
    through("http://proxy.invalid:3128", no_proxy="coordinator.example")
    assert proxy_to(SERVER) is None
    check_proxy(SERVER)
    assert "welcome.json" in explain(socket.gaierror(-2, "unknown"), SERVER)


def test_an_address_of_ipv6_keeps_its_brackets(through):
    through("http://[fd00::1]:3128")
    assert proxy_to("[fd00::2]:9555").address == "[fd00::1]:3128"


@pytest.mark.parametrize(
    ("error", "proxied", "expected"),
    [
        (ConnectionRefusedError(), False, True),
        (ConnectionRefusedError(), True, False),  # it is the proxy that is not there
        (httpx.ProxyError("503 Service Unavailable"), True, True),
        (httpx.ProxyError("502 Bad Gateway"), True, True),
        (httpx.ProxyError("403 Forbidden"), True, False),
        (TimeoutError(), False, False),
    ],
)
def test_a_server_that_is_not_there_is_told_from_what_is_in_the_way(
    monkeypatch, error, proxied, expected
):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if proxied:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    assert is_server_down(error, "mamfed.example.org:9443") is expected
