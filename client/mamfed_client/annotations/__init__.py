"""Where the findings of an image are outlined, one small reader a format -> mask."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mamfed_client.annotations import coco, dicom_file, inbreast, masks, raster, via
from mamfed_client.annotations.classes import (
    BACKGROUND,
    MalignantClasses,
    is_unknown,
    taken_classes,
    taken_values,
)
from mamfed_client.annotations.outlines import (
    Outlines,
    any_trouble_unreadable,
    read_bytes,
    text_of,
    unreadable,
)
from mamfed_client.annotations.references import TargetImage
from mamfed_client.annotations.shapes import Annotation, Kind, Shape
from mamfed_client.imaging.doubts import Doubt, Doubtful, Doubts
from mamfed_client.imaging.mammogram import Mask
from mamfed_client.imaging.picture_headers import is_picture
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_common.runtime.text import encoding_of
from mamfed_common.runtime.wording import counted

Reader = Callable[[bytes, TargetImage], Outlines]

TEXT_LIMIT = 64 << 20
BINARY_LIMIT = 512 << 20
START = 256
"""Bytes by which a text without a telling suffix is told."""


class MarkedRegions(NamedTuple):
    """What an image's annotations mark.

    Attributes:
        mask: Their union, ``(rows, columns)`` bool.
        resampled: How many were drawn on another size of the image, and fitted.
        boxes: How many boxes they hold; none is in the mask.
        points: How many single points; each marks one pixel.
        outlines: As how many outlines they were drawn; 0 where they are pictures.
        others: How many regions of other classes were left out.
        doubts: What may be wrong with it, as far as its readers can tell.
    """

    mask: Mask
    resampled: int
    boxes: int
    points: int
    outlines: int = 0
    others: int = 0
    doubts: Doubts = ()


def read_annotations(annotations: Sequence[Annotation], rows: int, columns: int) -> MarkedRegions:
    """Unite the malignant findings of an image of ``rows`` x ``columns`` pixels.

    Raises:
        FileRejected: One cannot be read (``UNREADABLE_MASK``), is of another aspect than the image
            (``MASK_SIZE``), marks classes of which nobody says what they are (``UNKNOWN_CLASS``),
            or all of them mark nothing but boxes, points beside boxes, other classes, or nothing
            at all (``EMPTY_MASK``).
    """
    mask: Mask = np.zeros((rows, columns), dtype=np.bool_)
    kinds: Counter[Kind] = Counter()
    doubts: Doubts = ()
    resampled, pictures, others, listed = 0, 0, 0, False
    for annotation in annotations:
        everything = _outlines(annotation)
        outlines, said = keep_malignant(everything, annotation.take)
        doubts += said
        others += _regions(everything) - _regions(outlines)
        shapes, scaled = _scaled(outlines, rows, columns)
        mask |= raster.draw(shapes, rows, columns)
        for other, _ in outlines.masks:
            scaled |= other.shape != (rows, columns)
            mask |= raster.fit(other, rows, columns)
            pictures += bool(other.any())
        kinds.update(shape.kind for shape in shapes)
        resampled += scaled
        listed |= outlines.listed
    _check_marked(mask, kinds, pictures, listed)
    drawn = kinds.total() - kinds["box"]
    return MarkedRegions(mask, resampled, kinds["box"], kinds["point"], drawn, others, doubts)


def _regions(outlines: Outlines) -> int:
    """Count what is marked, but not the background of a picture."""
    marked = (m for m in outlines.masks if not (outlines.by_value and m.name in BACKGROUND))
    return len(outlines.shapes) + sum(1 for _ in marked)


def keep_malignant(outlines: Outlines, take: MalignantClasses) -> tuple[Outlines, Doubts]:
    """Leave the regions whose class is a malignant finding's, and say what is doubtful of that.

    Raises:
        FileRejected: Which these are is not known, or there are none.
    """
    names = {shape.name for shape in outlines.shapes} | {mask.name for mask in outlines.masks}
    if outlines.by_value:
        chosen = taken_values(names, take.values)
    else:
        chosen = taken_classes(names, outlines.declared, take.classes)
    left = outlines._replace(
        shapes=tuple(shape for shape in outlines.shapes if shape.name in chosen),
        masks=tuple(mask for mask in outlines.masks if mask.name in chosen),
    )
    guessed = not (take.classes or outlines.by_value) and any(map(is_unknown, chosen))
    doubts = [Doubtful(Doubt.MASK_CLASS)] if guessed else []
    doubts += [Doubtful(Doubt.MASK_BY_PROGRAM)] if outlines.by_program else []
    doubts += [Doubtful(Doubt.MASK_OF_ANOTHER)] if outlines.of_another else []
    return left, tuple(doubts)


def _check_marked(mask: Mask, kinds: Counter[Kind], pictures: int, listed: bool) -> None:
    """Refuse a mask without an outline; single points are one unless boxes say otherwise."""
    boxes, points = kinds["box"], kinds["point"]
    if boxes and boxes + points == kinds.total() and not pictures:
        beside = f" and {counted(points, 'point')}" if points else ""
        found = f"{counted(boxes, 'box', 'boxes')}{beside}"
        raise FileRejected(Reason.EMPTY_MASK, f"{found} and no outline")
    if not listed:
        raise FileRejected(Reason.EMPTY_MASK, "the annotation does not list the image")
    if not mask.any():
        raise FileRejected(Reason.EMPTY_MASK, "the annotation marks nothing in the image")


def _scaled(outlines: Outlines, rows: int, columns: int) -> tuple[tuple[Shape, ...], bool]:
    """Bring shapes to the image's size, and say whether that changed them."""
    if outlines.grid is None or outlines.grid == (rows, columns) or not outlines.shapes:
        return outlines.shapes, False
    raster.check_aspect(outlines.grid, rows, columns)
    height, width = outlines.grid
    shapes = (raster.scale(shape, rows / height, columns / width) for shape in outlines.shapes)
    return tuple(shapes), True


