"""Check of Flower's undocumented API that a site's processes use, before they start."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

from mamfed_common.errors import SetupError
from mamfed_common.protocol.versions import check_flower, flower_version

PARTS: tuple[tuple[str, str, str], ...] = (
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
    ("flwr.supernode.main", "create_app", "state_factory superexec_auth_secret"),
    ("flwr.supernode.nodestate", "NodeStateFactory", "objectstore_factory"),
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
    (
        "flwr.supernode.runtime.run_clientapp",
        "push_task_output",
        "client context sub_status details",
    ),
    ("flwr.common.constant", "SubStatus.COMPLETED", ""),
    ("flwr.supercore.constant", "TaskType.CLIENT_APP", ""),
)
"""Module, name in it, and the parameters that mamfed passes."""


def check_flower_parts(parts: tuple[tuple[str, str, str], ...] = PARTS) -> None:
    """Check that Flower's version is supported and has all the parts in use (Flower 1.41-1.42).

    Raises:
        SetupError: The version is not supported, or a part or parameter is missing.
    """
    check_flower()
    for module, name, parameters in parts:
        part = _find(module, name)
        if part is None:
            _refuse(f"{module} has no {name}")
        if missing := _missing(part, parameters):
            _refuse(f"{module}.{name} has no parameter {missing[0]!r}")


def start_log() -> None:
    """Log to stderr in one format, without httpx's line for each request."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    flower = logging.getLogger("flwr")
    flower.setLevel(logging.INFO)
    flower.handlers.clear()
    # The node logs a lost connection once; Flower would log it 40 times a minute.
    flower.addFilter(lambda record: not str(record.msg).startswith("Connection attempt failed"))


def _find(module: str, name: str) -> Any:
    try:
        part: Any = import_module(module)
    except ModuleNotFoundError:
        return None
    for attribute in name.split("."):
        part = getattr(part, attribute, None)
    return part


def _missing(part: Callable[..., Any], parameters: str) -> list[str]:
    if not parameters:
        return []
    return sorted(set(parameters.split()) - set(inspect.signature(part).parameters))


def _refuse(what: str) -> None:
    raise SetupError(
        f"Flower {flower_version()}: {what}; install a version of Flower that this mamfed supports"
    )
