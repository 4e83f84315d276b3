"""A site's own safetensors files, with a description and a checksum in the header.

The header holds facts as JSON and a SHA-256 over them and every tensor. A file that cannot be used
is logged and ignored; it never stops training.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mamfed_common import __version__
from mamfed_common.config import Config
from mamfed_common.model.state_dict import State, state_sha256
from mamfed_common.runtime.bounded import CHECKPOINT_BYTES, open_regular
from mamfed_common.runtime.files import refusal_words, write_atomic

logger = logging.getLogger(__name__)

FACTS, CHECKSUM = "mamfed", "sha256"
"""Keys of a file's header."""


class FileFacts(Config):
    """Facts in a file's header: what it belongs to, and the mamfed version that wrote it.

    The loss of a diverging training is not finite, so NaN and infinity are allowed.
    """

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    what: str
    mamfed_version: str = __version__


AnyFacts = TypeVar("AnyFacts", bound=FileFacts)


class DamagedError(Exception):
    """A file's content does not match its checksum."""


def write_checked(path: Path, facts: FileFacts, tensors: Mapping[str, Tensor]) -> bool:
    """Write a file (0600); return whether that succeeded. Failures are logged, not raised."""
    text = facts.model_dump_json()
    header = {FACTS: text, CHECKSUM: _checksum(text, tensors)}
    try:
        write_atomic(path, save(dict(tensors), metadata=header))
    except OSError as error:
        logger.warning("cannot save the round (%s): a crash would lose it", refusal_words(error))
        return False
    return True


def read_checked(
    path: Path, what: str, facts_kind: type[AnyFacts]
) -> tuple[AnyFacts, State] | None:
    """Read a file that belongs to ``what``; None if there is no usable one."""
    if not path.exists():
        return None
    try:
        facts, tensors = _read(path, facts_kind)
    except (OSError, SafetensorError, ValidationError, DamagedError):
        logger.warning("%s is damaged and is ignored", path.name)
        return None
    if (facts.what, facts.mamfed_version) != (what, __version__):
        logger.warning("%s belongs to another round or mamfed version; ignored", path.name)
        return None
    return facts, tensors


def _read(path: Path, facts_kind: type[AnyFacts]) -> tuple[AnyFacts, State]:
    open_regular(path, CHECKPOINT_BYTES).close()
    with safe_open(path, framework="pt", device="cpu") as handle:
        header = handle.metadata() or {}
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}
    text = header.get(FACTS, "")
    if header.get(CHECKSUM) != _checksum(text, tensors):
        raise DamagedError
    return facts_kind.model_validate_json(text), tensors


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{state_sha256(tensors)}\n{text}".encode()).hexdigest()
