"""Flower's undocumented API as a site's processes use it: all imports, replacements and checks.

The node is Flower's SuperNode and the worker replaces Flower's own, so both need parts of Flower
that are not documented. No other module of the client imports them. Works with Flower 1.41 to 1.42.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from flwr.app import Message
from flwr.common.constant import SubStatus
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.error import FlowerError
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPushError,
    pull_and_inflate_object_from_tree,
    pull_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from mamfed_common.protocol import flower_compat
from mamfed_common.protocol.flower_compat import FlowerPart

__all__ = [
    "AcquireTaskRequest",
    "FleetHttpClient",
    "FlowerError",
    "HeartbeatSender",
    "NodeStates",
    "ObjectPushError",
    "ProtobufCall",
    "ProtobufRequestContext",
    "PullMessagesRequest",
    "PullMessagesResponse",
    "PushMessagesRequest",
    "PushMessagesResponse",
    "RuntimeHttpClient",
    "RuntimeTokenHttpInterceptor",
    "RuntimeVersionHttpInterceptor",
    "SendNodeHeartbeatRequest",
    "SendNodeHeartbeatResponse",
    "SubStatus",
    "SuperExecAuthHttpInterceptor",
    "TaskType",
    "check_flower_parts",
    "create_app",
    "make_simple_http_retry_invoker",
    "make_task_heartbeat_fn_http",
    "pull_task_input",
    "push_message",
    "push_task_output",
    "replace_clock",
    "replace_fleet_client",
    "set_node_arrival",
    "set_worker_arrival",
    "start_log",
    "start_node",
]

PARTS: tuple[FlowerPart, ...] = (
    (
        "flwr.supernode.start_client_internal",
        "start_client_internal",
        "state_factory server_address node_config root_certificates insecure authentication_keys "
        "isolation runtime_api_address superexec_auth_secret runtime_dependency_install",
    ),
    ("flwr.supernode.start_client_internal", "time.sleep", ""),
    (
        "flwr.supernode.start_client_internal",
        "pull_objects",
        "initial_backoff backoff_cap max_tries_per_object",
    ),
    ("flwr.supernode.fleet_http_connection", "FleetHttpClient.from_server_address", ""),
    ("flwr.supernode.fleet_http_connection", "FleetHttpClient.PullMessages", "self request"),
    ("flwr.supernode.fleet_http_connection", "FleetHttpClient.PushMessages", "self request"),
    ("flwr.supernode.fleet_http_connection", "FleetHttpClient.SendNodeHeartbeat", "self request"),
    ("flwr.supernode.main", "create_app", "state_factory superexec_auth_secret"),
    ("flwr.supernode.nodestate", "NodeStateFactory", "objectstore_factory"),
    (
        "flwr.supernode.nodestate.in_memory_nodestate",
        "InMemoryNodeState.store_message",
        "self message",
    ),
    ("flwr.supercore.object_store", "ObjectStoreFactory", ""),
    (
        "flwr.supercore.protobuf.client",
        "ProtobufClient.__init__",
        "base_url interceptors verify timeout retry_invoker",
    ),
    ("flwr.supercore.protobuf.client", "ProtobufRequestContext", "rpc_method request"),
    ("flwr.supercore.error", "FlowerError.from_json", ""),
    ("flwr.supercore.runtime", "RuntimeHttpClient.AcquireTask", "request"),
    (
        "flwr.supercore.runtime",
        "RuntimeHttpClient.from_server_address",
        "server_address insecure root_certificates interceptors retry_invoker",
    ),
    (
        "flwr.supercore.interceptors",
        "SuperExecAuthHttpInterceptor",
        "master_secret protected_methods",
    ),
    ("flwr.supercore.interceptors", "RuntimeTokenHttpInterceptor", "token"),
    ("flwr.supercore.interceptors", "RuntimeVersionHttpInterceptor", "component_name"),
    ("flwr.supercore.heartbeat", "HeartbeatSender", "heartbeat_fn"),
    ("flwr.supercore.heartbeat", "HeartbeatSender.is_running", ""),
    ("flwr.supercore.heartbeat", "make_task_heartbeat_fn_http", "client"),
    ("flwr.supernode.runtime.run_clientapp", "pull_task_input", "client"),
    (
        "flwr.supernode.runtime.run_clientapp",
        "pull_and_inflate_object_from_tree",
        "initial_backoff backoff_cap max_tries_per_object",
    ),
    ("flwr.supernode.runtime.run_clientapp", "push_message", "client message context"),
    ("flwr.supercore.inflatable.inflatable_utils", "ObjectPushError", ""),
    (
        "flwr.supernode.runtime.run_clientapp",
        "push_task_output",
        "client context sub_status details",
    ),
    ("flwr.common.constant", "SubStatus.COMPLETED", ""),
    ("flwr.supercore.constant", "TaskType.CLIENT_APP", ""),
)
"""Module, name in it, and the parameters that mamfed passes."""


def check_flower_parts(parts: tuple[FlowerPart, ...] = PARTS) -> None:
    """Check that Flower's version is supported and has all the parts in use.

    Raises:
        SetupError: The version is not supported, or a part or parameter is missing.
    """
    flower_compat.check_flower_parts(parts)


class _NodeState(InMemoryNodeState):
    """Takes an answer only as long as it has the question.

    Flower's loop sends one answer for each question it reads. The coordinator needs no part of a
    refusal, nor of an answer that comes too late, so the node may have sent it, and forgotten both,
    before the worker has pushed the parts. If it then took the same answer again, it would send
    that in place of the next one, and every later answer would wait for the question after it.
    """

    def store_message(self, message: Message) -> str | None:
        """Store a message; None: an answer to a question that the node no longer has."""
        question = message.metadata.reply_to_message_id
        with self.lock_msg_store:
            if question and question not in self.msg_store:
                return None
            return super().store_message(message)


class NodeStates(NodeStateFactory):
    """Makes the node's state, and keeps it in memory."""

    def __init__(self) -> None:
        """Begin without messages."""
        super().__init__(ObjectStoreFactory())
        self.state_instance = _NodeState(self.objectstore_factory.store())


start_node = start_client_internal.start_client_internal
"""Run Flower's SuperNode until it is stopped."""


def replace_fleet_client(client: type[FleetHttpClient]) -> None:
    """Let the node talk to the coordinator through ``client``."""
    fleet_http_connection.FleetHttpClient = client  # type: ignore[attr-defined]


def replace_clock(clock: Any) -> None:
    """Let the node's main loop sleep with ``clock.sleep`` instead of ``time.sleep``."""
    start_client_internal.time = clock  # type: ignore[attr-defined]


def set_node_arrival(pauses: Mapping[str, Any]) -> None:
    """Set how the node waits for the parts of a message from the coordinator."""
    start_client_internal.pull_objects = partial(  # type: ignore[attr-defined]
        pull_objects, **pauses
    )


def set_worker_arrival(pauses: Mapping[str, Any]) -> None:
    """Set how the worker waits for the parts of a message: a task starts before all arrived."""
    run_clientapp.pull_and_inflate_object_from_tree = partial(  # type: ignore[attr-defined]
        pull_and_inflate_object_from_tree, **pauses
    )


def start_log() -> None:
    """Log to stderr in one format, without httpx's line for each request."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    flower = logging.getLogger("flwr")
    flower.setLevel(logging.INFO)
    flower.handlers.clear()
    # The node logs a lost connection once; Flower would log it 40 times a minute.
    flower.addFilter(lambda record: not str(record.msg).startswith("Connection attempt failed"))
