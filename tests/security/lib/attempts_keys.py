"""Attempts by certificates and keys: expired, rotated, revoked, skewed, and readable by others."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from tests.security.lib.door import Credentials, read_answer, request_bytes, signed
from tests.security.lib.keys_scene import Keys, command, enrol, make_site
from tests.unit.server.certificates import (
    Authority,
    public_pem,
)
from typer.testing import CliRunner

from mamfed_client.cli.main import app as client_app
from mamfed_client.site.settings import SiteHome
from mamfed_common.errors import MamfedError
from mamfed_common.plan import TrainingPlan
from mamfed_server.cli.main import app

REFUSED_SECONDS, ROTATED_SECONDS = 5.0, 8.0
REFUSED_CODE = 9
CALLS = (
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages",
    "get-run", "get-fab", "push-object", "pull-object", "confirm-message-received",
)  # fmt: skip
HEALTH = request_bytes("/health", [("host", "x")], method="GET")


def attempts() -> list[tuple[str, Callable[[Keys], str]]]:
    """Return all attempts, each with its name; those that change the sites come last."""
    return [
        ("an authority of the same name", _foreign),
        ("a certificate that has expired", _dated(start_days=-10, days=5)),
        ("a certificate that is not valid yet", _dated(start_days=2, days=5)),
        ("a certificate that a site signed", _signed_by_a_site),
        ("the server's own certificate", _server_certificate),
        ("a certificate of the authority that is not registered", _unregistered),
        ("a certificate for another node's key", _other_node),
        ("a certificate that expires while it is connected", _expires),
        ("a clock 2 s ahead is let in", _skew(-2, 200)),
        ("a clock 200 s behind is let in", _skew(200, 200)),
        ("a clock 60 s ahead is refused", _skew(-60, 401)),
        ("a clock 400 s behind is refused", _skew(400, 401)),
        ("the registry's file of a site is damaged", _damaged),
        ("the registry's file under another site's name", _renamed),
        ("a renewed certificate, beside the old one", _renewed),
        ("a rotated server certificate, without a restart", _rotated),
        ("a damaged server certificate leaves the old one", _damaged_server),
        *((f"loose mode: {name}", attempt) for name, attempt in _loose_modes()),
        ("replaced keys are refused within 5 s", _replaced),
        ("a revoked site, by every route within 5 s", _revoked),
        ("a revoked site's open connections are closed", _closed),
        ("a revoked site cannot resume TLS", _resumed),
    ]


def _turned_away(keys: Keys, who: Credentials) -> str:
    status = keys.door.post(who, "pull-messages").status
    return f"answered {status}" if status not in (0, 403) else ""


def _foreign(keys: Keys) -> str:
    name = keys.authority().name.rfc4514_string().removeprefix("CN=")
    return _turned_away(keys, keys.forge("north", Authority(name)))


def _dated(**dates: int) -> Callable[[Keys], str]:
    def attempt(keys: Keys) -> str:
        who = keys.forge("north", keys.authority(), **dates)
        keys.register(who)
        return _turned_away(keys, who)

    return attempt


def _signed_by_a_site(keys: Keys) -> str:
    site = keys.who("south")
    assert site.certificate is not None
    assert site.key is not None
    made = Authority.of(site.certificate, site.key)
    return _turned_away(keys, keys.forge("north", made))


def _server_certificate(keys: Keys) -> str:
    stolen = keys.who("north")._replace(
        certificate=keys.home.server_certificate, key=keys.home.server_key
    )
    return _turned_away(keys, stolen)


def _unregistered(keys: Keys) -> str:
    return _turned_away(keys, keys.forge("north", keys.authority()))


def _other_node(keys: Keys) -> str:
    who = keys.forge("north", keys.authority())
    keys.register(who)
    return _turned_away(keys, who.with_node(keys.who("south")))


def _expires(keys: Keys) -> str:
    """TLS checks the dates once; a connection that stays open must not outlive them."""
    who = keys.forge("north", keys.authority(), start_days=-1, days=1 + 6 / 86400)
    keys.register(who)
    time.sleep(1.5)
    with keys.door.tls(who) as line:
        line.sendall(HEALTH)
        if (first := read_answer(line).status) != 200:
            return f"before it expires: {first}"
        time.sleep(6)
        try:
            line.sendall(HEALTH)
            later = read_answer(line).status
        except OSError:
            later = 0
    return f"after it expired: {later}" if later not in (0, 403) else ""


def _skew(age_seconds: float, status: int) -> Callable[[Keys], str]:
    def attempt(keys: Keys) -> str:
        who = keys.who("north")
        message = ActivateNodeRequest(public_key=public_pem(who.node), heartbeat_interval=30)
        headers = signed(who.node, age_seconds=age_seconds)
        found = keys.door.post(who, "activate-node", message, headers).status
        return "" if found == status else f"answered {found}"

    return attempt


def _damaged(keys: Keys) -> str:
    path = keys.home.sites / "south.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    try:
        if keys.wait_for(lambda: keys.pull(keys.who("south")) == 403, REFUSED_SECONDS) is None:
            return "it is let in"
        return "" if keys.pull(keys.who("north")) == 401 else "another site is refused"
    finally:
        path.write_text(text)
        keys.wait_for(lambda: keys.pull(keys.who("south")) == 401, REFUSED_SECONDS)


def _renamed(keys: Keys) -> str:
    path = keys.home.sites / "stranger.json"
    path.write_text((keys.home.sites / "south.json").read_text())
    try:
        time.sleep(1.5)
        who = keys.forge("south", keys.authority())._replace(name="stranger")
        return _turned_away(keys, who)
    finally:
        path.unlink()


def _renewed(keys: Keys) -> str:
    home = keys.sites["north"]
    old = keys.folder / "old.pem"
    old.write_bytes(home.certificate.read_bytes())
    enrol(keys, "north")
    if keys.wait_for(lambda: keys.pull(keys.who("north")) == 401, REFUSED_SECONDS) is None:
        return "the new certificate is refused"
    return "" if keys.pull(keys.who("north")._replace(certificate=old)) == 401 else "the old is not"


def _serial(keys: Keys) -> int:
    with keys.door.tls(keys.who("north")) as line:
        der = line.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def _rotated(keys: Keys) -> str:
    before = _serial(keys)
    with keys.door.tls(keys.who("north")) as line:
        if code := command("sites", "rotate", "--home", keys.home.path):
            return f"rotate ends with {code}"
        if keys.wait_for(lambda: _serial(keys) != before, ROTATED_SECONDS) is None:
            return f"not used after {ROTATED_SECONDS:g} s"
        line.sendall(HEALTH)
        return "" if read_answer(line).status == 200 else "an open connection was lost"


def _damaged_server(keys: Keys) -> str:
    text, before = keys.home.server_certificate.read_text(), _serial(keys)
    keys.home.server_certificate.write_text("nonsense")
    try:
        time.sleep(6)
        return "" if _serial(keys) == before else "another certificate is shown"
    finally:
        keys.home.server_certificate.write_text(text)
        keys.wait_for(lambda: _serial(keys) != 0, ROTATED_SECONDS)


def _loose_modes() -> list[tuple[str, Callable[[Keys], str]]]:
    def coordinator(path: str, *argv: object) -> Callable[[Keys], str]:
        def attempt(keys: Keys) -> str:
            plan = keys.folder / "any-plan.yaml"
            plan.write_text(TrainingPlan().to_yaml())
            words = [plan if word == "PLAN" else word for word in argv]
            return _loose(keys.home.path / path, app, *words, "--home", keys.home.path)

        return attempt

    def site(path: str) -> Callable[[Keys], str]:
        def attempt(keys: Keys) -> str:
            home = keys.sites["north"].path
            return _loose(home / path, client_app, "enroll", "--home", home)

        return attempt

    return [
        ("the authority's key", coordinator("ca/ca.key", "sites", "rotate")),
        ("the plan's key", coordinator("plan.key", "start", "--plan", "PLAN")),
        ("a site's TLS key", site("keys/tls.key")),
        ("a site's node key", site("keys/node.key")),
    ]


def _loose(path: Path, program: Any, *argv: object) -> str:
    for mode in (0o644, 0o640, 0o606):
        path.chmod(mode)
        try:
            done = CliRunner().invoke(program, list(map(str, argv)))
        finally:
            path.chmod(0o600)
        error = done.exception
        if not isinstance(error, MamfedError) or error.exit_code != REFUSED_CODE:
            return f"mode {mode:o}: {error!r}"
        if "chmod 600" not in str(error):
            return f"mode {mode:o}: {error}"
    return ""


def _replaced(keys: Keys) -> str:
    old = keys.who("east")
    home = keys.sites["east"]
    kept = {path: path.read_bytes() for path in (home.node_key, home.tls_key, home.certificate)}
    copies = {path: keys.folder / f"old-{path.name}" for path in kept}
    for path, copy in copies.items():
        copy.write_bytes(kept[path])
        copy.chmod(0o600)
    old = old._replace(certificate=copies[home.certificate], key=copies[home.tls_key])
    if keys.pull(old) != 401:
        return "it was not let in before"
    new = SiteHome(keys.folder / "east-anew")
    make_site(keys, "east", new, replace=True)
    seconds = keys.wait_for(lambda: keys.pull(old) == 403, REFUSED_SECONDS)
    if seconds is None:
        return f"the old key is let in after {REFUSED_SECONDS:g} s"
    return "" if keys.pull(keys.who("east")) == 401 else "the new key is refused"


def _revoked(keys: Keys) -> str:
    who = keys.who("west")
    lines = {call: keys.door.tls(who) for call in CALLS}
    for line in lines.values():
        line.sendall(HEALTH)
        if read_answer(line).status != 200:
            return "it was not let in before"
    started = time.monotonic()
    if code := command("sites", "revoke", "west", "--yes", "--home", keys.home.path):
        return f"revoke ends with {code}"
    while keys.pull(who) != 403:
        if time.monotonic() - started > REFUSED_SECONDS:
            return f"let in {REFUSED_SECONDS:g} s after it was revoked"
        time.sleep(0.05)
    for call, line in lines.items():
        if (found := _on(line, f"/v1/fleet/{call}", who)) not in (0, 403):
            return f"{call} on an open connection: {found}"
        if (found := keys.door.post(who, call).status) not in (0, 403):
            return f"{call}: {found}"
    if keys.door.send(who, HEALTH).status not in (0, 403):
        return "/health answers"
    return "" if time.monotonic() - started < 2 * REFUSED_SECONDS else "it took too long"


def _on(line: socket.socket, target: str, who: Credentials) -> int:
    try:
        with line:
            line.sendall(request_bytes(target, signed(who.node)))
            return read_answer(line).status
    except OSError:
        return 0


def _closed(keys: Keys) -> str:
    with keys.door.tls(keys.who("west")) as line:
        line.settimeout(8)
        try:
            return "" if line.recv(1) == b"" else "it was sent something"
        except TimeoutError:
            return "it is still open after 8 s"
        except OSError:
            return ""


def _resumed(keys: Keys) -> str:
    who = keys.who("north")
    context = ssl.create_default_context(cafile=keys.door.ca)
    assert who.certificate is not None
    context.load_cert_chain(who.certificate, who.key)
    with context.wrap_socket(keys.door.tcp(), server_hostname="127.0.0.1") as line:
        line.sendall(HEALTH)
        read_answer(line)
        session = line.session
    if session is None:
        return ""
    with context.wrap_socket(keys.door.tcp(), server_hostname="127.0.0.1", session=session) as line:
        return "the session was resumed" if line.session_reused else ""
