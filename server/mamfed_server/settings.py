"""A coordinator's home folder and its ``server.yaml``.

==================  ===========================================================================
``server.yaml``     the server's name, address and limits
``ca/``             ``ca.pem`` and ``ca.key``: the federation's authority. Back up offline
``tls/``            ``server.pem`` and ``server.key``
``plan.key``        signs plans; sites verify them with ``plan.pub``. Back up offline
``sites/``          one file per site: its key, its certificates, whether it may take part
``runs/``           one folder per run
``status.json``     the current state of the server
``notify.json``     what people were told, so that each notice is sent once
``logs/``           logs of the server process
``server.lock``     held by a running ``mamfed-server start``
==================  ===========================================================================
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from mamfed_common.config import Config
from mamfed_common.errors import SetupError
from mamfed_common.notify.settings import Notify
from mamfed_common.runtime.documents import read_yaml, yaml_value
from mamfed_common.runtime.file_kinds import FileKind, expecting
from mamfed_common.security.enrolment import FederationName, Words

HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*")
"""Syntax of a host name (RFC 1123, 2.1)."""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_host(text: str) -> str:
    if "%" in text:
        raise ValueError(
            f"found {text!r}, whose part after % names a network interface of this machine only; "
            "expected a host name or an address that sites can reach"
        )
    if not _is_address(text) and not HOST_NAME.fullmatch(text):
        raise ValueError(f"found {text!r}, expected a host name or an IP address, without port")
    return text


def _check_address(text: str) -> str:
    if not _is_address(text):
        raise ValueError(f"found {text!r}, expected an IP address of this machine, e.g. 0.0.0.0")
    return text


Host = Annotated[str, AfterValidator(_check_host)]


class ServerSettings(Config):
    """A coordinator's ``server.yaml``.

    Attributes:
        name: The federation's name, as in its authority's certificate.
        hosts: Names and addresses at which sites reach the server; welcomes carry the first.
        bind: Local address to listen on.
        port: Port to listen on.
        contact: Contact for the sites.
        max_body_mib: Maximum size of a request body, in MiB; Flower sends parts of 5 MiB.
        body_seconds: Maximum time to receive a body, in seconds.
        connections_per_address: Maximum number of open connections from one address.
        certificate_days: Validity of new certificates, in days.
        patience_hours: How long a round with too few updates is repeated before the run pauses, in
            hours; 0 ends the run at the first such round.
        metrics_port: Port of 127.0.0.1 at which Prometheus reads metrics; None: none.
        notify: Who is told of what while nobody looks.
    """

    name: FederationName
    hosts: tuple[Host, ...] = Field(min_length=1)
    bind: Annotated[str, AfterValidator(_check_address)] = "0.0.0.0"
    port: int = Field(default=9443, ge=1, le=65535)
    contact: Words = ""
    max_body_mib: int = Field(default=8, ge=6, le=1024)
    body_seconds: float = Field(default=60, gt=0, le=3600)
    connections_per_address: int = Field(default=64, ge=1, le=1000)
    certificate_days: int = Field(default=397, ge=1, le=3650)
    patience_hours: float = Field(default=24, ge=0, le=8760)
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    notify: Notify = Notify()

    def source(self) -> str:
        """Return who sends this coordinator's notices."""
        return f"coordinator of {self.name}"

    def address(self) -> str:
        """Return ``host:port`` as given to sites, with an IPv6 address in brackets."""
        host = f"[{self.hosts[0]}]" if ":" in self.hosts[0] else self.hosts[0]
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class ServerHome:
    """The paths in a coordinator's home."""

    path: Path

    @property
    def settings_path(self) -> Path:
        """Return ``server.yaml``."""
        return self.path / "server.yaml"

    @property
    def ca(self) -> Path:
        """Return the certificate of the federation's authority, PEM."""
        return self.path / "ca" / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """Return the authority's key: EC P-384, PEM."""
        return self.path / "ca" / "ca.key"

    @property
    def server_certificate(self) -> Path:
        """Return the server's certificate, PEM."""
        return self.path / "tls" / "server.pem"

    @property
    def server_key(self) -> Path:
        """Return the key of the server's certificate: EC P-384, PEM."""
        return self.path / "tls" / "server.key"

    @property
    def plan_key(self) -> Path:
        """Return the key that signs plans: Ed25519, PEM."""
        return self.path / "plan.key"

    @property
    def plan_public_key(self) -> Path:
        """Return the public half of the key that signs plans: OpenSSH."""
        return self.path / "plan.pub"

    @property
    def sites(self) -> Path:
        """Return the folder of approved sites."""
        return self.path / "sites"

    @property
    def runs(self) -> Path:
        """Return the folder of runs."""
        return self.path / "runs"

    @property
    def status(self) -> Path:
        """Return the file with the server's current state."""
        return self.path / "status.json"

    @property
    def logs(self) -> Path:
        """Return the folder of logs."""
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        """Return the file that a running server holds locked."""
        return self.path / "server.lock"


