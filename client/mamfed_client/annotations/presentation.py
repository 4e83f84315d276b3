"""Read outlines from the graphics of presentation states and regions of structured reports.

Both use coordinates from the top left corner of the first pixel, whose centre is at (0.5, 0.5)
(PS3.3 table C.10-5, Graphic Annotation Units PIXEL, and table C.18.6-1, Graphic Data).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from pydicom.dataset import Dataset

from mamfed_client.annotations.classes import ClassMeaning, kind_of
from mamfed_client.annotations.outlines import Outlines, unreadable
from mamfed_client.annotations.references import TargetImage, referenced, shown_image
from mamfed_client.annotations.shapes import Shape

CORNER = 0.5
FOUND = re.compile("finding|patholog|segmented property|impression|abnormality")
SEGMENTS = ("121191", "121214")
"""Referenced Segment, and Referenced Segmentation Frame (PS3.16 annex D)."""
OBSERVER_TYPE, DEVICE = "121005", "121007"
MAKER = "mamfed-client predict"
"""Manufacturer's Model Name (0008,1090) of mamfed's own presentation states."""
POINT_COUNTS = {"POINT": 1, "CIRCLE": 2, "ELLIPSE": 4}


class Graphic(NamedTuple):
    """An item with Graphic Type (0070,0023) and Graphic Data (0070,0022).

    Attributes:
        item: The item.
        images: SOP Instance UIDs of the images it applies to; empty means all.
        name: Its class: the layer of a presentation state, or the finding of a report.
    """

    item: Dataset
    images: frozenset[str]
    name: str


def read_graphics(dataset: Dataset, image: TargetImage) -> Outlines:
    """Read the graphics of a Softcopy Presentation State (PS3.3 C.10.5).

    Raises:
        FileRejected: Graphics are placed on the display rather than the image, cannot be parsed, or
            apply to several images, none of which is named like the image's file.
    """
    for annotation in dataset.get("GraphicAnnotationSequence") or ():
        for item in annotation.get("GraphicObjectSequence") or ():
            if item.get("GraphicAnnotationUnits") != "PIXEL":
                raise unreadable("graphics placed on the display; expected units of PIXEL")
    series = dataset.get("ReferencedSeriesSequence") or ()
    shown = referenced(one for item in series for one in item.get("ReferencedImageSequence") or ())
    outlines = _outlines(list(_graphics(dataset)), shown, image)
    return outlines._replace(by_program=dataset.get("ManufacturerModelName") == MAKER)


def read_report(dataset: Dataset, image: TargetImage) -> Outlines:
    """Read the spatial coordinates of a Structured Report's content tree (PS3.3 C.18.6).

    Raises:
        FileRejected: Regions cannot be parsed, use the coordinates of a slide's total matrix or of
            the patient, lie in a segmentation, or apply to several images, none of which is named
            like the image's file.
    """
    regions = list(_regions(dataset))
    if not regions:
        _refuse_regions_elsewhere(dataset)
    if any(region.item.get("PixelOriginInterpretation") == "VOLUME" for region in regions):
        raise unreadable("coordinates in a total pixel matrix; expected those of a frame")
    outlines = _outlines(regions, frozenset(), image)
    return outlines._replace(by_program=_is_by_program(dataset))


def _refuse_regions_elsewhere(root: Dataset) -> None:
    """Refuse a report whose only regions are of a kind that is not read.

    Raises:
        FileRejected: It has coordinates in the patient, or refers to segments.
    """
    for item in _tree(root):
        if item.get("ValueType") == "SCOORD3D":
            raise unreadable("coordinates in the patient (SCOORD3D); expected those of the image")
        if _code(item, "ConceptNameCodeSequence") in SEGMENTS:
            raise unreadable("its regions lie in a segmentation; name that file instead")


def _is_by_program(root: Dataset) -> bool:
    """Return whether devices alone observed what a report says, and nobody verified it."""
    observers = {
        _code(item, "ConceptCodeSequence")
        for item in root.get("ContentSequence") or ()
        if _code(item, "ConceptNameCodeSequence") == OBSERVER_TYPE
    }
    return observers == {DEVICE} and root.get("VerificationFlag") != "VERIFIED"


def _tree(root: Dataset) -> Iterator[Dataset]:
    items = [root]
    while items:
        item = items.pop()
        yield item
        items.extend(item.get("ContentSequence") or ())


def _code(item: Dataset, keyword: str) -> str:
    return next((str(code.get("CodeValue") or "") for code in item.get(keyword) or ()), "")


def _graphics(dataset: Dataset) -> Iterator[Graphic]:
    layers = {
        str(layer.get("GraphicLayer") or ""): str(layer.get("GraphicLayerDescription") or "")
        for layer in dataset.get("GraphicLayerSequence") or ()
    }
    for annotation in dataset.get("GraphicAnnotationSequence") or ():
        images = referenced(annotation.get("ReferencedImageSequence") or ())
        layer = str(annotation.get("GraphicLayer") or "")
        for item in annotation.get("GraphicObjectSequence") or ():
            yield Graphic(item, images, _layer_name(layer, layers.get(layer, "")))


def _layer_name(layer: str, description: str) -> str:
    """Return a layer's name (0070,0002) or, if only that says more, its description (0070,0068)."""
    vague = (ClassMeaning.UNKNOWN, ClassMeaning.PLAIN)
    return description if kind_of(layer) in vague and kind_of(description) not in vague else layer


