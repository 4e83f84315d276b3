"""Attempts by bytes: paths, headers and bodies that two readers may understand differently.

Each attempt is a function of a :class:`Scene`; it returns what broke, or nothing.
"""

from __future__ import annotations

import random

from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from tests.security.lib.door import (
    KEY,
    SIGNATURE,
    Headers,
    key_header,
    read_answer,
    replaced,
    request_bytes,
    signed,
)
from tests.security.lib.scene import Attempt, Scene

PULL = "/v1/fleet/pull-messages"
PATHS = {
    "a line feed at the end": "/v1/fleet/push-messages%0a",
    "a carriage return and line feed": "/v1/fleet/push-object%0d%0a",
    "an encoded letter": "/v1/fleet/%70ull-messages",
    "an encoded slash": "/v1/fleet%2fpull-messages",
    "a double slash": "//v1/fleet/pull-messages",
    "a double slash within": "/v1/fleet//pull-messages",
    "capital letters": "/V1/FLEET/pull-messages",
    "dot segments": "/v1/fleet/../fleet/pull-messages",
    "a dot segment": "/v1/fleet/./pull-messages",
    "encoded dots into Control": "/v1/fleet/%2e%2e/control/start-run",
    "a slash at the end": "/v1/fleet/pull-messages/",
    "a parameter": "/v1/fleet/pull-messages;x=1",
    "a query": "/v1/fleet/pull-messages?x=1",
    "an encoded NUL": "/v1/fleet/pull-messages%00",
    "the absolute form": "https://coordinator/v1/fleet/pull-messages",
    "Control": "/v1/control/start-run",
    "Runtime": "/v1/runtime/acquire-task",
    "registering a node": "/v1/fleet/register-node",
    "deleting a node": "/v1/fleet/unregister-node",
    "the documentation": "/openapi.json",
}


def attempts() -> list[Attempt]:
    """Return all attempts of this kind."""
    found = [Attempt(f"path: {name}", _path(target)) for name, target in PATHS.items()]
    found += [Attempt(f"header twice: {name}", _twice(*pair)) for name, pair in TWICE.items()]
    found += [Attempt(f"smuggling: {name}", _smuggled(lines)) for name, lines in SMUGGLED.items()]
    found += [
        Attempt("garbage instead of TLS", _garbage_tcp),
        Attempt("garbage instead of HTTP", _garbage_http),
        Attempt("garbage instead of a message, at every route", _garbage_message),
        Attempt("a head of a megabyte", _long_head),
        Attempt("ten thousand headers", _many_headers),
        Attempt("a request within a request's body", _request_in_body),
    ]
    return found


def _pull(scene: Scene) -> bytes:
    return bytes(
        PullMessagesRequest(node=Node(node_id=scene.node_ids["mallory"])).SerializeToString()
    )


def _path(target: str):
    def attempt(scene: Scene) -> str:
        answer = scene.door.post(scene.mallory, target, _pull(scene))
        return "" if answer.status in (400, 404) else f"answered {answer.status}"

    return attempt


TWICE = {
    "key, own last": (KEY, "victim", "mallory"),
    "key, own first": (KEY, "mallory", "victim"),
    "key in another case": (KEY.upper(), "mallory", "victim"),
    "signature": (SIGNATURE, "mallory", "victim"),
    "time stamp": (TIMESTAMP_HEADER, "mallory", "victim"),
}


def _twice(name: str, first: str, second: str):
    """Try to be taken for the victim, whose node key was stolen, with one's own certificate."""

    def attempt(scene: Scene) -> str:
        people = {"mallory": scene.mallory, "victim": scene.victim}
        body = PullMessagesRequest(node=Node(node_id=scene.node_ids["victim"])).SerializeToString()
        one, two = dict(signed(people[first].node)), dict(signed(people[second].node))
        base = signed(scene.victim.node)
        given = next(n for n in one if n.lower() == name.lower())
        headers: Headers = []
        for key, value in base:
            if key == given:
                headers += [(name, one[given]), (given, two[given])]
            else:
                headers.append((key, value))
        answer = scene.door.post(scene.mallory, "pull-messages", body, headers)
        return "" if 400 <= answer.status < 500 else f"answered {answer.status}"

    return attempt


