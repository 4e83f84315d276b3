"""Flower's undocumented API as the coordinator uses it: all imports, settings and checks.

The coordinator runs Flower's SuperLink inside its process (``superlink.py``) and reads and writes
its state directly (``link_transport.py``). Neither is documented, so both are imported here and
nowhere else. Works with Flower 1.41 to 1.42.
"""

from __future__ import annotations

from flwr.app.message.array import Array
from flwr.app.message.arraychunk import ArrayChunk
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkState
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    FLWR_IN_MEMORY_DB_NAME,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
    NOOP_FEDERATION_ID,
    TaskType,
)
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_body,
    get_object_head_values_from_object_content,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware

from mamfed_common.protocol.flower_compat import FlowerPart

__all__ = [
    "FLEET_HTTP_PUBLIC_KEY_HEADER",
    "FLEET_HTTP_SIGNATURE_HEADER",
    "FLWR_PACKAGE_VERSION_METADATA_KEY",
    "NOOP_ACCOUNT_NAME",
    "NOOP_FEDERATION_ID",
    "NOOP_FLWR_AID",
    "NOT_SERVED",
    "PARTS",
    "TIMESTAMP_HEADER",
    "ActivateNodeRequest",
    "Array",
    "ArrayChunk",
    "ConfirmMessageReceivedRequest",
    "ConfirmMessageReceivedResponse",
    "DeactivateNodeRequest",
    "Fab",
    "GetFabRequest",
    "InMemoryLinkState",
    "LinkState",
    "NodeAuthMiddleware",
    "ObjectTree",
    "PullMessagesRequest",
    "PullMessagesResponse",
    "PullObjectRequest",
    "PullObjectResponse",
    "PushMessagesRequest",
    "PushMessagesResponse",
    "PushObjectRequest",
    "PushObjectResponse",
    "RuntimeVersionMetadata",
    "SuperLinkLifespan",
    "TaskType",
    "bytes_to_public_key",
    "create_app",
    "get_all_nested_objects",
    "get_object_body",
    "get_object_head_values_from_object_content",
    "get_object_tree",
    "inflate_object_from_contents",
    "message_to_proto",
    "no_object_id_recompute",
    "public_key_to_bytes",
    "remove_content_from_message",
    "superlink_config",
]

NOT_SERVED = ("flwr.superlink.routers.control", "flwr.superlink.routers.fleet.middlewares")
"""Where the middlewares are of an API and a log that are not served here; each costs every request
0.2 ms."""
STATE = "flwr.server.superlink.linkstate"
PARTS: tuple[FlowerPart, ...] = (
    ("flwr.superlink.main", "create_app", "config superlink_lifespan_class"),
    (
        STATE,
        "InMemoryLinkState.create_node",
        "owner_aid owner_name public_key heartbeat_interval name",
    ),
    (STATE, "InMemoryLinkState.activate_node", "node_id heartbeat_interval"),
    (STATE, "InMemoryLinkState.acknowledge_node_heartbeat", "node_id heartbeat_interval"),
    (STATE, "InMemoryLinkState.deactivate_node", "node_id"),
    (STATE, "InMemoryLinkState.get_node_id_by_public_key", "public_key"),
    (STATE, "InMemoryLinkState.get_nodes", "run_id"),
    (STATE, "InMemoryLinkState.store_fab", "fab"),
    (
        STATE,
        "InMemoryLinkState.create_run",
        "fab_id fab_version fab_hash override_config federation_id federation_config flwr_aid "
        "primary_task_type",
    ),
    (STATE, "InMemoryLinkState.claim_task", "task_id"),
    (STATE, "InMemoryLinkState.activate_task", "task_id"),
    (STATE, "InMemoryLinkState.acknowledge_task_heartbeat", "task_id"),
    (STATE, "InMemoryLinkState.finish_task", "task_id sub_status details"),
    (STATE, "InMemoryLinkState.start_session", "run_id"),
    (STATE, "InMemoryLinkState.store_message_and_object_tree", "message object_tree session_id"),
    (STATE, "InMemoryLinkState.store_object", "run_id session_id object_id object_content"),
    (STATE, "InMemoryLinkState.get_message_res", "message_ids run_id"),
    (STATE, "InMemoryLinkState.delete_messages", "message_ins_ids"),
    ("flwr.superlink.routers.fleet.node_auth", "NodeAuthMiddleware", "app"),
    (
        "flwr.supercore.inflatable.inflatable_utils",
        "inflate_object_from_contents",
        "object_id object_contents",
    ),
)
"""The undocumented functions of Flower that are called here, with the parameters used."""


def superlink_config() -> SuperLinkLifespanConfig:
    """Return settings that keep Flower from starting processes or opening ports."""
    return SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=0,
        insecure=True,
        certificates=None,
        superexec_auth_secret=None,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation="process",
        runtime_dependency_install=False,
    )
