"""Read YAML and JSON into checked settings, with errors in one line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from mamfed_common.config import DIGEST, HEX_DIGITS, SITE_NAME, Config
from mamfed_common.errors import MamfedError, SetupError
from mamfed_common.runtime import yaml_text
from mamfed_common.runtime.bounded import parse_json
from mamfed_common.runtime.files import reason
from mamfed_common.runtime.seal import unsealed
from mamfed_common.runtime.text import NotTextError, read_text

Document = TypeVar("Document", bound=Config)

MAX_PROBLEMS = 10
"""How many problems of a document are named."""


def read_yaml(model: type[Document], path: Path) -> Document:
    """Read settings from a YAML file.

    Raises:
        SetupError: It cannot be read, is not YAML, or has an unknown, duplicate or invalid key; the
            message names the file and the key.
    """
    return validated(model, parse_yaml(_text(path), str(path)), str(path))


def parse_yaml(text: str, origin: str, error: type[MamfedError] = SetupError) -> Any:
    """Parse YAML; ``origin`` names its source in errors.

    An empty text, or one with comments only, is an error and does not mean the defaults: a full
    disk or a power cut can leave an empty file.

    Raises:
        SetupError: Or ``error``: it is empty, not YAML, or has a duplicate key.
    """
    try:
        values = yaml_text.parse(text)
    except ValueError as cause:
        raise error(f"{origin}: not valid YAML: {cause}") from None
    if values is None:
        raise error(f"{origin}: is empty, expected at least one key; restore its content")
    return values


def read_json(model: type[Document], path: Path) -> Document:
    """Read a JSON file that another machine wrote.

    Raises:
        SetupError: It cannot be read, is not JSON, or a key is unknown, missing or wrong.
    """
    return _from_json(model, path, _text(path))


def read_sealed(model: type[Document], path: Path) -> Document:
    """Read a JSON file with a seal (:mod:`mamfed_common.runtime.seal`), or of an earlier version.

    Raises:
        SetupError: As :func:`read_json`, or the file does not match its seal.
    """
    try:
        text = unsealed(_text(path))
    except ValueError as error:
        raise SetupError(f"{path}: {error}; restore it from backup") from None
    return _from_json(model, path, text)


def _from_json(model: type[Document], path: Path, text: str) -> Document:
    if not text.strip():
        raise SetupError(f"{path}: is empty; ask for the file again")
    try:
        values = parse_json(text)
    except ValueError:
        raise SetupError(f"{path}: not valid JSON: ask for the file again") from None
    return validated(model, values, str(path))


def yaml_value(value: Any) -> str:
    """Return a value as YAML on one line, to follow a key."""
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
    """Check values against a model; ``origin`` names their source in errors.

    Raises:
        SetupError: Or ``error``: keys are unknown, missing or invalid; the message names all.
    """
    if not isinstance(values, dict):
        raise error(f"{origin}: found {type(values).__name__}, expected a mapping of keys")
    try:
        return model.model_validate(values)
    except ValidationError as report:
        raise error(f"{origin}: {describe_errors(report, model)}") from None


def check_name(text: str, option: str) -> str:
    """Return a name of a site or a data set unchanged if it is valid.

    Raises:
        SetupError: It is not; the message suggests the nearest valid name.
    """
    if re.fullmatch(SITE_NAME, text):
        return text
    raise SetupError(
        f"{option} {_shortened(text)}: expected letters, digits and hyphens: try {_as_name(text)}"
    )


def describe_errors(report: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Turn pydantic's report into one line that names each invalid key and its problem.

    Args:
        report: The report.
        model: The expected model, used to suggest the nearest known key for an unknown one.
    """
    lines: dict[str, None] = {}
    items = report.errors()
    for item in items:
        # pydantic does not count invalid items, so this list is not really too short.
        if item["type"] == "too_short" and any(_below(i["loc"], item["loc"]) for i in items):
            continue
        lines[_problem(item, model)] = None
        if len(lines) > MAX_PROBLEMS:
            return "; ".join([*list(lines)[:MAX_PROBLEMS], f"and more; {len(items)} in all"])
    return "; ".join(lines)


def _problem(item: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    """Return one of pydantic's errors in words."""
    key = ".".join(map(str, item["loc"])) or "it"
    shown = key if key.isprintable() and len(key) <= 80 else _shortened(key)
    if item["type"] == "extra_forbidden":
        return f"unknown key {_shortened(key)}{_suggestion(model, item['loc'])}"
    if item["type"] == "missing":
        return f"{shown}: is missing"
    if item["type"] == "value_error":
        return f"{shown}: {item['ctx']['error']}"
    return f"{shown}: found {_shortened(item['input'])}, expected {_expected(item)}"


EXPECTED = {
    "too_short": "{min_length} or more of them",
    "too_long": "{max_length} of them at most",
    "string_too_short": "{min_length} characters or more",
    "string_too_long": "{max_length} characters at most",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} at most",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "path_type": "a path",
}
"""Plain wording of pydantic's errors, by type, with placeholders for its values."""


def _expected(item: Mapping[str, Any]) -> str:
    """Return the expected value in words; a pattern is described, never quoted."""
    if item["type"] == "string_pattern_mismatch":
        return FORMS.get(item["ctx"]["pattern"], "another form").format(
            try_=_as_name(str(item["input"]))
        )
    if item["type"] in EXPECTED:
        return EXPECTED[item["type"]].format(**item.get("ctx", {}))
    message = str(item["msg"])
    message = message.removeprefix("Input should be ")
    return message[0].lower() + message[1:]


FORMS = {
    SITE_NAME: "a name of letters, digits and hyphens: try {try_}",
    HEX_DIGITS: "12 to 64 digits of a plan's SHA-256",
    DIGEST: "a SHA-256 of 64 digits",
}
"""Descriptions of patterns."""


def _as_name(text: str) -> str:
    """Turn any text into a valid name."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.]+", "-", plain).strip("-_.")[:64] or "north"


def _below(place: Sequence[int | str], outer: Sequence[int | str]) -> bool:
    return len(place) > len(outer) and list(place[: len(outer)]) == list(outer)


def known_keys(model: type[BaseModel], above: Sequence[str | int]) -> list[str]:
    """Return the keys that a model knows at a path; empty if there is no nested model."""
    nested: type[BaseModel] | None = model
    for part in above:
        field = None if nested is None else nested.model_fields.get(str(part))
        if field is not None:
            nested = _model_in(field.annotation)
        elif not isinstance(part, int):
            return []
    return [] if nested is None else list(nested.model_fields)


def did_you_mean(key: str, known: Sequence[str]) -> str:
    """Return ``, did you mean 'rounds'?``; empty if no known key is similar."""
    close = get_close_matches(key[:80], known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _suggestion(model: type[BaseModel] | None, place: Sequence[str | int]) -> str:
    """Return a hint at the nearest known key, or at the section with a key of this name."""
    if model is None:
        return ""
    *above, last = place
    if close := did_you_mean(str(last), known_keys(model, above)):
        return close
    elsewhere = [f"{k}.{last}" for k in model.model_fields if last in known_keys(model, [k])]
    return f", did you mean {' or '.join(map(repr, elsewhere))}?" if elsewhere else ""


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as ``Model | None`` or ``tuple[Model, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in inner if model is not None), None)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, NotTextError) as error:
        raise SetupError(f"{path}: cannot be read: {reason(path, error)}") from None
