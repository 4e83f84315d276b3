"""Reading what people write and send: YAML and JSON into checked settings, errors in one line."""

from __future__ import annotations

import json
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
from mamfed_common.runtime.files import reason
from mamfed_common.runtime.text import NotTextError, read_text, typed_blanks

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
        raise error(f"{origin}: {describe_errors(report, model)}") from None


def check_name(text: str, option: str) -> str:
    """Return a site's or a data set's name as it was typed.

    Raises:
        SetupError: It cannot be one; the nearest that can be is named.
    """
    if re.fullmatch(SITE_NAME, text):
        return text
    raise SetupError(
        f"{option} {_shortened(text)}: a name has letters, digits and hyphens: try {_as_name(text)}"
    )


def describe_errors(report: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Turn pydantic's report into one line: every culprit, what was found and what was wrong.

    Args:
        report: The report.
        model: What was asked for; an unknown key is told the nearest one that it knows.
    """
    lines = []
    items = report.errors()
    places = [item["loc"] for item in items]
    for item in items:
        # A list whose items are wrong counts none of them: that is no second mistake.
        if item["type"] == "too_short" and any(_below(loc, item["loc"]) for loc in places):
            continue
        key = ".".join(str(part) for part in item["loc"]) or "it"
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}{_suggestion(model, item['loc'])}")
        elif item["type"] == "missing":
            lines.append(f"{key}: is missing")
        elif item["type"] == "value_error":
            lines.append(f"{key}: {item['ctx']['error']}")
        else:
            lines.append(f"{key}: found {_shortened(item['input'])}, expected {_expected(item)}")
    return "; ".join(dict.fromkeys(lines))


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
"""What pydantic's errors mean to a person, by their type, with its own values filled in."""


def _expected(item: Mapping[str, Any]) -> str:
    """Say what would have been right; a pattern by what it stands for, never as it is written."""
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
"""What patterns stand for."""


def _as_name(text: str) -> str:
    """Make a name of a text that is none."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.]+", "-", plain).strip("-_.")[:64] or "north"


def _below(place: Sequence[int | str], outer: Sequence[int | str]) -> bool:
    return len(place) > len(outer) and list(place[: len(outer)]) == list(outer)


def known_keys(model: type[BaseModel], above: Sequence[str | int]) -> list[str]:
    """Return the keys that a model knows at a place; none where that is no mapping of its own."""
    found: type[BaseModel] | None = model
    for part in above:
        field = None if found is None else found.model_fields.get(str(part))
        if field is not None:
            found = _model_in(field.annotation)
        elif not isinstance(part, int):
            return []
    return [] if found is None else list(found.model_fields)


def did_you_mean(key: str, known: Sequence[str]) -> str:
    """Return ``, did you mean 'rounds'?``; empty where nothing is near."""
    close = get_close_matches(key, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _suggestion(model: type[BaseModel] | None, place: Sequence[str | int]) -> str:
    """Return the nearest known key; else where a key of just this name belongs."""
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
        return read_text(path, MAX_BYTES)
    except NotTextError as error:
        raise SetupError(f"{path}: cannot be read: {error}") from None
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {reason(path, error)}") from None
