"""What comes to a running coordinator from outside: homes of sites with something wrong in them,
sockets, and what the kernel says of its processes.
"""

import base64
import shutil
import socket
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from tests.unit.server.certificates import (
    Authority,
    new_key,
    public_pem,
    write_certificate,
    write_key,
)

from mamfed_client.site.settings import SiteHome
from mamfed_common import __version__
from mamfed_common.protocol.versions import MAMFED_HEADER, flower_version
from mamfed_common.security.keys import write_key as write_site_key
from mamfed_server.fleet.flower_compat import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
)

LISTENING = "0A"
"""The kernel's number for a socket that takes connections (``/proc/net/tcp``)."""


def authority_of(federation):
    """The federation's own authority."""
    home = federation.server_home / "ca"
    return Authority.of(home / "ca.pem", home / "ca.key")


def copied(federation, site, folder):
    """A copy of a site's home as it was enrolled."""
    source = federation.site_home(site)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("lock", "logs", "status.json"))
    return SiteHome(folder)


def node_key_of(home):
    return load_ssh_private_key(home.node_key.read_bytes(), None)


def put_certificate(home, authority, name, node_key=None, **validity):
    """Give a site a certificate for a new TLS key."""
    key = new_key()
    write_key(home.tls_key, key)
    made = authority.site(name, key, node_key or node_key_of(home), **validity)
    write_certificate(home.certificate, made)
    return home


def put_node_key(home, key):
    home.node_key.unlink()
    write_site_key(home.node_key, key, openssh=True)
    return home


def connect(federation, home=None):
    """Open TLS to the coordinator; the other side's judgement comes with the first read."""
    context = ssl.create_default_context(cafile=federation.server_home / "ca" / "ca.pem")
    if home is not None:
        context.load_cert_chain(home.certificate, home.tls_key)
    line = socket.create_connection(("127.0.0.1", federation.port), timeout=20)
    return context.wrap_socket(line, server_hostname="127.0.0.1")


def headers_of(home):
    """What a site's requests say of it, all but the signature."""
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(public_pem(node_key_of(home))).decode(),
        FLWR_PACKAGE_VERSION_METADATA_KEY: flower_version(),
        MAMFED_HEADER: __version__,
    }


def ask(line, method, path, **headers):
    """Send a request without a body; return the answer's first bytes."""
    words = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    line.sendall(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{words}\r\n".encode())
    return line.recv(65536).decode()


def processes_below(pid):
    """A process and all that it has started, as far as they live."""
    parents = {int(path.parent.name): _parent(path) for path in Path("/proc").glob("[0-9]*/stat")}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _parent(path):
    try:
        return int(path.read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return 0


def listeners(pids):
    """The addresses at which some processes take TCP connections, as ``(host, port)``."""
    inodes = {_inode(file) for pid in pids for file in Path(f"/proc/{pid}/fd").iterdir()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and words[9] in inodes:
                host, port = words[1].split(":")
                found.append((host, int(port, 16)))
    return found


def _inode(file):
    try:
        return file.readlink().name.removeprefix("socket:[").removesuffix("]")
    except FileNotFoundError:
        return ""


def peak_bytes(pid):
    """The most memory that a process has ever held."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel says nothing of its memory")
