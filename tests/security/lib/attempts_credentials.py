"""Attempts by credentials: one site, or nobody, takes the place of another."""

from __future__ import annotations

import ssl
import time
from base64 import b64encode

from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
)
from tests.security.lib.door import KEY, SIGNATURE, Credentials, replaced, signed
from tests.security.lib.scene import Attempt, Scene
from tests.unit.server.certificates import (
    Authority,
    new_key,
    public_pem,
    write_certificate,
    write_key,
)

CALLS = ("activate-node", "pull-messages", "push-messages", "push-object", "pull-object", "get-run")


def attempts() -> list[Attempt]:
    """Return all attempts of this kind."""
    return [
        Attempt("no certificate", _certificate(lambda scene: (None, None))),
        Attempt("a certificate of another authority", _certificate(_foreign)),
        Attempt("an earlier TLS", _old_tls),
        Attempt("own certificate, stolen node key", _stolen_node_key),
        Attempt("stolen certificate, own node key", _stolen_certificate),
        Attempt("stolen node key, key header of garbage", _garbage_key),
        Attempt("the same key in another form is another node", _other_form),
        Attempt("a revoked site, by every route", _revoked),
        Attempt("a signature of ten minutes ago", _stamp(600)),
        Attempt("a signature of the future", _stamp(-600)),
        Attempt("activating the victim with a wrong signature", _bad_activate),
        Attempt("deactivating the victim", _deactivate),
        Attempt("pulling the victim's message", _pull_message),
    ]


def _certificate(of):
    def attempt(scene: Scene) -> str:
        certificate, key = of(scene)
        who = scene.mallory._replace(certificate=certificate, key=key)
        answer = scene.door.post(who, "pull-messages", b"")
        return f"answered {answer.status}" if answer.status else ""

    return attempt


def _foreign(scene: Scene):
    key = new_key()
    made = Authority().site("mallory", key, scene.mallory.node)
    return (
        write_certificate(scene.folder / "foreign.pem", made),
        write_key(scene.folder / "foreign.key", key),
    )


def _old_tls(scene: Scene) -> str:
    try:
        with scene.door.tls(scene.mallory, version=ssl.TLSVersion.TLSv1_2):
            return "TLS 1.2 was taken"
    except (OSError, ssl.SSLError):
        return ""


def _pull_as(scene: Scene, who: Credentials, name: str = "victim", headers=None) -> str:
    body = PullMessagesRequest(node=scene.node(getattr(scene, name)))
    answer = scene.door.post(who, "pull-messages", body, headers)
    return "" if 400 <= answer.status < 500 else f"answered {answer.status}"


def _stolen_node_key(scene: Scene) -> str:
    return _pull_as(scene, scene.mallory.with_node(scene.victim))


def _stolen_certificate(scene: Scene) -> str:
    return _pull_as(scene, scene.victim.with_node(scene.mallory))


def _garbage_key(scene: Scene) -> str:
    for value in ("AAAA", "=", "%0a", b64encode(b"-----BEGIN PUBLIC KEY-----").decode()):
        headers = replaced(signed(scene.victim.node), KEY, value)
        if flaw := _pull_as(scene, scene.mallory, headers=headers):
            return flaw
    return ""


def _other_form(scene: Scene) -> str:
    pem = public_pem(scene.mallory.node) + b"\n"
    headers = replaced(signed(scene.mallory.node), KEY, b64encode(pem).decode())
    request = ActivateNodeRequest(public_key=pem, heartbeat_interval=30)
    answer = scene.door.post(scene.mallory, "activate-node", request, headers)
    return "" if answer.status == 403 else f"answered {answer.status}"


def _revoked(scene: Scene) -> str:
    for call in CALLS:
        if (answer := scene.door.post(scene.revoked, call)).status != 403:
            return f"{call} answered {answer.status}"
    for who in (scene.revoked.with_node(scene.mallory), scene.mallory.with_node(scene.revoked)):
        if (answer := scene.door.post(who, "pull-messages")).status != 403:
            return f"with another's half: {answer.status}"
    return "/health answered" if scene.door.is_healthy(scene.revoked) else ""


def _stamp(age_seconds: float):
    def attempt(scene: Scene) -> str:
        headers = signed(scene.mallory.node, age_seconds=age_seconds)
        return _pull_as(scene, scene.mallory, "mallory", headers)

    return attempt


def _bad_activate(scene: Scene) -> str:
    """Whoever has the victim's certificate, but not its node key, must change nothing."""
    request = ActivateNodeRequest(public_key=public_pem(scene.victim.node), heartbeat_interval=30)
    wrong = dict(signed(new_key()))[SIGNATURE]
    headers = replaced(signed(scene.victim.node), SIGNATURE, wrong)
    answer = scene.door.post(scene.victim, "activate-node", request, headers)
    if answer.status != 401:
        return f"answered {answer.status}"
    time.sleep(0.5)
    return "the victim counts as gone" if scene.has_left() else ""


def _deactivate(scene: Scene) -> str:
    request = DeactivateNodeRequest(node_id=scene.node_ids["victim"])
    answer = scene.door.post(scene.mallory, "deactivate-node", request)
    if answer.status != 401:
        return f"answered {answer.status}"
    time.sleep(0.5)
    return "the victim counts as gone" if scene.has_left() else ""


def _pull_message(scene: Scene) -> str:
    return _pull_as(scene, scene.mallory)
