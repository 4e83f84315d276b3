"""Messages of the round loop through the state of the SuperLink in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from flwr.app import Error, Message, RecordDict

from mamfed_common.protocol.flower_compat import ErrorCode, set_message_id
from mamfed_server.fleet.flower_compat import (
    NoObjectInStoreError,
    get_all_nested_objects,
    get_object_tree,
    inflate_object_from_contents,
    iterate_object_tree,
    no_object_id_recompute,
    remove_content_from_message,
)
from mamfed_server.fleet.superlink import SuperLink
from mamfed_server.run.transport import TOO_LARGE, UNREAD, UNREADABLE


class LinkTransport:
    """Messages through the state of a :class:`SuperLink` (``transport.Transport``)."""

    window = sys.maxsize  # unlimited: sites are separate machines, idle until they are asked

    def __init__(self, link: SuperLink, max_answer_bytes: int) -> None:
        """Use a SuperLink; answers larger than ``max_answer_bytes`` are refused."""
        self._link = link
        self._state = link.state
        self._store = link.state.object_store
        self._max_answer_bytes = max_answer_bytes
        self._asked: dict[str, Message] = {}
        self._arriving: dict[str, Message] = {}

    def online(self) -> Mapping[int, str]:
        """Return the connected nodes, each with the number of its connections as text."""
        nodes = self._state.get_nodes(self._link.run_id)
        return {node: str(self._link.activations(node)) for node in sorted(nodes)}

    def push(
        self, node_id: int, message_type: str, content: RecordDict, ttl_seconds: float
    ) -> str | None:
        """Store a request for a node to fetch; arrays stored before are shared."""
        message = Message(content, dst_node_id=node_id, message_type=message_type, ttl=ttl_seconds)
        with no_object_id_recompute():
            message_id = message.object_id
            set_message_id(message, message_id)
            request = remove_content_from_message(message)
            session = self._state.start_session(self._link.run_id)
            stored, missing = self._state.store_message_and_object_tree(
                request, get_object_tree(message), session
            )
            if not stored:
                return None
            objects = get_all_nested_objects(message)
            for object_id in missing:
                self._state.store_object(
                    self._link.run_id, session, object_id, objects[object_id].deflate()
                )
        self._asked[message_id] = request
        return message_id

    def pull(self, message_id: str) -> Message | None:
        """Return the reply once it is complete, else None."""
        reply = self._arriving.get(message_id)
        if reply is None:
            found = self._state.get_message_res({message_id}, self._link.run_id)
            if not found:
                return None
            reply = found[0]
            if reply.has_error():
                self.forget([message_id])
                return reply
            self._arriving[message_id] = reply
        return self._complete(message_id, reply)

    def forget(self, message_ids: Iterable[str]) -> None:
        """Delete requests, and their replies that have arrived or are still arriving."""
        for message_id in message_ids:
            if self._asked.pop(message_id, None) is None:
                continue
            reply = self._arriving.pop(message_id, None)
            if reply is None:
                found = self._state.get_message_res({message_id}, self._link.run_id)
                reply = found[0] if found else None
            if reply is not None and not reply.has_error():
                self._store.delete(reply.metadata.message_id)
            self._store.delete(message_id)
            self._state.delete_messages({message_id})

    def _complete(self, message_id: str, reply: Message) -> Message | None:
        """Assemble a reply from its parts; None: parts are missing."""
        try:
            tree = self._store.get_object_tree(reply.metadata.message_id)
            ids = [node.object_id for node in iterate_object_tree(tree)]
            parts = {i: self._state.get_object(self._link.run_id, i) for i in ids}
        except NoObjectInStoreError:
            return self._fail(message_id, ErrorCode.MESSAGE_UNAVAILABLE)
        if any(part is None for part in parts.values()):
            return self._fail(message_id, ErrorCode.MESSAGE_UNAVAILABLE)
        contents = {i: part for i, part in parts.items() if part}
        if sum(map(len, contents.values())) > self._max_answer_bytes:
            return self._fail(message_id, TOO_LARGE)
        if len(contents) < len(parts):
            return None
        try:
            message = inflate_object_from_contents(reply.metadata.message_id, contents)
            assert isinstance(message, Message)
        except Exception:  # a malicious site's data may fail in any way
            return self._fail(message_id, UNREADABLE)
        self.forget([message_id])
        return message

    def _fail(self, message_id: str, code: int) -> Message:
        answer = Message(Error(code, UNREAD.get(code, "")), reply_to=self._asked[message_id])
        self.forget([message_id])
        return answer
