"""The in-process engine of a simulation: a federation without network traffic."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from mamfed_common.protocol.flower_compat import set_message_id, set_task_identity


class InProcessTransport:
    """Call sites directly, one at a time, when their replies are pulled."""

    window = sys.maxsize  # all nodes share one request

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
        """Create ``num_nodes`` nodes, identified by their ``partition-id``."""
        self._client_app = client_app
        self._contexts = {
            node_id: Context(
                run_id=1,
                node_id=node_id,
                node_config={"partition-id": node_id - 1, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config={},
            )
            for node_id in range(1, num_nodes + 1)
        }
        self._waiting: dict[str, Message] = {}
        set_task_identity(run_id=1, task_id=1, node_id=0)

    def online(self) -> Mapping[int, str]:
        """Return all nodes; simulated nodes never restart."""
        return dict.fromkeys(self._contexts, "")

    def push(
        self, node_id: int, message_type: str, content: RecordDict, ttl_seconds: float
    ) -> str | None:
        """Queue a request until its reply is pulled."""
        message = Message(content, dst_node_id=node_id, message_type=message_type, ttl=ttl_seconds)
        message_id = uuid4().hex
        set_message_id(message, message_id)
        self._waiting[message_id] = message
        return message_id

    def pull(self, message_id: str) -> Message | None:
        """Run the addressed site and return its reply; None for an unknown request."""
        message = self._waiting.pop(message_id, None)
        if message is None:
            return None
        return self._client_app(message, self._contexts[message.metadata.dst_node_id])

    def forget(self, message_ids: Iterable[str]) -> None:
        """Drop requests that have not been answered."""
        for message_id in message_ids:
            self._waiting.pop(message_id, None)