SMUGGLED = {
    "length and chunks": ("content-length: 4", "transfer-encoding: chunked"),
    "chunks and length": ("transfer-encoding: chunked", "content-length: 4"),
    "two lengths": ("content-length: 0", "content-length: 40"),
    "a list of lengths": ("content-length: 4, 40",),
    "a length with a sign": ("content-length: +4",),
    "a negative length": ("content-length: -1",),
    "a length of 5,000 digits": ("content-length: " + "9" * 5000,),
    "chunks in another case": ("Transfer-Encoding: cHuNkEd",),
    "chunks by folding": ("x-folded: a\r\n transfer-encoding: chunked", "content-length: 4"),
    "chunks twice": ("transfer-encoding: chunked, chunked",),
    "identity": ("transfer-encoding: identity", "content-length: 4"),
    "a space before the colon": ("content-length : 4", "content-length: 0"),
}
SECOND = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


def _smuggled(lines: tuple[str, ...]):
    """Send a request that ends at two places, with a second one in what is left."""

    def attempt(scene: Scene) -> str:
        head = f"POST {PULL} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in signed(scene.mallory.node))
        data = (head + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode() + b"0\r\n\r\n"
        try:
            with scene.door.tls(scene.mallory) as line:
                line.sendall(data + SECOND)
                first, second = read_answer(line), read_answer(line)
        except OSError:
            return ""
        if first.status == 200:
            return "the request was taken"
        return f"a second answer: {second.status}" if second.status == 200 else ""

    return attempt


def _garbage_tcp(scene: Scene) -> str:
    generator = random.Random(scene.seed)
    for _ in range(20):
        with scene.door.tcp() as line:
            try:
                line.sendall(generator.randbytes(20_000))
                line.settimeout(5)
                while data := line.recv(4096):
                    if b"HTTP" in data:
                        return "an answer in plain text"
            except OSError:
                pass
    return ""


def _garbage_http(scene: Scene) -> str:
    generator = random.Random(scene.seed)
    for _ in range(20):
        answer = scene.door.send(scene.mallory, generator.randbytes(5000) + b"\r\n\r\n")
        if answer.status == 200:
            return "garbage was answered"
    return ""


def _garbage_message(scene: Scene) -> str:
    generator = random.Random(scene.seed)
    calls = (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages",
        "push-messages", "get-run", "get-fab", "push-object", "pull-object",
        "confirm-message-received",
    )  # fmt: skip
    for call in calls:
        answer = scene.door.post(scene.mallory, call, generator.randbytes(300))
        if answer.status not in (400, 401):
            return f"{call} answered {answer.status}"
    return ""


def _long_head(scene: Scene) -> str:
    headers = [*signed(scene.mallory.node), ("x-long", "a" * 2**20)]
    answer = scene.door.post(scene.mallory, "pull-messages", _pull(scene), headers)
    return f"answered {answer.status}" if answer.status == 200 else ""


def _many_headers(scene: Scene) -> str:
    headers = [*signed(scene.mallory.node), *((f"x-{n}", "a") for n in range(10_000))]
    answer = scene.door.post(scene.mallory, "pull-messages", _pull(scene), headers)
    return f"answered {answer.status}" if answer.status == 200 else ""


def _request_in_body(scene: Scene) -> str:
    """The body of a request that is denied must not be read as a request."""
    inner = request_bytes(PULL, signed(scene.mallory.node), _pull(scene))
    denied = replaced(signed(scene.mallory.node), KEY, key_header(scene.victim.node))
    with scene.door.tls(scene.mallory) as line:
        line.sendall(request_bytes(PULL, denied, inner))
        first, second = read_answer(line), read_answer(line)
    return f"{first.status}, then {second.status}" if second.status == 200 else ""
