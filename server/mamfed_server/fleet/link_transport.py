"""Messages of the round loop through the state of the SuperLink in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from flwr.app import Error, Message, RecordDict

from mamfed_common.protocol.flower_compat import ErrorCode, set_message_id
from mamfed_server.fleet.assembly import ReplyTooLargeError, assemble
from mamfed_server.fleet.exchanges import Reply
from mamfed_server.fleet.flower_compat import (
    PullMessagesResponse,
    get_all_nested_objects,
    get_object_tree,
    message_to_proto,
    no_object_id_recompute,
    remove_content_from_message,
)
from mamfed_server.fleet.superlink import SuperLink
from mamfed_server.run.transport import TOO_LARGE, UNREAD, UNREADABLE


class LinkTransport:
    """Messages through the state of a :class:`SuperLink` (``transport.Transport``)."""

    window = sys.maxsize  # unlimited: sites are separate machines, idle until they are asked

    def __init__(self, link: SuperLink) -> None:
        """Use a SuperLink."""
        self._link = link
        self._state = link.state
        self._exchanges = link.exchanges
        self._asked: dict[str, Message] = {}

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
            objects = get_all_nested_objects(message)
            self._exchanges.begin(message_id, node_id, objects)
            session = self._state.start_session(self._link.run_id)
            tree = get_object_tree(message)
            stored, missing = self._state.store_message_and_object_tree(request, tree, session)
            if not stored:
                self._exchanges.end(message_id)
                return None
            for object_id in missing:
                self._state.store_object(
                    self._link.run_id, session, object_id, objects[object_id].deflate()
                )
        self._asked[message_id] = request
        offer = PullMessagesResponse(
            messages_list=[message_to_proto(request)], message_object_trees=[tree]
        )
        self._exchanges.offer(message_id, offer)
        self._link.polls.wake(node_id)
        return message_id

    def pull(self, message_id: str) -> Message | None:
        """Return the reply once it is complete, else None."""
        reply = self._exchanges.reply(message_id)
        if reply is not None:
            return self._complete(message_id, reply)
        # Flower's own replies, for a node that is gone or a request that has expired.
        for message in self._state.get_message_res({message_id}, self._link.run_id):
            self.forget([message_id])
            return message
        return None

    def forget(self, message_ids: Iterable[str]) -> None:
        """Delete requests, with whatever has arrived in reply to them."""
        for message_id in message_ids:
            if self._asked.pop(message_id, None) is None:
                continue
            self._exchanges.end(message_id)
            self._state.object_store.delete(message_id)
            self._state.delete_messages({message_id})

    def _complete(self, message_id: str, reply: Reply) -> Message | None:
        """Return a reply if it is complete; None: parts are missing."""
        if reply.error is not None:
            return self._fail(message_id, reply.error)
        if reply.is_lost:
            return self._fail(message_id, ErrorCode.MESSAGE_UNAVAILABLE)
        if reply.contents is None:
            return None
        try:
            message = assemble(reply.message_id, reply.contents, self._exchanges.max_bytes)
        except ReplyTooLargeError:
            return self._fail(message_id, TOO_LARGE)
        except Exception:  # a malicious site's data may fail in any way
            return self._fail(message_id, UNREADABLE)
        self.forget([message_id])
        return message

    def _fail(self, message_id: str, code: int) -> Message:
        answer = Message(Error(code, UNREAD.get(code, "")), reply_to=self._asked[message_id])
        self.forget([message_id])
        return answer
