"""Reading what people write and send: YAML and JSON into checked settings, errors in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from mamfed_common.config import Config
from mamfed_common.errors import MamfedError, SetupError
from mamfed_common.text import NotTextError, read_text, typed_blanks

Document = TypeVar("Document", bound=Config)

MAX_BYTES = 1 << 20
"""The largest file that is read: settings, requests and welcomes are a few kB."""


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, but a key given twice is an error instead of a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is given twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(model: type[Document], path: Path) -> Document:
    """Read a YAML file of settings.

    Raises:
        SetupError: It cannot be read, is not YAML, or a key is unknown, given twice or wrong; the
            file and the key are named.
    """
    return validated(model, parse_yaml(_text(path), str(path)), str(path))


def parse_yaml(text: str, origin: str, error: type[MamfedError] = SetupError) -> Any:
    """Read YAML. ``origin`` names its source in the error.

    A full disk or a power cut leaves files of no byte behind: an empty text, or one of comments
    only, is never taken for all defaults.

    Raises:
        SetupError: Or ``error``: it is empty, not YAML, or a key is given twice.
    """
    try:
        values = yaml.load(typed_blanks(text), Loader=UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError) as trouble:
        raise error(f"{origin}: not valid YAML: {' '.join(str(trouble).split())}") from None
    if values is None:
        raise error(f"{origin}: is empty, expected at least one key; put its text back")
    return values


def read_json(model: type[Document], path: Path) -> Document:
    """Read a JSON file that another machine wrote.

    Raises:
        SetupError: It cannot be read, is not JSON, or a key is unknown, missing or wrong.
    """
    text = _text(path)
    if not text.strip():
        raise SetupError(f"{path}: is empty; ask for the file again")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise SetupError(f"{path}: not valid JSON: ask for the file again") from None
    return validated(model, values, str(path))


def yaml_value(value: Any) -> str:
    """Write one value as YAML on one line, to stand behind a key."""
    dumped = yaml.safe_dump(
        [value],
        default_flow_style=True,
        width=float("inf"),
        sort_keys=False,
        allow_unicode=True,
    )
    return dumped.strip()[1:-1]


def validated(
    model: type[Document], values: Any, origin: str, error: type[MamfedError] = SetupError
) -> Document:
    """Check values against a model; ``origin`` names their source in the error.

    Raises:
        SetupError: Or ``error``: some key is unknown, missing or wrong; all such keys are named.
    """
    if not isinstance(values, dict):
        raise error(f"{origin}: found {type(values).__name__}, expected a mapping of keys")
    try:
        return model.model_validate(values)
    except ValidationError as report:
        raise error(f"{origin}: {described(report)}") from None


def described(report: ValidationError) -> str:
    """Turn pydantic's report into one line: every culprit, what was found and what was wrong."""
    lines = []
    for item in report.errors():
        key = ".".join(str(part) for part in item["loc"]) or "it"
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}")
        elif item["type"] == "missing":
            lines.append(f"{key}: is missing")
        elif item["type"] == "value_error":
            lines.append(f"{key}: {item['ctx']['error']}")
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            lines.append(f"{key}: found {_shortened(item['input'])}, {message}")
    return "; ".join(lines)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _text(path: Path) -> str:
    try:
        return read_text(path, MAX_BYTES)
    except NotTextError as error:
        raise SetupError(f"{path}: cannot be read: {error}") from None
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from None
