"""A source's header as a derived object may repeat it: what is sound, and what is not and why."""

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
"""What the source must tell: without, no viewer finds out what the segmentation is of."""
WHOSE = ("PatientID", "IssuerOfPatientID")
"""What may be absent but not broken: under another identifier or issuer it is another patient's."""
UIDS = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
"""Also with leading zeros, which no standard allows and archives hold."""
LENGTHS = {"AE": 16, "AS": 4, "CS": 16, "DS": 16, "IS": 12, "LO": 64, "LT": 10240, "PN": 194}
LENGTHS |= {"SH": 16, "ST": 1024, "UI": 64}
"""Most characters of a value (PS3.5 table 6.2-1); a name has three groups of 64."""
WHOLE, REAL = frozenset({"SL", "SS", "SV", "UL", "US", "UV"}), frozenset({"FD", "FL"})
SHAPES = {
    "PatientSex": re.compile("[MFO]"),
    "PatientIdentityRemoved": re.compile("YES|NO"),
    "LossyImageCompression": re.compile("0[01]"),
    "TimezoneOffsetFromUTC": re.compile(r"[+-](0[0-9]|1[0-4])[0-5][0-9]"),
    "PatientOrientation": re.compile("[A-Z]{1,4}"),
}
"""What values PS3.3 defines, where their kind alone allows more."""
CODE = ("CodeValue", "LongCodeValue", "URNCodeValue")


class SourceError(Exception):
    """A file's header does not say what a segmentation of it would need; which, in words."""


class UnsoundElement(Exception):
    """An element cannot be repeated; why, in words that quote nothing of it."""


class SoundHeader(NamedTuple):
    """What of a header can be repeated.

    Attributes:
        elements: The elements.
        left_out: Why others cannot be, by keyword.
    """

    elements: Dataset
    left_out: dict[str, str]


def sound_header(header: Mapping[str, Content]) -> SoundHeader:
    """Sort a header into what can be repeated and what cannot.

    Raises:
        SourceError: It does not say what a segmentation would be of, or whose.
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
    said = {keyword: why for keyword, why in left_out.items() if keyword in REPEATED}
    return SoundHeader(elements, dict(sorted(said.items())))


def _element(keyword: str, content: Content) -> DataElement:
    """Make an element.

    Raises:
        Unsound: Its content is none that it may have (PS3.5 6.2).
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
    """Make an item of a sequence; one of a code has what a code needs (PS3.3 8.8).

    Raises:
        Unsound: Something in it is not sound: half a code or identifier is none.
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
    """Return a value as pydicom wants it.

    Raises:
        Unsound: The element may not have it.
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
