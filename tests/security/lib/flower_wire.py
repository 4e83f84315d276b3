"""The messages of a site, put together from what went over the wire (Flower 1.41-1.42)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flwr.app import Message
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from tests.security.lib.recording_proxy import Request

from mamfed_server.fleet.flower_compat import PushMessagesRequest, inflate_object_from_contents


def messages(requests: Iterable[Request]) -> Iterator[Message]:
    """Put the messages of one site together from their parts."""
    trees, parts = [], {}
    for request in requests:
        if request.path.endswith("push-messages"):
            trees += list(PushMessagesRequest.FromString(request.body).message_object_trees)
        if request.path.endswith("push-object"):
            part = PushObjectRequest.FromString(request.body)
            parts[part.object_id] = part.object_content
    for tree in trees:
        ids = set(_ids(tree))
        message = inflate_object_from_contents(tree.object_id, {i: parts[i] for i in ids})
        assert isinstance(message, Message)
        yield message


def _ids(tree: ObjectTree) -> Iterator[str]:
    yield tree.object_id
    for child in tree.children:
        yield from _ids(child)