def _outlines(annotation: Annotation) -> Outlines:
    """Read one annotation by its suffix, else by its content."""
    if annotation.path is None:
        return Outlines(annotation.shapes)
    suffix = annotation.path.suffix.lower()
    data = read_bytes(annotation.path, TEXT_LIMIT if suffix in TEXT else BINARY_LIMIT)
    with any_trouble_unreadable():
        return (_READERS.get(suffix) or _reader_for(data))(
            data, TargetImage(annotation.image_name, annotation.instance)
        )


def _reader_for(data: bytes) -> Reader:
    """Tell a file without a telling suffix by its content."""
    if data[128:132] == b"DICM":  # PS3.10 7.1
        return dicom_file.read
    if is_picture(data):
        return _by_name(masks.read)
    start = data[:START].decode(encoding_of(data), errors="ignore").lstrip("\ufeff\t\r\n ")
    if start.startswith("<"):
        return _by_name(inbreast.read)
    if start.startswith("{"):
        return _by_name(_read_json)
    if via.is_csv(start):
        return _by_name(via.read_csv)
    raise unreadable("an annotation of a format that is not known")


def _by_name(read: Callable[[bytes, str], Outlines]) -> Reader:
    """Let a reader of a format that knows images by the names of their files alone read."""
    return lambda data, image: read(data, image.name)


def _read_json(data: bytes, image_name: str) -> Outlines:
    # RFC 8259 8.1: UTF-8 without a mark; json itself also knows UTF-16 and UTF-32 by their zeros.
    is_marked = encoding_of(data) != "utf-8"
    document = json.loads(text_of(data) if is_marked or b"\0" not in data[:4] else data)
    read = coco.read if coco.is_coco(document) else via.read_json
    return read(document, image_name)


TEXT = frozenset({".xml", ".json", ".csv"})
_READERS: dict[str, Reader] = {
    **dict.fromkeys((".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"), _by_name(masks.read)),
    **dict.fromkeys((".dcm", ".dicom"), dicom_file.read),
    ".xml": _by_name(inbreast.read),
    ".json": _by_name(_read_json),
    ".csv": _by_name(via.read_csv),
}
