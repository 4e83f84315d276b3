"""Where keys and certificates are attacked: a coordinator's home, its port, and its sites."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from tests.processes.intruder import node_key_of
from tests.security.lib.door import Credentials, Door
from tests.unit.client.loopback import request_of
from tests.unit.server.certificates import (
    Authority,
    new_key,
    write_certificate,
    write_key,
)
from typer.testing import CliRunner

from mamfed_client.site import identity
from mamfed_client.site.settings import SiteHome
from mamfed_common.security.enrolment import write_document
from mamfed_server.admission.approval import approve
from mamfed_server.admission.registry import IssuedCertificate, load_sites, save_site
from mamfed_server.cli.main import app
from mamfed_server.settings import ServerHome


@dataclass
class Keys:
    """A coordinator, its home, and its sites.

    Attributes:
        door: Its port.
        home: Its home.
        folder: Holds the homes of the sites and whatever an attempt makes.
        sites: The homes of the sites, by name.
    """

    door: Door
    home: ServerHome
    folder: Path
    sites: dict[str, SiteHome] = field(default_factory=dict)

    def who(self, name: str) -> Credentials:
        """Return a site's credentials."""
        home = self.sites[name]
        return Credentials(name, home.certificate, home.tls_key, node_key_of(home))

    def authority(self) -> Authority:
        """Return the federation's authority, as whoever has its key."""
        return Authority.of(self.home.ca, self.home.ca_key)

    def forge(self, name: str, authority: Authority, **options: Any) -> Credentials:
        """Return a site's credentials with a certificate of any authority."""
        key, node = new_key(), self.who(name).node
        made = authority.site(name, key, node, **options)
        stem = self.folder / f"forged-{made.serial_number:x}"
        certificate = write_certificate(stem.with_suffix(".pem"), made)
        return Credentials(name, certificate, write_key(stem.with_suffix(".key"), key), node)

    def register(self, who: Credentials) -> None:
        """Enter a certificate in the registry."""
        assert who.certificate is not None
        made = x509.load_pem_x509_certificate(who.certificate.read_bytes())
        entry = load_sites(self.home)[who.name]
        issued = IssuedCertificate(
            serial=f"{made.serial_number:x}",
            not_before=made.not_valid_before_utc,
            not_after=made.not_valid_after_utc,
        )
        certificates = (*entry.certificates, issued)
        save_site(self.home, entry.model_copy(update={"certificates": certificates}))

    def pull(self, who: Credentials) -> int:
        """Return the status of a pull; 401 says that certificate, key and registry were right."""
        body = PullMessagesRequest(node=Node(node_id=1))
        return self.door.post(who, "pull-messages", body).status

    def wait_for(self, done: Callable[[], bool], seconds: float) -> float | None:
        """Return after how many seconds something was so; None: it was not in time."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            if done():
                return time.monotonic() - started
            time.sleep(0.1)
        return None


def command(*argv: object) -> int:
    """Run a command of the coordinator; return its exit code."""
    return CliRunner().invoke(app, list(map(str, argv))).exit_code


def make_site(keys: Keys, name: str, home: SiteHome, *, replace: bool = False) -> None:
    """Make a site's home and enrol it."""
    home.path.mkdir(mode=0o700, parents=True)
    home.settings_path.write_text(
        json.dumps({"name": name, "data": [{"name": name, "folder": str(home.path)}]})
    )
    identity.make_keys(home)
    home.certs.mkdir(mode=0o700, exist_ok=True)
    keys.sites[name] = home
    home.ca.write_bytes(keys.home.ca.read_bytes())
    enrol(keys, name, replace=replace)


def enrol(keys: Keys, name: str, *, replace: bool = False) -> None:
    """Approve a site, or renew its certificate."""
    home = keys.sites[name]
    tls_key = load_pem_private_key(home.tls_key.read_bytes(), None)
    welcome = approve(keys.home, request_of(name, tls_key, node_key_of(home)), replace=replace)
    home.certificate.write_text(welcome.certificate)
    write_document(home.welcome, welcome)
