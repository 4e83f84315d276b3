"""Answers of a process that a hostile file may have taken over."""

from dataclasses import asdict

import pytest

from mamfed_client.imaging.doubts import Doubt
from mamfed_client.imaging.mammogram import Facts
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.sandbox.protocol import (
    ProtocolError,
    check_mammogram,
    check_mask,
    check_source,
    parse_answer,
)

MAMMOGRAM = {
    "rows": 3,
    "columns": 4,
    "padded": False,
    "facts": asdict(Facts()),
    "sha256": "0" * 64,
    "doubts": [],
}
MASK = {
    "resampled": 0,
    "boxes": 1,
    "points": 2,
    "outlines": 2,
    "others": 0,
    "sha256": "a" * 64,
    "doubts": [],
}
DOUBTED = {"doubts": [[str(Doubt.MASK_LARGE), "half"]]}


def test_honest_answers_are_believed():
    assert check_mammogram(MAMMOGRAM).facts == Facts()
    assert check_mask(MASK)[:3] == (0, 1, 2)
    assert check_mammogram(MAMMOGRAM | DOUBTED).doubts == ((Doubt.MASK_LARGE, "half"),)
    assert check_mask(MASK | DOUBTED).doubts == ((Doubt.MASK_LARGE, "half"),)
    spoken = asdict(Facts("R", "table", "CC", "table", 0.07, "GE", "m", "4a", "p", "1.2"))
    assert check_mammogram(MAMMOGRAM | {"facts": spoken}).facts.spacing_mm == 0.07


@pytest.mark.parametrize(
    "lie",
    [
        {"rows": 0},
        {"rows": -3},
        {"rows": 3.0},
        {"rows": True},
        {"rows": "3"},
        {"rows": 10001, "columns": 4000},
        {"rows": 1 << 20, "columns": 1},
        {"padded": 1},
        {"padded": None},
        {"sha256": "0" * 63},
        {"sha256": "g" * 64},
        {"sha256": "0" * 64 + "\n"},
        {"sha256": None},
        {"facts": None},
        {"facts": {}},
        {"facts": asdict(Facts()) | {"more": 1}},
        {"facts": asdict(Facts()) | {"laterality": "B"}},
        {"facts": asdict(Facts()) | {"spacing_mm": float("inf")}},
        {"facts": asdict(Facts()) | {"spacing_mm": float("nan")}},
        {"facts": asdict(Facts()) | {"spacing_mm": True}},
        {"facts": asdict(Facts()) | {"spacing_mm": "0.1"}},
        {"facts": asdict(Facts()) | {"patient": None}},
        {"facts": asdict(Facts()) | {"patient": 5}},
        {"facts": asdict(Facts()) | {"vendor": "x" * 1025}},
        {"facts": asdict(Facts()) | {"laterality": []}},
        {"doubts": None},
        {"doubts": ["half"]},
        {"doubts": [["no such doubt", ""]]},
        {"doubts": [[str(Doubt.MASK_LARGE), "\x1b[2J"]]},
        {"doubts": [[str(Doubt.MASK_LARGE), "x" * 1025]]},
        {"doubts": [[str(Doubt.MASK_LARGE), ""]] * 65},
    ],
)
def test_a_lie_about_a_mammogram_is_noticed(lie):
    with pytest.raises(ProtocolError):
        check_mammogram(MAMMOGRAM | lie)


@pytest.mark.parametrize(
    "lie", [{"boxes": -1}, {"points": None}, {"resampled": 1 << 30}, {"doubts": 3}]
)
def test_a_lie_about_a_mask_is_noticed(lie):
    with pytest.raises(ProtocolError):
        check_mask(MASK | lie)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xff",
        b"3",
        b"null",
        b"[" * 60000,
        b'{"refused": 1}',
        b'{"refused": ["truncated"]}',
        b'{"refused": ["truncated", 5]}',
        b'{"refused": ["no such reason", ""]}',
        b'{"refused": [[], ""]}',
        b'{"refused": ["truncated", "\\u001b[2J"]}',
        b'{"refused": ["truncated", "' + b"x" * 1025 + b'"]}',
    ],
)
def test_a_line_that_is_no_answer_is_noticed(line):
    with pytest.raises(ProtocolError):
        parse_answer(line)


def test_a_refusal_keeps_its_reason_and_words():
    with pytest.raises(FileRejected, match=r"^truncated: 3 of 4 bytes$") as caught:
        parse_answer(b'{"refused": ["truncated", "3 of 4 bytes"]}')
    assert caught.value.reason is Reason.TRUNCATED


def nested(depth):
    return [{"ProcedureCodeSequence": nested(depth - 1)}] if depth else []


@pytest.mark.parametrize(
    "said",
    [
        {"PatientID": "a", "PatientName": None},
        {"ProcedureCodeSequence": [{"CodeValue": "a", "CodeMeaning": ""}]},
        {"ProcedureCodeSequence": nested(3)},
    ],
)
def test_a_header_is_believed_where_it_is_short_texts_and_items_under_known_names(said):
    assert check_source({"source": said}) == said


@pytest.mark.parametrize(
    "lie",
    [
        None,
        ["PatientID"],
        {"PixelData": "a"},
        {"PatientID": 1},
        {"PatientID": "a" * 10241},
        {"ProcedureCodeSequence": [{"NoKeyword": "a"}]},
        {"ProcedureCodeSequence": ["a"]},
        {"ProcedureCodeSequence": [{}] * 65},
        {"ProcedureCodeSequence": nested(6)},
    ],
)
def test_a_lie_about_a_header_is_noticed(lie):
    with pytest.raises(ProtocolError):
        check_source({"source": lie})
