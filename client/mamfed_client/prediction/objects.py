"""Make the DICOM objects of an image, each of which another program can open on its own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from io import BytesIO
from typing import NamedTuple

import pydicom
from pydicom import Dataset

from mamfed_client.imaging.derived_header import Header
from mamfed_client.imaging.display_steps import DisplaySteps
from mamfed_client.imaging.mammogram import Facts, Grey, Pixels
from mamfed_client.prediction.cad_report import encode_cad_report
from mamfed_client.prediction.capture import encode_capture
from mamfed_client.prediction.derived_object import Encoded, Origin
from mamfed_client.prediction.lesions import MarkedRegions
from mamfed_client.prediction.polygons import Points, polygon_of
from mamfed_client.prediction.presentation_state import encode_presentation
from mamfed_client.prediction.report import encode_report
from mamfed_client.prediction.segmentation import Encoding, encode_segmentation
from mamfed_client.prediction.source_header import SourceError


class Subject(NamedTuple):
    """What the objects of an image are made of.

    Attributes:
        header: The result of ``Decoder.source``.
        facts: Metadata of the image.
        grey: ``(H, W)`` uint16, tissue bright.
        probability: ``(H, W)`` float32 in 0..1.
        marked: The marked regions.
        steps: How stored values become grey levels; None if no object needs it.
        pixel: A pixel's height and width.
    """

    header: Header
    facts: Facts
    grey: Grey
    probability: Pixels
    marked: MarkedRegions
    steps: DisplaySteps | None
    pixel: tuple[float, float]


class Made(NamedTuple):
    """The objects of an image.

    Attributes:
        files: DICOM files by kind.
        missing: Reasons why a kind is missing.
        left_out: Reasons why elements of the source's header were not repeated, by keyword.
    """

    files: dict[str, bytes]
    missing: dict[str, str]
    left_out: dict[str, str]


def make_objects(
    subject: Subject, kinds: Collection[str], encoding: Encoding, origin: Origin
) -> Made:
    """Make the objects of an image; one that cannot be made costs no other."""
    made = Made({}, {}, {})
    marked, facts, header = subject.marked, subject.facts, subject.header
    polygons = _polygons(marked) if {"sr", "gsps", "cad"} & set(kinds) else ()
    regions = len(marked.lesions) + marked.left_out
    pixels = marked.mask if encoding == "binary" else subject.probability
    makers: dict[str, Callable[[], Encoded]] = {
        "seg": lambda: encode_segmentation(pixels, header, facts, regions, origin),
        "sr": lambda: encode_report(
            marked, polygons, header, facts, origin, _header_of(made.files.get("seg"))
        ),
        "gsps": lambda: encode_presentation(
            marked, polygons, header, facts, origin, _needed(subject.steps), subject.pixel
        ),
        "sc": lambda: encode_capture(marked, subject.grey, header, facts, origin, subject.pixel),
        "cad": lambda: encode_cad_report(marked, polygons, header, facts, origin),
    }
    for kind in (kind for kind in makers if kind in kinds):
        try:
            encoded = makers[kind]()
        except SourceError as error:
            made.missing[kind] = str(error)
            continue
        made.files[kind] = encoded.data
        made.left_out.update(encoded.left_out)
    return made


def _needed(steps: DisplaySteps | None) -> DisplaySteps:
    assert steps is not None, "NEED_DISPLAY names every kind that needs them"
    return steps


def _polygons(marked: MarkedRegions) -> tuple[Points, ...]:
    lesions = zip(marked.shapes, marked.lesions, strict=True)
    return tuple(polygon_of(shape, (found.box.top, found.box.left)) for shape, found in lesions)


def _header_of(data: bytes | None) -> Dataset | None:
    """Return the header of a segmentation that was just made."""
    return None if data is None else pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
