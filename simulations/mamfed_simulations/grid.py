"""Flower's Grid without Flower's network: the in-process engine of a simulation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity


class InProcessGrid(Grid):
    """Sites are called directly, one at a time, when their replies are pulled."""

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
        """Make a grid of ``num_nodes`` nodes, told apart by their ``partition-id``."""
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
        # Flower (1.41-1.42) lets a Message be made only where these are known.
        TaskIdentity.run_id = TaskIdentity.task_id = 1
        TaskIdentity.node_id = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are pulled."""
        message_ids = []
        for message in messages:
            message_id = uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id
            self._waiting[message_id] = message
            message_ids.append(message_id)
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the addressed sites answer now."""
        pending = [self._waiting.pop(i) for i in message_ids if i in self._waiting]
        return [self._client_app(m, self._contexts[m.metadata.dst_node_id]) for m in pending]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and pull their replies."""
        return self.pull_messages(self.push_messages(messages))

    @property
    def run(self) -> Any:
        """Not known: there is no SuperLink."""
        raise NotImplementedError("an in-process grid has no Flower run")

    def set_run(self, run: Any) -> None:
        """Do nothing: there is no SuperLink."""

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Not offered: deprecated by Flower in favour of ``Message``."""
        raise NotImplementedError("use flwr.app.Message")
