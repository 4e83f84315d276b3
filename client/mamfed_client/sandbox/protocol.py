"""What the decoding process answered, checked field by field: it may have been taken over."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from typing import Any, NamedTuple

from pydicom.datadict import tag_for_keyword

from mamfed_client.imaging import doubts
from mamfed_client.imaging.derived_header import KEYWORDS, MOST_DEPTH, MOST_ITEMS, MOST_TEXT, Header
from mamfed_client.imaging.doubts import Doubts
from mamfed_client.imaging.mammogram import MAX_PIXELS, Facts
from mamfed_client.imaging.rejections import FileRejected, Reason

MAX_TEXT = 1024
"""Characters of any text in an answer; a DICOM LO has 64."""
MAX_COUNT = 1 << 20
MAX_DOUBTS = 64
SHA256 = re.compile("[0-9a-f]{64}")


class ProtocolError(Exception):
    """An answer that our own process would not give."""


class MammogramAnswer(NamedTuple):
    """A mammogram without its pixels, which lie in the buffer: grey levels, then validity."""

    rows: int
    columns: int
    padded: bool
    facts: Facts
    sha256: str
    doubts: Doubts


class MaskAnswer(NamedTuple):
    """Counts of a mask, whose pixels lie in the buffer."""

    resampled: int
    boxes: int
    points: int
    outlines: int
    others: int
    sha256: str
    doubts: Doubts


def parse_answer(line: bytes) -> dict[str, Any]:
    """Parse an answer, and raise the refusal that it may be.

    Raises:
        FileRejected: The file was refused.
        ProtocolError: It is no answer.
    """
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError from None
    _hold(isinstance(answer, dict))
    if "refused" in answer:
        raise _refusal(answer["refused"])
    checked: dict[str, Any] = answer
    return checked


def check_mammogram(answer: dict[str, Any]) -> MammogramAnswer:
    """Check an answer to the operation ``mammogram``.

    Raises:
        ProtocolError: It is not one.
    """
    rows, columns = _count(answer, "rows"), _count(answer, "columns")
    _hold(0 < rows * columns <= MAX_PIXELS)
    padded = answer.get("padded")
    _hold(isinstance(padded, bool))
    return MammogramAnswer(
        rows, columns, bool(padded), _facts(answer), _sha256(answer), _doubts(answer)
    )


def check_mask(answer: dict[str, Any]) -> MaskAnswer:
    """Check an answer to the operation ``mask``.

    Raises:
        ProtocolError: It is not one.
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
    """Check an answer to the operation ``source``: known keywords, short texts, shallow sequences.

    Raises:
        ProtocolError: It is not one.
    """
    said = answer.get("source")
    _hold(isinstance(said, dict) and said.keys() <= KEYWORDS)
    assert isinstance(said, dict)
    _hold(all(_is_content(content, 0) for content in said.values()))
    return said


def _is_content(content: Any, depth: int) -> bool:
    """Tell whether this is what an element, or one within an item, may hold."""
    if content is None or isinstance(content, str):
        return content is None or len(content) <= MOST_TEXT
    if not isinstance(content, list) or len(content) > MOST_ITEMS or depth == MOST_DEPTH:
        return False
    return all(
        isinstance(item, dict)
        and all(isinstance(k, str) and tag_for_keyword(k) is not None for k in item)
        and all(_is_content(value, depth + 1) for value in item.values())
        for item in content
    )


def _refusal(said: Any) -> FileRejected:
    _hold(isinstance(said, list) and len(said) == 2)
    reason, detail = said
    _hold(_is_text(detail) and detail.isprintable())  # no control codes in a terminal
    try:
        return FileRejected(Reason(reason), detail)
    except ValueError:
        raise ProtocolError from None


def _facts(answer: dict[str, Any]) -> Facts:
    """Check the facts: texts and nothing, but for laterality and spacing."""
    facts = answer.get("facts")
    _hold(isinstance(facts, dict) and facts.keys() == {field.name for field in fields(Facts)})
    assert isinstance(facts, dict)
    spacing_mm, optional = facts["spacing_mm"], ("view", "vendor", "model", "birads")
    _hold(facts["laterality"] in (None, "L", "R"))
    _hold(spacing_mm is None or _is_length(spacing_mm))
    for name in facts.keys() - {"laterality", "spacing_mm"}:
        _hold(_is_text(facts[name]) or (facts[name] is None and name in optional))
    return Facts(**facts)


def _is_length(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _count(answer: dict[str, Any], name: str) -> int:
    value = answer.get(name)
    _hold(type(value) is int and 0 <= value < MAX_COUNT)
    assert isinstance(value, int)
    return value


def _sha256(answer: dict[str, Any]) -> str:
    value = answer.get("sha256")
    _hold(isinstance(value, str) and SHA256.fullmatch(value) is not None)
    return str(value)


def _doubts(answer: dict[str, Any]) -> Doubts:
    said = answer.get("doubts")
    _hold(isinstance(said, list) and len(said) <= MAX_DOUBTS)
    try:
        found = doubts.from_json(said)
    except (TypeError, ValueError):
        raise ProtocolError from None
    _hold(all(_is_text(detail) and detail.isprintable() for _, detail in found))
    return found


def _hold(condition: bool) -> None:
    if not condition:
        raise ProtocolError
