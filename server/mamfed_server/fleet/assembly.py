"""Put a site's reply together from its objects, within its size limits.

Flower's objects refer to each other: an array of a few bytes can name one part of 5 MiB a thousand
times. The size after assembly is therefore computed before anything is assembled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from flwr.app import Message

from mamfed_server.fleet.flower_compat import (
    Array,
    ArrayChunk,
    get_object_body,
    get_object_head_values_from_object_content,
    inflate_object_from_contents,
)

FRAME_BYTES = 5 * 2**20
"""Maximum total size of all objects that are not parts of arrays: a body of 1 MiB as text, and a
few names. In memory, as Python objects, they take up to forty times as much."""
ARRAY, PART = Array.__qualname__, ArrayChunk.__qualname__


class ReplyTooLargeError(ValueError):
    """A reply that would be larger than any valid one."""


def assemble(message_id: str, contents: dict[str, bytes], max_bytes: int) -> Message:
    """Assemble a reply; ``contents`` is empty afterwards.

    Args:
        message_id: Id of its root object.
        contents: All its objects by id.
        max_bytes: Maximum size of the reply, before and after assembly.

    Raises:
        ReplyTooLargeError: It is larger.
        Exception: Of any kind, because the contents are a site's.
    """
    if _assembled_bytes(contents) > max_bytes:
        raise ReplyTooLargeError
    message = inflate_object_from_contents(message_id, contents)
    if not isinstance(message, Message):
        raise ValueError("the root object is not a message")
    return message


def _assembled_bytes(contents: Mapping[str, bytes]) -> int:
    """Return the larger of a reply's sizes as it came and with all its arrays in full."""
    frame, arrays, parts = 0, 0, 0
    for content in contents.values():
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind == PART:
            parts += len(content)
            continue
        frame += len(content)
        if frame > FRAME_BYTES:
            raise ReplyTooLargeError
        if kind == ARRAY:
            named = json.loads(get_object_body(content, Array).decode())["arraychunk_ids"]
            arrays += sum(len(contents[children[index]]) for index in named)
    return frame + max(arrays, parts)
