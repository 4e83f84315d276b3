"""What kind of mamfed's own files a file is, to name it where another one was expected.

A request, a welcome, a plan and the description of a checkpoint are all small texts with similar
names. A reader that cannot use a file asks here before it complains of keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.text import NotTextError, decode_text

LOOKED_AT = 1 << 20
"""Bytes of a file that are looked at."""
_HEADER_BYTES = 8
"""A safetensors file begins with the length of its JSON header, 8 bytes little-endian."""


class FileKind(Enum):
    """A kind of file: what it is, and what takes it."""

    REQUEST = (
        "the request of a site to its coordinator",
        "mamfed-server sites approve takes it",
    )
    WELCOME = (
        "the welcome that a coordinator sends to a site",
        "mamfed-client join takes it",
    )
    PLAN = (
        "a training plan",
        "mamfed-client preflight --plan and mamfed-server start --plan take it",
    )
    SITE_SETTINGS = ("the settings of a site", "the folder that it lies in is named by --home")
    SERVER_SETTINGS = (
        "the settings of a coordinator",
        "the folder that it lies in is named by --home",
    )
    CHECKPOINT = (
        "a checkpoint, the weights of a network",
        "mamfed-client evaluate and predict take it by --checkpoint",
    )
    DESCRIPTION = (
        "the description beside a checkpoint",
        "name the .safetensors file of the same name",
    )
    RUN = (
        "the folder of a run",
        "its checkpoint is checkpoints/best.safetensors in it, its plan is plan.yaml",
    )
    BUNDLE = ("an exported MONAI bundle", "mamfed takes the run's own checkpoint")
    EXPORTED = ("a network exported for other tools", "mamfed takes the run's own checkpoint")
    PRIVATE_KEY = ("a private key", "give it to nobody")
    CERTIFICATE = ("a certificate", "it comes to a site in its welcome")

    @property
    def words(self) -> str:
        """Say what it is."""
        return str(self.value[0])

    @property
    def use(self) -> str:
        """Say what takes it."""
        return str(self.value[1])


PLAN_KEYS = frozenset(
    {"pretraining", "finetuning", "image_size", "network", "federation", "evaluation", "precision"}
)


def kind_of(path: Path) -> FileKind | None:
    """Return what kind of file or folder this is, by what it holds; None where it is no known one.

    Nothing is raised: a file that cannot be read is of no kind.
    """
    try:
        if path.is_dir():
            return _of_folder(path)
        with path.open("rb") as file:
            data = file.read(LOOKED_AT)
    except OSError:
        return None
    if data[_HEADER_BYTES : _HEADER_BYTES + 1] == b"{" and not data.startswith(b"{"):
        return FileKind.CHECKPOINT
    if path.suffix.lower() in (".onnx", ".pt", ".pt2") or data.startswith(b"PK\x03\x04"):
        return FileKind.EXPORTED
    if b"PRIVATE KEY-----" in data[:100]:
        return FileKind.PRIVATE_KEY
    if data.lstrip().startswith(b"-----BEGIN CERTIFICATE"):
        return FileKind.CERTIFICATE
    try:
        return _of_values(_parsed(decode_text(data)))
    except (NotTextError, ValueError, yaml.YAMLError, RecursionError):
        return None


def wrong_kind(path: Path, expected: FileKind) -> str:
    """Say that a file is of another kind than expected; empty where it is not known to be one."""
    found = kind_of(path)
    if found is None or found is expected:
        return ""
    return f"{path}: this is {found.words} ({found.use}); expected {expected.words}"


@contextmanager
def expecting(kind: FileKind, path: Path) -> Iterator[None]:
    """Where a file cannot be used, say so in one sentence if it is another kind than expected.

    Raises:
        MamfedError: What was raised inside, of the same class.
    """
    try:
        yield
    except MamfedError as error:
        if words := wrong_kind(path, kind):
            raise type(error)(words) from None
        raise


def site_of_request(path: Path) -> str:
    """Return the name of the site that a request is of; empty where the file is none."""
    if kind_of(path) is not FileKind.REQUEST:
        return ""
    return str(json.loads(decode_text(path.read_bytes())).get("site", ""))


def _of_folder(path: Path) -> FileKind | None:
    if (path / "configs" / "metadata.json").exists():
        return FileKind.BUNDLE
    return (
        FileKind.RUN if (path / "plan.yaml").exists() and (path / "checkpoints").exists() else None
    )


def _parsed(text: str) -> Any:
    if text.lstrip().startswith("{"):
        return json.loads(text)
    return yaml.safe_load(text)


def _of_values(values: Any) -> FileKind | None:
    if not isinstance(values, dict):
        return None
    keys, form = values.keys(), str(values.get("format", ""))
    if form.startswith("mamfed request") or "certificate_request" in keys:
        return FileKind.REQUEST
    if form.startswith("mamfed welcome") or {"ca_certificate", "plan_key"} <= keys:
        return FileKind.WELCOME
    if {"plan", "weights_sha256"} <= keys:
        return FileKind.DESCRIPTION
    if {"name", "hosts"} <= keys:
        return FileKind.SERVER_SETTINGS
    if {"name", "data"} <= keys:
        return FileKind.SITE_SETTINGS
    return FileKind.PLAN if keys & PLAN_KEYS else None
