"""A listening server on loopback with real TLS, and sites to talk to it with Flower's requests."""

import socket
import ssl
from base64 import b64encode
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_der_x509_certificate
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
)
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
)
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from tests.unit.server.certificates import (
    Authority,
    fingerprint,
    new_key,
    public_pem,
    write_certificate,
    write_key,
)

from mamfed_common import __version__
from mamfed_common.errors import LinkError
from mamfed_common.protocol.versions import MAMFED_HEADER, flower_version
from mamfed_server.fleet.listener import TlsListener
from mamfed_server.fleet.request_guard import Limits, RequestGuard
from mamfed_server.fleet.superlink import SuperLink

LIMITS = Limits(
    body_bytes=100_000, body_seconds=1.0, connections_per_address=20, answer_bytes=150_000
)


class Roll:
    """Who belongs to the federation: serial numbers and node keys by site."""

    def __init__(self):
        self.sites = {}
        self.revoked = set()

    def check(self, certificate_der, node):
        serial = load_der_x509_certificate(certificate_der).serial_number
        for site, (known_serial, known_node) in self.sites.items():
            if serial == known_serial:
                if site in self.revoked:
                    raise LinkError(f"{site} is revoked")
                if node not in (None, known_node):
                    raise LinkError("the certificate belongs to another site's key")
                return SimpleNamespace(site=site)
        raise LinkError("the certificate is not known here")


class Federation:
    """A listening server, and sites to talk to it."""

    def __init__(self, folder, limits=LIMITS):
        self.folder, self.roll, self.contacts = folder, Roll(), []
        self.authority, self.link = Authority(), SuperLink(limits.answer_bytes)
        write_certificate(folder / "ca.pem", self.authority.certificate)
        self.renew_server()
        guard = RequestGuard(self.link, self.roll, limits, lambda *who: self.contacts.append(who))
        self.front = TlsListener(
            guard,
            "127.0.0.1",
            0,
            ca=folder / "ca.pem",
            certificate=folder / "server.pem",
            key=folder / "server.key",
            limits=limits,
            known=self.roll,
        )
        self.port = self.front.start()

    def renew_server(self):
        key = new_key()
        write_key(self.folder / "server.key", key)
        write_certificate(self.folder / "server.pem", self.authority.server(key))

    def site(self, name, *, authority=None, known=True, **validity):
        tls, node = new_key(), new_key()
        certificate = (authority or self.authority).site(name, tls, node, **validity)
        if known:
            self.roll.sites[name] = (certificate.serial_number, fingerprint(node))
        key = write_key(self.folder / f"{name}.key", tls)
        pem = write_certificate(self.folder / f"{name}.pem", certificate)
        return Site(self, pem, key, node)

    def context(self):
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        return context

    def close(self):
        self.link.close()
        self.front.stop()


class Site:
    """One site: certificate, node key, and Flower's requests."""

    def __init__(self, federation, pem, key, node):
        self.federation, self.files = federation, (pem, key)
        self.node, self.public = node, public_pem(node)
        context = federation.context()
        if pem is not None:
            context.load_cert_chain(pem, key)
        self.http = httpx.Client(
            verify=context, base_url=f"https://127.0.0.1:{federation.port}", trust_env=False
        )

    def post(self, call, message, node=None, **changes):
        headers = {**self.signed_headers(node), **changes}
        body = message if isinstance(message, bytes) else message.SerializeToString()
        return self.http.post(f"/v1/fleet/{call}", content=body, headers=headers)

    def activate(self, **changes):
        message = ActivateNodeRequest(public_key=self.public, heartbeat_interval=30)
        response = self.post("activate-node", message, **changes)
        if response.status_code != 200:
            return response
        answer = ActivateNodeResponse()
        answer.ParseFromString(response.content)
        return answer.node_id

    def context(self):
        """TLS as this site."""
        context = self.federation.context()
        context.load_cert_chain(*self.files)
        return context

    def connect(self):
        """Open TLS as this site."""
        raw = socket.create_connection(("127.0.0.1", self.federation.port), timeout=10)
        return self.context().wrap_socket(raw, server_hostname="127.0.0.1")

    def signed_headers(self, node=None):
        """Return what Flower's node sends beside a message."""
        node = node or self.node
        stamp = datetime.now(UTC).isoformat()
        signature = node.sign(stamp.encode(), ec.ECDSA(SHA256()))
        return {
            "content-type": PROTOBUF_MEDIA_TYPE,
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_pem(node)).decode(),
            TIMESTAMP_HEADER: stamp,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
            MAMFED_HEADER: __version__,
            FLWR_PACKAGE_VERSION_METADATA_KEY: flower_version(),
        }

    def call(self, call, message, answer, **changes):
        """Post a message that is answered, and return the answer."""
        response = self.post(call, message, **changes)
        assert response.status_code == 200, response.text
        answer.ParseFromString(response.content)
        return answer
