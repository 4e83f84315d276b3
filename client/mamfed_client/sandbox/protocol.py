"""Validate the decoding process's answers field by field: a hostile file may have taken it over."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from typing import Any, NamedTuple

from pydicom.datadict import tag_for_keyword

from mamfed_client.imaging import doubts
from mamfed_client.imaging.derived_header import (
    KEYWORDS,
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_ITEMS,
    Header,
)
from mamfed_client.imaging.dicom_header import IDENTITY
from mamfed_client.imaging.display_steps import FUNCTIONS, MAX_ASPECT, MOST_ENTRIES, Window
from mamfed_client.imaging.doubts import Doubts
from mamfed_client.imaging.mammogram import MAX_PIXELS, Facts
from mamfed_client.imaging.rejections import FileRejected, Reason

MAX_TEXT = 1024
"""Maximum characters of a text in an answer; a DICOM LO has 64."""
MAX_COUNT = 1 << 20
MAX_DOUBTS = 64
SHA256 = re.compile("[0-9a-f]{64}")


class ProtocolError(Exception):
    """An answer that an uncompromised process would not give."""


class MammogramAnswer(NamedTuple):
    """A mammogram without its pixels: the buffer holds grey levels, then validity."""

    rows: int
    columns: int
    padded: bool
    facts: Facts
    sha256: str
    doubts: Doubts


class MaskAnswer(NamedTuple):
    """The counts of a mask without its pixels, which are in the buffer."""

    resampled: int
    boxes: int
    points: int
    outlines: int
    others: int
    sha256: str
    doubts: Doubts


class DisplayAnswer(NamedTuple):
    """How an image is displayed, without its table of ``entries``, which is in the buffer."""

    slope: float
    intercept: float
    window: Window | None
    entries: int
    inverted: bool
    pixel: tuple[float, float]


def parse_answer(line: bytes) -> dict[str, Any]:
    """Parse an answer, raising the rejection if it reports one.

    Raises:
        FileRejected: The file was rejected.
        ProtocolError: The answer is malformed.
    """
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError from None
    _require(isinstance(answer, dict))
    if "refused" in answer:
        raise _rejection(answer["refused"])
    parsed: dict[str, Any] = answer
    return parsed


def check_mammogram(answer: dict[str, Any]) -> MammogramAnswer:
    """Validate an answer to the operation ``mammogram``.

    Raises:
        ProtocolError: It is invalid.
    """
    rows, columns = _count(answer, "rows"), _count(answer, "columns")
    _require(0 < rows * columns <= MAX_PIXELS)
    padded = answer.get("padded")
    _require(isinstance(padded, bool))
    return MammogramAnswer(
        rows, columns, bool(padded), _facts(answer), _sha256(answer), _doubts(answer)
    )


def check_mask(answer: dict[str, Any]) -> MaskAnswer:
    """Validate an answer to the operation ``mask``.

    Raises:
        ProtocolError: It is invalid.
    """
    return MaskAnswer(
        resampled=_count(answer, "resampled"),
        boxes=_count(answer, "boxes"),
        points=_count(answer, "points"),
        outlines=_count(answer, "outlines"),
        others=_count(answer, "others"),
        sha256=_sha256(answer),
        doubts=_doubts(answer),
    )


def check_source(answer: dict[str, Any]) -> Header:
    """Validate an answer to ``source``: known keywords, short texts, shallow sequences.

    Raises:
        ProtocolError: It is invalid.
    """
    header = answer.get("source")
    _require(isinstance(header, dict) and header.keys() <= KEYWORDS)
    assert isinstance(header, dict)
    _require(all(_is_content(content, 0) for content in header.values()))
    return header


def check_display(answer: dict[str, Any]) -> DisplayAnswer:
    """Validate an answer to ``display``.

    Raises:
        ProtocolError: It is invalid.
    """
    slope, intercept, height, width = (
        _finite(answer.get(key)) for key in ("slope", "intercept", "height", "width")
    )
    _require(slope != 0 and min(height, width) > 0)
    _require(max(height, width) <= MAX_ASPECT * min(height, width))
    entries, inverted = _count(answer, "entries"), answer.get("inverted")
    _require(isinstance(inverted, bool) and entries <= MOST_ENTRIES)
    window = _window(answer.get("window"))
    _require((entries == 0) == (window is not None))
    return DisplayAnswer(slope, intercept, window, entries, bool(inverted), (height, width))


def _window(content: Any) -> Window | None:
    if content is None:
        return None
    _require(isinstance(content, list) and len(content) == 3)
    centre, width, function = content
    _require(_finite(width) > 0 and function in ("", *FUNCTIONS))
    return Window(_finite(centre), _finite(width), str(function))


def _finite(value: Any) -> float:
    _require(type(value) in (int, float) and math.isfinite(value))
    return float(value)


def check_identity(answer: dict[str, Any]) -> dict[str, str]:
    """Validate an answer to ``identity``: the known keywords, each with a short text.

    Raises:
        ProtocolError: It is invalid.
    """
    identity = answer.get("identity")
    _require(isinstance(identity, dict) and identity.keys() == set(IDENTITY))
    assert isinstance(identity, dict)
    _require(all(isinstance(text, str) and len(text) <= 64 for text in identity.values()))
    return identity


def _is_content(content: Any, depth: int) -> bool:
    """Return whether an element, at the top level or within an item, may have this content."""
    if content is None or isinstance(content, str):
        return content is None or len(content) <= MAX_CHARACTERS
    if not isinstance(content, list) or len(content) > MAX_ITEMS or depth == MAX_DEPTH:
        return False
    return all(
        isinstance(item, dict)
        and all(isinstance(k, str) and tag_for_keyword(k) is not None for k in item)
        and all(_is_content(value, depth + 1) for value in item.values())
        for item in content
    )


def _rejection(content: Any) -> FileRejected:
    _require(isinstance(content, list) and len(content) == 2)
    reason, detail = content
    _require(_is_text(detail) and detail.isprintable())  # keep control codes out of terminals
    try:
        return FileRejected(Reason(reason), detail)
    except ValueError:
        raise ProtocolError from None


def _facts(answer: dict[str, Any]) -> Facts:
    """Validate the facts: texts or None, except for laterality and spacing."""
    facts = answer.get("facts")
    _require(isinstance(facts, dict) and facts.keys() == {field.name for field in fields(Facts)})
    assert isinstance(facts, dict)
    spacing_mm, optional = facts["spacing_mm"], ("view", "vendor", "model", "birads")
    _require(facts["laterality"] in (None, "L", "R"))
    _require(spacing_mm is None or _is_length(spacing_mm))
    for name in facts.keys() - {"laterality", "spacing_mm"}:
        _require(_is_text(facts[name]) or (facts[name] is None and name in optional))
    return Facts(**facts)


def _is_length(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _count(answer: dict[str, Any], name: str) -> int:
    value = answer.get(name)
    _require(type(value) is int and 0 <= value < MAX_COUNT)
    assert isinstance(value, int)
    return value


def _sha256(answer: dict[str, Any]) -> str:
    value = answer.get("sha256")
    _require(isinstance(value, str) and SHA256.fullmatch(value) is not None)
    return str(value)


def _doubts(answer: dict[str, Any]) -> Doubts:
    content = answer.get("doubts")
    _require(isinstance(content, list) and len(content) <= MAX_DOUBTS)
    try:
        parsed = doubts.from_json(content)
    except (TypeError, ValueError):
        raise ProtocolError from None
    _require(all(_is_text(detail) and detail.isprintable() for _, detail in parsed))
    return parsed


def _require(condition: bool) -> None:
    if not condition:
        raise ProtocolError
