"""What a node may do once Flower has checked its signature.

These rules are an ASGI middleware inside Flower's app, between the check of the signature and the
handlers: they see the one message that Flower has parsed, from a node whose signature was right. A
node may read the objects of requests to itself, and reply to those requests. Anything else looks as
if it did not exist. Replies are kept in ``exchanges.py`` and never reach Flower's shared stores.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from mamfed_common.protocol.flower_bundle import bundle_sha256
from mamfed_server.fleet.denial import App, Receive, RequestDenied, Scope, Send, send_denial
from mamfed_server.fleet.flower_compat import (
    ActivateNodeRequest,
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    DeactivateNodeRequest,
    GetFabRequest,
    ObjectTree,
    PullMessagesRequest,
    PullObjectRequest,
    PullObjectResponse,
    PushMessagesRequest,
    PushMessagesResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from mamfed_server.fleet.superlink import SuperLink

logger = logging.getLogger(__name__)

VERIFIED = "mamfed.verified"
"""Key in a request's scope; its value is called once the node's signature was found right."""
CALLER = "mamfed.caller"
"""Key in a poll's scope: who waits for the answer (``held_polls.Caller``)."""
OBJECT_ID = re.compile(r"[0-9a-f]{64}")
REQUEST, RESPONSE = "protobuf_request", "protobuf_response"
"""Where Flower 1.41-1.42 keeps a parsed request, and expects the answer, in a scope's state."""


class NodeRules:
    """The rules, for the nodes of one SuperLink."""

    def __init__(self, app: App, *, link: SuperLink) -> None:
        """Put the rules before Flower's handlers.

        Args:
            app: Flower's handlers.
            link: The SuperLink.
        """
        self._app, self._link, self._exchanges = app, link, link.exchanges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, deny it, or leave it to Flower."""
        if scope["type"] != "http" or VERIFIED not in scope:  # a health check has no node
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope["state"]
        try:
            if not isinstance(request := state.get(REQUEST), ProtoMessage):
                raise RequestDenied(404, "no such path")
            scope[VERIFIED]()
            self._greet(request)
            answer = await self._answer(request, scope)
        except RequestDenied as denied:
            logger.info("%s %s: %s", denied.status, scope["path"], denied.detail)
            await send_denial(send, denied, close=False)
            return
        if answer is None:
            await self._app(scope, receive, send)
            return
        state[RESPONSE] = answer  # Flower's outer middleware writes it
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, request: Any, scope: Scope) -> ProtoMessage | None:
        """Return the answer to a request; None: Flower answers it."""
        if getattr(request, "run_id", self._link.run_id) != self._link.run_id:
            raise RequestDenied(403, "there is no such run")
        match request:
            case PullMessagesRequest():
                return await self._link.answer_poll(request.node.node_id, scope[CALLER])
            case GetFabRequest() if request.hash_str != bundle_sha256():
                raise RequestDenied(404, "there is no such bundle")
            case PushMessagesRequest():
                return self._begin_reply(request)
            case PushObjectRequest():
                return await self._store(request)
            case PullObjectRequest():
                if not self._exchanges.may_read(request.node.node_id, request.object_id):
                    return PullObjectResponse(object_found=False, object_available=False)
            case ConfirmMessageReceivedRequest():
                ours = request.node.node_id, request.message_object_id
                if not self._exchanges.is_addressed_to(*ours):
                    return ConfirmMessageReceivedResponse()
                self._exchanges.confirm(request.message_object_id)
        return None

    def _greet(self, request: Any) -> None:
        """Let a node come and go."""
        match request:
            case ActivateNodeRequest():
                self._link.welcome_back(self._link.node_of(request.public_key))
            case DeactivateNodeRequest():
                self._link.polls.drop(request.node_id)

    def _begin_reply(self, request: PushMessagesRequest) -> PushMessagesResponse:
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise RequestDenied(400, "expected one message with its object tree")
        (message,), (tree,) = request.messages_list, request.message_object_trees
        about, node_id = message.metadata, request.node.node_id
        if about.src_node_id != node_id:
            raise RequestDenied(400, "the message was pushed in another site's name")
        if about.message_id != tree.object_id:
            raise RequestDenied(400, "the object tree belongs to another message")
        objects = self._objects_of(tree)
        begun = None
        if about.run_id == self._link.run_id:
            is_error = message.HasField("error")
            begun = self._exchanges.begin_reply(
                node_id,
                about.reply_to_message_id,
                about.message_id,
                objects=() if is_error else objects,
                error=message.error.code if is_error else None,
            )
        session, missing = begun or ("", [])  # a late reply is dropped without an error
        return PushMessagesResponse(
            results={about.message_id: 0}, objects_to_push=missing, session_id=session
        )

    def _objects_of(self, tree: ObjectTree) -> set[str]:
        found: set[str] = set()
        for count, object_id in enumerate(_ids(tree), 1):
            if count > self._exchanges.max_objects():
                raise RequestDenied(413, "the answer has more parts than any valid answer")
            if not OBJECT_ID.fullmatch(object_id):
                raise RequestDenied(400, "an object's id is not a SHA-256 in hexadecimal")
            found.add(object_id)
        return found

    async def _store(self, request: PushObjectRequest) -> PushObjectResponse:
        node_id, content = request.node.node_id, request.object_content
        if not self._exchanges.count(node_id, len(content)):
            raise RequestDenied(413, "the answer is larger than any valid answer")
        stored = await asyncio.to_thread(
            self._exchanges.store, node_id, request.session_id, request.object_id, content
        )
        return PushObjectResponse(stored=stored)


def _ids(tree: ObjectTree) -> Iterator[str]:
    yield tree.object_id
    for child in tree.children:
        yield from _ids(child)
