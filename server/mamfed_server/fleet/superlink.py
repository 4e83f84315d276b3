"""Flower's SuperLink inside this process; the only server module that uses Flower's internals.

A stock SuperLink offers three APIs on one port and lets anyone who can reach it run code. Here, its
app and its state are created but nothing listens. ``listener.py`` exposes only the Fleet API,
behind the request guard, and the round loop accesses the state directly through
:class:`LinkTransport`. The Control and Runtime APIs, which submit code and hand out tasks, have no
listener at all.

The state is kept in memory. A run is defined by its checkpoints (``run_folder``), so a new process
starts a new Flower run, and neither models nor messages are ever stored in a database.

Works with Flower 1.41 to 1.42; :func:`check_parts` verifies this before anything is started.
"""

from __future__ import annotations

import base64
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, ErrorCode
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkState
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLWR_IN_MEMORY_DB_NAME,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
    NOOP_FEDERATION_ID,
    TaskType,
)
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.primitives.asymmetric import bytes_to_public_key
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from google.protobuf.message import DecodeError

from mamfed_common.errors import LinkError, SetupError
from mamfed_common.protocol.flower_bundle import FAB_ID, FAB_VERSION, bundle, bundle_sha256
from mamfed_common.protocol.versions import check_flower, flower_version
from mamfed_server.run.transport import TOO_LARGE, UNREAD, UNREADABLE

TASK_HEARTBEAT_SECONDS = 15.0
"""Flower fails a run whose task is silent for 60 s."""

KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower()
VERSION_HEADER = FLWR_PACKAGE_VERSION_METADATA_KEY.lower()
FLEET = "/v1/fleet/"
ACTIVATE_NODE, PUSH_MESSAGES = f"{FLEET}activate-node", f"{FLEET}push-messages"
PUSH_OBJECT = f"{FLEET}push-object"

_PARTS: tuple[tuple[Callable[..., Any], str], ...] = (
    (create_app, "config superlink_lifespan_class"),
    (InMemoryLinkState.create_node, "owner_aid owner_name public_key heartbeat_interval name"),
    (InMemoryLinkState.activate_node, "node_id heartbeat_interval"),
    (InMemoryLinkState.deactivate_node, "node_id"),
    (InMemoryLinkState.get_node_id_by_public_key, "public_key"),
    (InMemoryLinkState.get_nodes, "run_id"),
    (InMemoryLinkState.store_fab, "fab"),
    (
        InMemoryLinkState.create_run,
        "fab_id fab_version fab_hash override_config federation_id federation_config flwr_aid "
        "primary_task_type",
    ),
    (InMemoryLinkState.claim_task, "task_id"),
    (InMemoryLinkState.activate_task, "task_id"),
    (InMemoryLinkState.acknowledge_task_heartbeat, "task_id"),
    (InMemoryLinkState.finish_task, "task_id sub_status details"),
    (InMemoryLinkState.start_session, "run_id"),
    (InMemoryLinkState.store_message_and_object_tree, "message object_tree session_id"),
    (InMemoryLinkState.store_object, "run_id session_id object_id object_content"),
    (InMemoryLinkState.get_message_res, "message_ids run_id"),
    (InMemoryLinkState.delete_messages, "message_ins_ids"),
    (inflate_object_from_contents, "object_id object_contents"),
)
"""The undocumented functions of Flower that are called here, with the parameters used."""


def check_parts() -> None:
    """Check that Flower's version is supported and that its functions have the parameters used.

    Raises:
        SetupError: Flower does not match; another version must be installed.
    """
    check_flower()
    for part, names in _PARTS:
        if missing := set(names.split()) - set(inspect.signature(part).parameters):
            raise SetupError(
                f"Flower {flower_version()}: {part.__qualname__} has no parameter "
                f"{sorted(missing)[0]!r}; install the Flower version that this mamfed requires"
            )


class SuperLink:
    """Flower's Fleet API as an ASGI app, and the state behind it, for one run.

    Attributes:
        app: The app; it must only be served behind ``request_guard.RequestGuard``.
        state: Flower's state.
        run_id: Flower's id of the run.
    """

    def __init__(self) -> None:
        """Create the app and start a Flower run.

        Raises:
            SetupError: The installed Flower is not supported.
        """
        check_parts()
        self.app = create_app(_config(), SuperLinkLifespan)
        self.state: LinkState = self.app.state.linkstate_factory.state()
        self.run_id, self._task_id = self._start_run()
        self._activations: dict[int, int] = {}
        self._stop = threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="run-heartbeat").start()

    def node_of(self, public_key: bytes) -> int:
        """Return the Flower node of a site's key (PEM), registering a new one."""
        node_id = self.state.get_node_id_by_public_key(public_key)
        if node_id is not None:
            return node_id
        return self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key, 30)

    def welcome_back(self, node_id: int) -> None:
        """Let a restarted node connect before its lease ends.

        Flower would refuse the node for about a minute after a crash. The request guard has
        verified the node's certificate and key.
        """
        self.state.deactivate_node(node_id)
        self._activations[node_id] = self._activations.get(node_id, 0) + 1

    def activations(self, node_id: int) -> int:
        """Return how often a node has connected."""
        return self._activations.get(node_id, 0)

    def close(self) -> None:
        """End the Flower run, so that nodes discard its messages."""
        self._stop.set()
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
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = run_id, task_id, 1
        return run_id, task_id

    def _beat(self) -> None:
        while not self._stop.wait(TASK_HEARTBEAT_SECONDS):
            self.state.acknowledge_task_heartbeat(self._task_id)


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
            message.metadata.__dict__["_message_id"] = message_id
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


def key_of(header: bytes) -> bytes:
    """Read a site's public key from Flower's header value; return its PEM.

    Raises:
        LinkError: It is not base64 of an elliptic-curve key.
    """
    try:
        pem = base64.b64decode(header, validate=True)
        bytes_to_public_key(pem)
    except ValueError:
        raise LinkError("its public key cannot be read") from None
    return pem


def check_sender(body: bytes) -> None:
    """Check that the messages of a push come from its sender.

    Flower checks that a request's node belongs to its key (if not, it answers 401, for example to a
    node that has not noticed a new server), but not that the messages inside come from that node.

    Raises:
        LinkError: A message is of another node, or the body cannot be parsed.
    """
    request = PushMessagesRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise LinkError("its message cannot be read") from None
    if any(m.metadata.src_node_id != request.node.node_id for m in request.messages_list):
        raise LinkError("the message was pushed in another site's name")


def _config() -> SuperLinkLifespanConfig:
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