def _regions(root: Dataset) -> Iterator[Graphic]:
    """Yield the regions of the content tree in document order."""
    items = [(root, "")]
    while items:
        item, found = items.pop()
        children = list(item.get("ContentSequence") or ())
        if item.get("ValueType") == "SCOORD":
            name = found or _meaning(item, "ConceptNameCodeSequence")
            yield Graphic(item, _selected_from(children, root), name)
        found = _found(children) or found
        items.extend((child, found) for child in reversed(children))


def _found(children: list[Dataset]) -> str:
    """Join the meanings of coded items that name a finding or a pathology rather than a site."""
    coded = [child for child in children if child.get("ValueType") == "CODE"]
    meanings = [
        _meaning(item, "ConceptCodeSequence")
        for item in coded
        if FOUND.search(concept := _meaning(item, "ConceptNameCodeSequence").casefold())
        and "site" not in concept
    ]
    return " ".join(meanings)


def _meaning(item: Dataset, keyword: str) -> str:
    return next((str(code.get("CodeMeaning") or "") for code in item.get(keyword) or ()), "")


def _selected_from(children: list[Dataset], root: Dataset) -> frozenset[str]:
    """Collect the images that coordinates refer to, by value or by reference."""
    targets = [_target(child, root) for child in children]
    return referenced(
        reference for target in targets for reference in target.get("ReferencedSOPSequence") or ()
    )


def _target(item: Dataset, root: Dataset) -> Dataset:
    """Follow Referenced Content Item Identifier (0040,DB73): positions from 1, the root first."""
    positions = item.get("ReferencedContentItemIdentifier")
    if positions is None:
        return item
    target = root
    for position in list(positions)[1:]:
        target = target.ContentSequence[position - 1]
    return target


def _outlines(graphics: list[Graphic], shown: frozenset[str], image: TargetImage) -> Outlines:
    """Return the outlines of the graphics that apply to the image."""
    uid = shown_image(shown.union(*(graphic.images for graphic in graphics)), image)
    ours = [graphic for graphic in graphics if not graphic.images or uid in graphic.images]
    shapes = (replace(s, name=g.name) for g in ours for s in _shapes(g.item))
    return Outlines(
        shapes=tuple(shapes),
        declared=frozenset(g.name for g in graphics),
        of_another=image.is_another(uid),
    )


def _shapes(item: Dataset) -> tuple[Shape, ...]:
    """Convert a graphic to shapes (PS3.3 C.10.5.1.2, C.18.6.1.2).

    An INTERPOLATED curve is approximated by straight lines. An open line, such as a measurement or
    an arrow, outlines nothing.
    """
    kind = item.get("GraphicType")
    points = _points(item.get("GraphicData"))
    if len(points) != POINT_COUNTS.get(kind, len(points)):
        raise unreadable(f"a {kind} of {len(points)} points; expected {POINT_COUNTS[kind]}")
    if kind in ("POINT", "MULTIPOINT"):
        return tuple(Shape("point", (point,)) for point in points)
    if kind == "CIRCLE":
        radius = math.dist(*points)
        return (Shape("circle", points[:1], (radius, radius)),)
    if kind == "ELLIPSE":
        return (_ellipse(points),)
    if kind not in ("POLYLINE", "INTERPOLATED"):
        raise unreadable("a graphic of an unknown kind")
    if points[0] == points[-1] or item.get("GraphicFilled") == "Y":
        return (Shape("polygon", points),)
    return ()


def _ellipse(points: tuple[tuple[float, float], ...]) -> Shape:
    """Build an ellipse from the ends of its major axis and then of its minor axis."""
    (x, y), (end_x, end_y) = points[:2]
    radii = math.dist(*points[:2]) / 2, math.dist(*points[2:]) / 2
    centre = ((x + end_x) / 2, (y + end_y) / 2)
    return Shape("ellipse", (centre,), radii, math.atan2(end_y - y, end_x - x))


def _points(flat: Any) -> tuple[tuple[float, float], ...]:
    """Pair columns and rows, with the origin moved to the centre of the first pixel."""
    numbers = [float(number) - CORNER for number in flat or ()]
    if not numbers or len(numbers) % 2:
        raise unreadable("a graphic without an even number of coordinates")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))
