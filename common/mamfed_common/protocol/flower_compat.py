"""Flower's undocumented API that more than one package needs, and the check that it still fits.

Only three modules import what Flower does not document: this one, ``mamfed_server.fleet.
flower_compat`` and ``mamfed_client.node.flower_compat``; ``tests/unit/test_flower_api.py`` checks
it. Everything else uses ``flwr.app``, ``flwr.clientapp``, ``flwr.serverapp`` and
``flwr.simulation``. Works with Flower 1.41 to 1.42.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from flwr.app import Message
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from mamfed_common.errors import SetupError
from mamfed_common.protocol.versions import check_flower, flower_version

__all__ = [
    "ErrorCode",
    "FlowerPart",
    "build_fab_from_files",
    "check_flower_parts",
    "set_message_id",
    "set_task_identity",
]

FlowerPart = tuple[str, str, str]
"""A module of Flower, a name in it, and the parameters that mamfed passes."""


def check_flower_parts(parts: Iterable[FlowerPart]) -> None:
    """Check that Flower's version is supported and has all the parts in use.

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


def set_task_identity(run_id: int, task_id: int, node_id: int) -> None:
    """Set the identity of this process, without which Flower creates no ``Message``."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = run_id, task_id, node_id


def set_message_id(message: Message, message_id: str) -> None:
    """Set the id of a message, which Flower otherwise sets when it sends it."""
    message.metadata.__dict__["_message_id"] = message_id


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
