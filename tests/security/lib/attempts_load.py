"""Attempts by load: connections and memory. An honest site gets through while they last."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from flwr.proto.message_pb2 import PullObjectRequest
from tests.security.lib.door import Credentials, read_answer, request_bytes, signed
from tests.security.lib.scene import Attempt, Scene

IDLE = 2000
HONEST_SECONDS = 10.0
LINGER_NOT = struct.pack("ii", 1, 0)
HEALTH = request_bytes("/health", [("host", "x")], method="GET")


def attempts(idle: int = IDLE) -> list[Attempt]:
    """Return all attempts of this kind; ``idle`` is the number of connections that one holds."""
    return [
        Attempt(f"{idle} idle connections of one address", _idle(idle, 1)),
        Attempt(f"{idle} idle connections of fifty addresses", _idle(idle, 50)),
        Attempt("connections that end at once, without pause", _storm),
        Attempt("TLS greetings that stop halfway", _half_greetings),
        Attempt("a hundred idle connections of one approved site", _idle_site),
        Attempt("a hundred connections of a revoked site", _idle_revoked),
        Attempt("heads that come letter by letter", _slow_heads),
        Attempt("kept-alive connections that trickle", _trickle),
        Attempt("bodies that stop halfway", _half_bodies),
        Attempt("answers that are not read", _unread),
    ]


@contextmanager
def _held(close: list[socket.socket]) -> Iterator[list[socket.socket]]:
    try:
        yield close
    finally:
        for line in close:
            with suppress(OSError):
                line.close()


def _honest(scene: Scene) -> str:
    """Return what is wrong if an honest site does not get through in time."""
    started = time.monotonic()
    while time.monotonic() - started < HONEST_SECONDS:
        if scene.door.is_healthy(scene.victim):
            return ""
    return f"an honest site did not get through within {HONEST_SECONDS:g} s"


def _alive(line: socket.socket) -> bool:
    """Return whether the other side still holds a connection."""
    line.settimeout(0.01)
    try:
        return line.recv(1) != b""
    except (TimeoutError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


def _idle(count: int, addresses: int) -> Callable[[Scene], str]:
    def attempt(scene: Scene) -> str:
        with _held([]) as lines:
            for number in range(count):
                with suppress(OSError):
                    source = f"127.0.1.{1 + number % addresses}"
                    lines.append(scene.door.tcp(source, timeout=2))
            if flaw := _honest(scene):
                return flaw
            held = sum(map(_alive, lines))
        return f"{held} of {count} connections are held" if held > 300 else ""

    return attempt


def _storm(scene: Scene) -> str:
    over = threading.Event()

    def knock() -> None:
        while not over.is_set():
            with suppress(OSError), scene.door.tcp("127.0.2.1", timeout=2) as line:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            time.sleep(0.001)

    knockers = [threading.Thread(target=knock, daemon=True) for _ in range(4)]
    for knocker in knockers:
        knocker.start()
    try:
        time.sleep(1)
        return _honest(scene)
    finally:
        over.set()
        for knocker in knockers:
            knocker.join()


def _half_greetings(scene: Scene) -> str:
    with _held([]) as lines:
        for _ in range(200):
            with suppress(OSError):
                lines.append(scene.door.tcp("127.0.3.1", timeout=2))
                lines[-1].sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        return _honest(scene)


def _many(scene: Scene, who: Credentials, count: int) -> list[socket.socket]:
    lines: list[socket.socket] = []
    for _ in range(count):
        with suppress(OSError):
            lines.append(scene.door.tls(who))
    return lines


def _idle_site(scene: Scene) -> str:
    with _held(_many(scene, scene.mallory, 100)) as lines:
        if flaw := _honest(scene):
            return flaw
        held = sum(map(_alive, lines))
    return f"{held} connections are held" if held > 16 else ""


def _idle_revoked(scene: Scene) -> str:
    with _held(_many(scene, scene.revoked, 100)) as lines:
        if flaw := _honest(scene):
            return flaw
        time.sleep(6)
        held = sum(map(_alive, lines))
    return f"{held} connections are held after 6 s" if held else ""


def _slow_heads(scene: Scene) -> str:
    with _held(_many(scene, scene.mallory, 16)) as lines:
        for line in lines:
            line.sendall(b"POST /v1/fleet/pull")
        return _honest(scene)


def _trickle(scene: Scene) -> str:
    with _held(_many(scene, scene.mallory, 16)) as lines:
        for line in lines:
            with suppress(OSError):
                line.sendall(HEALTH)
                read_answer(line)
                line.sendall(b"G")
        return _honest(scene)


def _half_bodies(scene: Scene) -> str:
    head = request_bytes(
        "/v1/fleet/push-object",
        [*signed(scene.mallory.node), ("content-length", str(6 * 2**20))],
        bytes(2**20),
    )
    with _held(_many(scene, scene.mallory, 16)) as lines:
        for line in lines:
            with suppress(OSError):
                line.settimeout(0.5)
                line.sendall(head)
        return _honest(scene)


def _unread(scene: Scene) -> str:
    (tree,) = scene.asked["mallory"].message_object_trees
    run_id = scene.asked["mallory"].messages_list[0].metadata.run_id
    ask = PullObjectRequest(
        node=scene.node(scene.mallory), run_id=run_id, object_id=tree.object_id
    ).SerializeToString()
    with _held(_many(scene, scene.mallory, 16)) as lines:
        for line in lines:
            with suppress(OSError):
                line.settimeout(0.5)
                for _ in range(50):
                    line.sendall(
                        request_bytes("/v1/fleet/pull-object", signed(scene.mallory.node), ask)
                    )
        return _honest(scene)