def check_is_home(home: ServerHome) -> None:
    """Check that a folder is a coordinator's home.

    Raises:
        SetupError: It has no ``server.yaml``.
    """
    if not home.settings_path.is_file():
        raise SetupError(
            f"{home.settings_path}: not found; create a coordinator's home with mamfed-server "
            "init, or name an existing one with --home"
        )


def load_settings(home: ServerHome) -> ServerSettings:
    """Read a coordinator's ``server.yaml``.

    Raises:
        SetupError: The file is missing, or a key in it is unknown, missing or invalid; the message
            names the key.
    """
    check_is_home(home)
    with expecting(FileKind.SERVER_SETTINGS, home.settings_path):
        return read_yaml(ServerSettings, home.settings_path)


def settings_text(settings: ServerSettings) -> str:
    """Return settings as YAML, with a comment for each key."""
    values = {key: yaml_value(value) for key, value in settings.model_dump(mode="json").items()}
    nested = settings.notify.model_dump(mode="json")
    days = nested.pop("certificate_days")  # a key of the coordinator has the same name
    notify = {key: yaml_value(value) for key, value in nested.items()}
    return TEXT.format(**values, **notify, notify_days=days)


TEXT = """\
# Settings of this coordinator (mamfed-server). Changes take effect at the next start.

# The federation's name. It is part of the authority's certificate and cannot be changed.
name: {name}

# Names and addresses at which sites reach the server; new sites are given the first. The server's
# certificate lists them all: after a change, run mamfed-server sites rotate.
hosts: {hosts}

# Local address to listen on: 0.0.0.0 is all of IPv4, "::" all of IPv6.
bind: {bind}

# The only port that sites must reach (TCP, TLS 1.3).
port: {port}

# Contact whom sites phone to compare fingerprints.
contact: {contact}

# Maximum size of a request body, in MiB. Models travel in parts of 5 MiB, so 8 is always enough.
max_body_mib: {max_body_mib}

# Maximum time to receive a body, in seconds.
body_seconds: {body_seconds}

# Maximum number of open connections from one address, a quarter of them before a site has shown its
# certificate. Sites behind one firewall share an address; each has at most 16.
connections_per_address: {connections_per_address}

# Validity of new certificates, in days. Sites renew with enroll, approve and join.
certificate_days: {certificate_days}

# How long a round with too few updates is repeated while sites are missing, in hours. After that
# the run pauses until a site comes back. 0 ends the run at the first such round.
patience_hours: {patience_hours}

# Port of this machine (127.0.0.1) at which Prometheus reads metrics; null: none.
metrics_port: {metrics_port}

# Who is told while nobody looks: of a site gone, a round failed, a run ended or paused, a
# certificate near its end, a disk nearly full. Try it with: mamfed-server notify test
notify:
  # webhook: {{url: https://chat.example.org/hook}}; url_file where the address is a secret.
  webhook: {webhook}
  # email: {{host: mail.example.org, sender: mamfed@example.org, to: [office@example.org]}}, with
  # user and password_file (mode 0600) where the mail server wants them.
  email: {email}
  # command: [/usr/local/bin/tell-office]; it reads the notice as JSON from stdin.
  command: {command}
  # How long a site is missing before you are told, in minutes.
  gone_minutes: {gone_minutes}
  # From how many days before the end of a certificate, and below how much free disk space.
  certificate_days: {notify_days}
  disk_free_gib: {disk_free_gib}
"""
