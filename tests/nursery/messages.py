"""What a starter and a nursery tell each other: JSON and descriptors, over a pair of sockets."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any


def send(end: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    data = json.dumps(message).encode("utf-8", "surrogateescape")
    head = struct.pack("!I", len(data))
    if descriptors:
        socket.send_fds(end, [head], descriptors)
    else:
        end.sendall(head)
    end.sendall(data)


def receive(end: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return a message and its descriptors.

    Raises:
        EOFError: The other end has gone.
    """
    head, descriptors, _, _ = socket.recv_fds(end, 4, 64)
    data = bytearray()
    while head and len(data) < (size := struct.unpack("!I", head)[0]):
        piece = end.recv(size - len(data))
        if not piece:
            break
        data += piece
    if not data:
        raise EOFError
    return json.loads(data.decode("utf-8", "surrogateescape")), descriptors
