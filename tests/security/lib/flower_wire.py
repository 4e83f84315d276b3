"""The messages of a site, put together from what went over the wire (Flower 1.41-1.42)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flwr.app import Message
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from tests.security.lib.recording_proxy import Request

from mamfed_server.fleet.flower_compat import PushMessagesRequest, inflate_object_from_contents


class Sent(NamedTuple):
    """What a site sent.

    Attributes:
        messages: The messages whose parts went over the wire.
        codes: The codes sent in place of an answer; such a message has no parts.
        untaken: Answers that were only announced: the coordinator wanted none of their parts, as
            of one that comes too late.
    """

    messages: list[Message]
    codes: list[int]
    untaken: int


def sent_by(requests: Iterable[Request]) -> Sent:
    """Put the messages of one site together from their parts."""
    announced, parts = [], {}
    for request in requests:
        if request.path.endswith("push-messages"):
            pushed = PushMessagesRequest.FromString(request.body)
            announced += zip(pushed.messages_list, pushed.message_object_trees, strict=True)
        if request.path.endswith("push-object"):
            part = PushObjectRequest.FromString(request.body)
            parts[part.object_id] = part.object_content
    sent = Sent([], [code.error.code for code, _ in announced if code.HasField("error")], 0)
    for header, tree in announced:
        ids = set(_ids(tree))
        if header.HasField("error"):
            continue
        if not ids & set(parts):
            sent = sent._replace(untaken=sent.untaken + 1)
            continue
        message = inflate_object_from_contents(tree.object_id, {i: parts[i] for i in ids})
        assert isinstance(message, Message)
        sent.messages.append(message)
    return sent


def _ids(tree: ObjectTree) -> Iterator[str]:
    yield tree.object_id
    for child in tree.children:
        yield from _ids(child)
