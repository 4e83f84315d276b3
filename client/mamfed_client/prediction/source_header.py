"""The elements of a source's DICOM header that a derived object can repeat."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.valuerep import validate_value

from mamfed_client.imaging.derived_header import LONG, REPEATED, Header

Content = str | list[Header] | None

REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
"""Required elements: without them, no viewer can match the segmentation to its source."""
WHOSE = ("PatientID", "IssuerOfPatientID")
"""Elements that may be absent but not invalid: a changed one would name another patient."""
UIDS = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
"""Leading zeros are accepted: the standard forbids them, but archives contain them."""
LENGTHS = {"AE": 16, "AS": 4, "CS": 16, "DS": 16, "IS": 12, "LO": 64, "LT": 10240, "PN": 194}
LENGTHS |= {"SH": 16, "ST": 1024, "UI": 64}
"""Maximum characters of a value (PS3.5 table 6.2-1); a name has three groups of 64."""
WHOLE, REAL = frozenset({"SL", "SS", "SV", "UL", "US", "UV"}), frozenset({"FD", "FL"})
SHAPES = {
    "PatientSex": re.compile("[MFO]"),
    "PatientIdentityRemoved": re.compile("YES|NO"),
    "LossyImageCompression": re.compile("0[01]"),
    "TimezoneOffsetFromUTC": re.compile(r"[+-](0[0-9]|1[0-4])[0-5][0-9]"),
    "PatientOrientation": re.compile("[A-Z]{1,4}"),
}
"""Values that PS3.3 defines, for elements whose VR alone would allow more."""
CODE = ("CodeValue", "LongCodeValue", "URNCodeValue")


class SourceError(Exception):
    """A file's header lacks what a segmentation needs; the message says what."""


class UnsoundElement(Exception):
    """An element cannot be repeated; the message gives the reason without quoting the element."""


class SoundHeader(NamedTuple):
    """The elements of a header that can be repeated.

    Attributes:
        elements: The elements.
        left_out: Reasons why others cannot be repeated, by keyword.
    """

    elements: Dataset
    left_out: dict[str, str]


def sound_header(header: Mapping[str, Content]) -> SoundHeader:
    """Separate a header into elements that can be repeated and others.

    Raises:
        SourceError: It does not identify the source or the patient of a segmentation.
    """
    elements, left_out = Dataset(), {}
    for keyword, content in header.items():
        try:
            elements.add(_element(keyword, content))
        except UnsoundElement as why:
            left_out[keyword] = str(why)
    for keyword in REQUIRED:
        if keyword not in elements:
            raise SourceError(f"the header has no sound {keyword}")
    for keyword in WHOSE:
        if keyword in left_out:
            raise SourceError(f"the header has no sound {keyword}")
    reported = {keyword: why for keyword, why in left_out.items() if keyword in REPEATED}
    return SoundHeader(elements, dict(sorted(reported.items())))


def _element(keyword: str, content: Content) -> DataElement:
    """Build an element.

    Raises:
        UnsoundElement: Its content is invalid (PS3.5 6.2).
    """
    tag, vr = tag_for_keyword(keyword), dictionary_VR(keyword)
    assert tag is not None
    if content is None:
        raise UnsoundElement("badly formed, or too large")
    if isinstance(content, list) != (vr == "SQ"):
        raise UnsoundElement("badly formed")
    if isinstance(content, list):
        return DataElement(tag, vr, [_item(keyword, item) for item in content])
    values = [content] if vr in LONG else content.split("\\")
    if len(values) > 1 and dictionary_VM(keyword) == "1":
        raise UnsoundElement("several values where one belongs")
    if not content and keyword in REQUIRED:
        raise UnsoundElement("empty")
    if keyword == "PatientOrientation" and len(values) not in (0, 2):
        raise UnsoundElement("not two directions")
    made = [_value(keyword, vr, text) for text in values] if content else [""]
    return DataElement(tag, vr, made if len(made) > 1 else made[0])


def _item(within: str, item: Header) -> Dataset:
    """Build an item of a sequence; a code needs value, scheme and meaning (PS3.3 8.8).

    Raises:
        UnsoundElement: Part of it is invalid, since half a code or identifier is useless.
    """
    made = Dataset()
    for keyword, content in item.items():
        try:
            made.add(_element(keyword, content))
        except UnsoundElement as why:
            raise UnsoundElement(f"its {keyword}: {why}") from None
    if within.endswith("CodeSequence"):
        value = next((name for name in CODE if made.get(name)), None)
        scheme = value != "CodeValue" or made.get("CodingSchemeDesignator")
        if value is None or not made.get("CodeMeaning") or not scheme:
            raise UnsoundElement("a code without value, scheme or meaning")
    return made


def _value(keyword: str, vr: str, text: str) -> str | int | float:
    """Return a value as pydicom expects it.

    Raises:
        UnsoundElement: The element must not have this value.
    """
    shape = SHAPES.get(keyword, UIDS if vr == "UI" else None)
    if len(text) > LENGTHS.get(vr, len(text)):
        raise UnsoundElement(f"{len(text)} characters, at most {LENGTHS[vr]} have room")
    if shape and not shape.fullmatch(text):
        raise UnsoundElement("badly formed")
    try:
        if vr in WHOLE or vr in REAL:
            return int(text) if vr in WHOLE else float(text)
        if vr != "UI":
            validate_value(vr, text, config.RAISE)
    except ValueError:
        raise UnsoundElement("badly formed") from None
    lines = text.translate(dict.fromkeys(map(ord, "\r\n\t\f"), " ")) if vr in LONG else text
    if not lines.isprintable():
        raise UnsoundElement("holds control characters")
    return text
