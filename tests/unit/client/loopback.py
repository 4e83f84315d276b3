"""A coordinator on 127.0.0.1, with the real listener and keys, and enrolled homes of sites."""

import base64
import subprocess
import sys
import time

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from tests.nursery import BORN_CODE

from mamfed_client.node.supervisor import MODULES
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import read_status
from mamfed_common import __version__
from mamfed_common.protocol.versions import flower_version
from mamfed_common.runtime.process_supervisor import child_environment
from mamfed_common.security.certificates import node_uri
from mamfed_common.security.enrolment import EnrolmentRequest, write_document
from mamfed_common.security.keys import new_ec_key, openssh_text, read_key, write_key
from mamfed_common.security.signing import sign_plan
from mamfed_server.admission.approval import approve
from mamfed_server.admission.certificate_authority import (
    issue_server,
    load_plan_key,
    make_authority,
    make_plan_key,
)
from mamfed_server.admission.registry import Registry
from mamfed_server.fleet.duplicate_sites import DuplicateSites
from mamfed_server.fleet.link_transport import LinkTransport
from mamfed_server.fleet.listener import TlsListener
from mamfed_server.fleet.request_guard import Limits, RequestGuard
from mamfed_server.fleet.superlink import SuperLink
from mamfed_server.run.closing_message import ClosingMessage
from mamfed_server.settings import ServerHome, ServerSettings, settings_text

WAIT_SECONDS = 60


def wait_for(condition, why="it did not happen"):
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, why() if callable(why) else why
        time.sleep(0.05)
    return found


class Coordinator:
    """Listens on a free port of 127.0.0.1."""

    def __init__(self, folder):
        self.home = ServerHome(folder)
        folder.mkdir()
        make_authority(self.home, "loopback")
        make_plan_key(self.home)
        issue_server(self.home, ["127.0.0.1"])
        self.link = SuperLink()
        self.transport = LinkTransport(self.link)
        self.contacts, self.doubled = [], []
        self.twins = DuplicateSites(self.doubled.append)
        self.port = 0
        self.listen()
        settings = ServerSettings(name="loopback", hosts=("127.0.0.1",), port=self.port)
        self.home.settings_path.write_text(settings_text(settings))

    def listen(self):
        self.news = ClosingMessage("first")
        registry = Registry(self.home, 0.0)
        guard = RequestGuard(self.link, registry, Limits(), self.contact, self.news)
        self.front = TlsListener(
            guard,
            "127.0.0.1",
            self.port,
            ca=self.home.ca,
            certificate=self.home.server_certificate,
            key=self.home.server_key,
            limits=Limits(),
            known=registry,
        )
        self.port = self.front.start()

    def contact(self, site, instance, address):
        self.contacts.append(site)
        self.twins.seen(site, instance, address)

    def restart(self):
        """End as a killed server does, and come back with nothing in memory."""
        self.front.stop()
        self.link = SuperLink()
        self.transport = LinkTransport(self.link)
        self.listen()

    def enrol(self, folder, name="here", data=None, **settings) -> SiteHome:
        home = SiteHome(folder)
        folder.mkdir(mode=0o700)
        values = {"name": name, "data": [{"name": name, "folder": str(data or folder)}], **settings}
        home.settings_path.write_text(yaml.safe_dump(values))
        tls_key, node_key = new_ec_key(), new_ec_key()
        write_key(home.tls_key, tls_key)
        write_key(home.node_key, node_key, openssh=True)
        self.node_key = node_key.public_key()
        home.certs.mkdir()
        self.renew(home, name)
        return home

    def renew(self, home, name="here"):
        keys = [read_key(p, EllipticCurvePrivateKey) for p in (home.tls_key, home.node_key)]
        welcome = approve(self.home, request_of(name, *keys))
        home.ca.write_text(welcome.ca_certificate)
        home.certificate.write_text(welcome.certificate)
        write_document(home.welcome, welcome)

    @property
    def node_id(self):
        pem = self.node_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return self.link.node_of(pem)

    def is_online(self):
        return self.node_id in self.transport.online()

    def sign(self, plan):
        return sign_plan(load_plan_key(self.home), plan)

    def ask(self, kind, content):
        """Send a request; return the reply once it has come."""
        wait_for(self.is_online, "the node never came")
        message_id = self.transport.push(self.node_id, kind, content, 600)
        return wait_for(lambda: self.transport.pull(message_id), "no reply came")

    def close(self):
        self.link.close()
        self.front.stop()


def request_of(name, tls_key, node_key):
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(node_uri(node_key.public_key()))]
    )
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(names, critical=False)
        .sign(tls_key, SHA384())
    )
    request = EnrolmentRequest(
        site=name,
        node_public_key=openssh_text(node_key.public_key()),
        certificate_request=csr.public_bytes(Encoding.PEM).decode(),
        mamfed_version=__version__,
        flower_version=flower_version(),
    )
    signature = base64.b64encode(node_key.sign(request.signed_bytes(), ECDSA(SHA384()))).decode()
    return request.model_copy(update={"signature": signature})


class Processes:
    """Starts Python processes of a site, and ends all of them."""

    def __init__(self):
        self.started = []

    def module(self, name, home):
        return self._start(home, "-m", MODULES[name], str(home.path))

    def code(self, home, text):
        return self._start(home, "-c", BORN_CODE + text)

    def _start(self, home, *words):
        log = (home.path / f"log-{len(self.started)}").open("wb")
        process = subprocess.Popen(
            [sys.executable, *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=child_environment(home.path / "flower"),
        )
        log.close()
        process.log = home.path / f"log-{len(self.started)}"
        self.started.append(process)
        return process

    def end(self):
        for process in self.started:
            process.kill()
            process.wait()


def wait_for_state(home, state):
    return wait_for(
        lambda: (found := read_status(home)).state == state and found,
        lambda: f"{state} never came: {read_status(home)}",
    )
