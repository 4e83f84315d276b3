"""Recognise mamfed's own kinds of files, for messages when another kind was expected.

A request, a welcome, a plan and the description of a checkpoint are all small texts with similar
names. A reader that cannot use a file checks its kind before it complains about keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from mamfed_common.errors import MamfedError
from mamfed_common.runtime import yaml_text
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, open_regular, parse_json
from mamfed_common.runtime.text import decode_text, read_text

_HEADER_BYTES = 8
"""A safetensors file starts with the length of its JSON header, 8 bytes little-endian."""


class FileKind(Enum):
    """A kind of file: what it is, and how to use it."""

    REQUEST = (
        "a site's request to its coordinator",
        "pass it to mamfed-server sites approve",
    )
    WELCOME = (
        "a coordinator's welcome to a site",
        "pass it to mamfed-client join",
    )
    SURVEY = (
        "a site's data in counts",
        "pass it to mamfed-server survey",
    )
    PLAN = (
        "a training plan",
        "pass it to mamfed-client preflight --plan or mamfed-server start --plan",
    )
    SITE_SETTINGS = ("the settings of a site", "pass its folder as --home")
    SERVER_SETTINGS = ("the settings of a coordinator", "pass its folder as --home")
    CHECKPOINT = (
        "a checkpoint with the weights of a network",
        "pass it to mamfed-client evaluate or predict as --checkpoint",
    )
    DESCRIPTION = (
        "the description of a checkpoint",
        "use the .safetensors file of the same name",
    )
    RUN = (
        "a run folder",
        "its checkpoint is checkpoints/best.safetensors, its plan is plan.yaml",
    )
    BUNDLE = ("an exported MONAI bundle", "use the run's own checkpoint")
    EXPORTED = ("a network exported for other tools", "use the run's own checkpoint")
    PRIVATE_KEY = ("a private key", "keep it secret")
    CERTIFICATE = ("a certificate", "a site receives it in its welcome")

    @property
    def words(self) -> str:
        """What the file is."""
        return str(self.value[0])

    @property
    def use(self) -> str:
        """How to use the file."""
        return str(self.value[1])


PLAN_KEYS = frozenset(
    {"pretraining", "finetuning", "image_size", "network", "federation", "evaluation", "precision"}
)


def kind_of(path: Path) -> FileKind | None:
    """Return the kind of a file or folder, by its content; None if unknown or unreadable."""
    try:
        if path.is_dir():
            return _of_folder(path)
        with open_regular(path) as file:
            data = file.read(DOCUMENT_BYTES)
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
    except ValueError:
        return None


def wrong_kind(path: Path, expected: FileKind) -> str:
    """Return a message if a file is known to be of another kind than expected; else empty."""
    found = kind_of(path)
    if found is None or found is expected:
        return ""
    return f"{path}: this is {found.words} ({found.use}); expected {expected.words}"


@contextmanager
def expecting(kind: FileKind, path: Path) -> Iterator[None]:
    """Replace the error about an unusable file if the file is of another kind than expected.

    Raises:
        MamfedError: The error raised in the block, or one of the same class.
    """
    try:
        yield
    except MamfedError as error:
        if words := wrong_kind(path, kind):
            raise type(error)(words) from None
        raise


def site_of_request(path: Path) -> str:
    """Return the name of the site in a request; empty if the file is not a request."""
    if kind_of(path) is not FileKind.REQUEST:
        return ""
    return str(parse_json(read_text(path)).get("site", ""))


def _of_folder(path: Path) -> FileKind | None:
    if (path / "configs" / "metadata.json").exists():
        return FileKind.BUNDLE
    return (
        FileKind.RUN if (path / "plan.yaml").exists() and (path / "checkpoints").exists() else None
    )


def _parsed(text: str) -> Any:
    if text.lstrip().startswith("{"):
        return parse_json(text)
    return yaml_text.parse(text)


def _of_values(values: Any) -> FileKind | None:
    if not isinstance(values, dict):
        return None
    keys, form = values.keys(), str(values.get("format", ""))
    if form.startswith("mamfed request") or "certificate_request" in keys:
        return FileKind.REQUEST
    if form.startswith("mamfed welcome") or {"ca_certificate", "plan_key"} <= keys:
        return FileKind.WELCOME
    if form.startswith("mamfed survey"):
        return FileKind.SURVEY
    if {"plan", "weights_sha256"} <= keys:
        return FileKind.DESCRIPTION
    if {"name", "hosts"} <= keys:
        return FileKind.SERVER_SETTINGS
    if {"name", "data"} <= keys:
        return FileKind.SITE_SETTINGS
    return FileKind.PLAN if keys & PLAN_KEYS else None
