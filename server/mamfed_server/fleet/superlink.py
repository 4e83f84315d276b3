"""Flower's SuperLink inside this process.

A stock SuperLink offers three APIs on one port and lets anyone who can reach it run code. Here, its
app and its state are created but nothing listens. ``listener.py`` exposes only the Fleet API,
behind the request guard, and the round loop accesses the state directly
(``link_transport.py``). The Control and Runtime APIs, which submit code and hand out tasks, have no
listener at all. Within the Fleet API, ``node_rules.py`` stands between Flower's check of a node's
signature and Flower's handlers.

The state is kept in memory. A run is defined by its checkpoints (``run_folder``), so a new process
starts a new Flower run, and neither models nor messages are ever stored in a database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.message import Message as ProtoMessage
from starlette.middleware import Middleware

from mamfed_common.errors import SetupError
from mamfed_common.protocol.flower_bundle import FAB_ID, FAB_VERSION, bundle, bundle_sha256
from mamfed_common.protocol.flower_compat import check_flower_parts, set_task_identity
from mamfed_common.protocol.versions import LEASE_SECONDS, flower_version
from mamfed_server.fleet.exchanges import Exchanges
from mamfed_server.fleet.flower_compat import (
    NOOP_ACCOUNT_NAME,
    NOOP_FEDERATION_ID,
    NOOP_FLWR_AID,
    NOT_SERVED,
    PARTS,
    Fab,
    LinkState,
    NodeAuthMiddleware,
    PullMessagesResponse,
    SuperLinkLifespan,
    TaskType,
    create_app,
    superlink_config,
)
from mamfed_server.fleet.held_polls import Caller, HeldPolls

HEARTBEAT_SECONDS = LEASE_SECONDS / 2
"""Flower's lease of a node ends after twice this time without a sign of life."""
TASK_HEARTBEAT_SECONDS = 15.0
"""Flower fails a run whose task is silent for 60 s."""


class SuperLink:
    """Flower's Fleet API as an ASGI app, and the state behind it, for one run.

    Attributes:
        app: The app; it must only be served behind ``request_guard.RequestGuard``.
        state: Flower's state.
        run_id: Flower's id of the run.
        exchanges: The requests to nodes, and what arrives in reply.
        polls: The nodes that wait for a request.
    """

    def __init__(self, max_answer_bytes: int = 4 * 2**30) -> None:
        """Create the app and start a Flower run.

        Args:
            max_answer_bytes: Maximum size of one answer of a site.

        Raises:
            SetupError: The installed Flower is not supported.
        """
        check_flower_parts(PARTS)
        self.exchanges = Exchanges(max_answer_bytes)
        self.polls = HeldPolls(partial(self.exchanges.has_offer, again=True))
        self.app = create_app(superlink_config(), SuperLinkLifespan)
        self.app.user_middleware[:] = [
            entry
            for entry in self.app.user_middleware
            if not getattr(entry.cls, "__module__", "").startswith(NOT_SERVED)
        ]
        self.state: LinkState = self.app.state.linkstate_factory.state()
        self.run_id, self._task_id = self._start_run()
        self._activations: dict[int, int] = {}
        self._stop = threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="run-heartbeat").start()

    def check_nodes_with(self, rules: Callable[..., Any], **options: Any) -> None:
        """Put rules, an ASGI middleware, behind Flower's check of a node's signature.

        Raises:
            SetupError: Flower no longer checks signatures where it did.
        """
        middleware = self.app.user_middleware
        classes: list[object] = [entry.cls for entry in middleware]
        if NodeAuthMiddleware not in classes:
            raise SetupError(f"Flower {flower_version()}: its check of signatures has moved")
        middleware.append(Middleware(rules, **options))  # the last one is the innermost

    def node_of(self, public_key: bytes) -> int:
        """Return the Flower node of a site's key (PEM), registering a new one."""
        node_id = self.state.get_node_id_by_public_key(public_key)
        if node_id is not None:
            return node_id
        return self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key, 30)

    def welcome_back(self, node_id: int) -> None:
        """Let a restarted node connect before its lease ends.

        Flower would refuse the node for about a minute after a crash. Call this only once its
        certificate, key and signature have been verified.
        """
        self.polls.drop(node_id)
        self.state.deactivate_node(node_id)
        self._activations[node_id] = self._activations.get(node_id, 0) + 1

    async def answer_poll(self, node_id: int, caller: Caller) -> ProtoMessage:
        """Answer a node's poll once there is a request; it renews the node's lease.

        A caller that can wait can also cope with a request that comes twice, and gets one again
        that it has not confirmed: its connection may have been lost with the answer.

        Raises:
            RequestDenied: The caller may wait no longer.
        """
        self.state.acknowledge_node_heartbeat(node_id, HEARTBEAT_SECONDS)
        found = None
        if await self.polls.wait(node_id, caller):
            self.state.acknowledge_node_heartbeat(node_id, HEARTBEAT_SECONDS)
            found = self.exchanges.fetch(node_id, again=caller.seconds > 0)
        return found or PullMessagesResponse()

    def activations(self, node_id: int) -> int:
        """Return how often a node has connected."""
        return self._activations.get(node_id, 0)

    def close(self) -> None:
        """End the Flower run, so that nodes discard its messages."""
        self._stop.set()
        self.polls.close()
        self.state.finish_task(self._task_id, "stopped", "")

    def _start_run(self) -> tuple[int, int]:
        self.state.store_fab(Fab(bundle_sha256(), bundle(), {}))
        run_id = self.state.create_run(
            fab_id=FAB_ID,
            fab_version=FAB_VERSION,
            fab_hash=bundle_sha256(),
            override_config={},
            federation_id=NOOP_FEDERATION_ID,
            federation_config=None,
            flwr_aid=NOOP_FLWR_AID,
            primary_task_type=TaskType.SERVER_APP,
        )
        (run,) = self.state.get_run_info(run_ids=[run_id])
        task_id = run.primary_task_id
        assert task_id is not None
        if not self.state.claim_task(task_id) or not self.state.activate_task(task_id):
            raise SetupError(f"Flower {flower_version()}: its run cannot be started")
        set_task_identity(run_id, task_id, node_id=1)
        return run_id, task_id

    def _beat(self) -> None:
        while not self._stop.wait(TASK_HEARTBEAT_SECONDS):
            self.state.acknowledge_task_heartbeat(self._task_id)
