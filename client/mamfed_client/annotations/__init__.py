"""Read annotations of findings in any supported format, and draw them as a mask.

Each format has a small reader in a module of its own; see :data:`_READERS`.
"""

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
    choose_classes,
    choose_values,
    is_unknown,
)
from mamfed_client.annotations.outlines import (
    Outlines,
    errors_as_unreadable,
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
from mamfed_common.errors import DataError
from mamfed_common.runtime.plugins import Group, find_entry, load_plugin
from mamfed_common.runtime.text import encoding_of
from mamfed_common.runtime.wording import counted

Reader = Callable[[bytes, TargetImage], Outlines]

TEXT_LIMIT = 64 << 20
BINARY_LIMIT = 512 << 20
SNIFFED_BYTES = 256
"""Bytes inspected to detect the format of a text file with an unknown suffix."""


class MarkedRegions(NamedTuple):
    """The malignant regions that an image's annotations mark.

    Attributes:
        mask: Their union, ``(rows, columns)`` bool.
        resampled: Number of annotations drawn at a different image size and resampled.
        boxes: Number of boxes; they are not part of the mask.
        points: Number of single points; each marks one pixel.
        outlines: Number of outlines drawn; 0 if the annotations are pictures.
        others: Number of regions of other classes, which are excluded.
        doubts: Possible problems that the readers noticed.
    """

    mask: Mask
    resampled: int
    boxes: int
    points: int
    outlines: int = 0
    others: int = 0
    doubts: Doubts = ()


def read_annotations(annotations: Sequence[Annotation], rows: int, columns: int) -> MarkedRegions:
    """Draw the union of the malignant findings of an image of ``rows`` x ``columns`` pixels.

    Raises:
        FileRejected: An annotation cannot be read (``UNREADABLE_MASK``), its aspect ratio differs
            from the image's (``MASK_SIZE``), or it marks several classes of unknown meaning
            (``UNKNOWN_CLASS``); or no annotation marks more than boxes, points beside boxes, or
            other classes (``EMPTY_MASK``).
    """
    mask: Mask = np.zeros((rows, columns), dtype=np.bool_)
    kinds: Counter[Kind] = Counter()
    doubts: Doubts = ()
    resampled, pictures, others, listed = 0, 0, 0, False
    for annotation in annotations:
        outlines = _read(annotation)
        malignant, new_doubts = keep_malignant(outlines, annotation.malignant)
        doubts += new_doubts
        others += _count_regions(outlines) - _count_regions(malignant)
        shapes, scaled = _scaled(malignant, rows, columns)
        mask |= raster.draw(shapes, rows, columns)
        for picture, _ in malignant.masks:
            scaled |= picture.shape != (rows, columns)
            mask |= raster.fit(picture, rows, columns)
            pictures += bool(picture.any())
        kinds.update(shape.kind for shape in shapes)
        resampled += scaled
        listed |= malignant.listed
    _check_marked(mask, kinds, pictures, listed)
    drawn = kinds.total() - kinds["box"]
    return MarkedRegions(mask, resampled, kinds["box"], kinds["point"], drawn, others, doubts)


def _count_regions(outlines: Outlines) -> int:
    """Count the marked regions, excluding the background of a picture."""
    marked = (m for m in outlines.masks if not (outlines.by_value and m.name in BACKGROUND))
    return len(outlines.shapes) + sum(1 for _ in marked)


def keep_malignant(outlines: Outlines, malignant: MalignantClasses) -> tuple[Outlines, Doubts]:
    """Keep the regions of malignant classes, and return the doubts about this choice.

    Raises:
        FileRejected: It is unknown which regions are malignant, or none is.
    """
    names = {shape.name for shape in outlines.shapes} | {mask.name for mask in outlines.masks}
    if outlines.by_value:
        chosen = choose_values(names, malignant.values)
    else:
        chosen = choose_classes(names, outlines.declared, malignant.classes)
    kept = outlines._replace(
        shapes=tuple(shape for shape in outlines.shapes if shape.name in chosen),
        masks=tuple(mask for mask in outlines.masks if mask.name in chosen),
    )
    guessed = not (malignant.classes or outlines.by_value) and any(map(is_unknown, chosen))
    doubts = [Doubtful(Doubt.MASK_CLASS)] if guessed else []
    doubts += [Doubtful(Doubt.MASK_BY_PROGRAM)] if outlines.by_program else []
    doubts += [Doubtful(Doubt.MASK_OF_ANOTHER)] if outlines.of_another else []
    return kept, tuple(doubts)


def _check_marked(mask: Mask, kinds: Counter[Kind], pictures: int, listed: bool) -> None:
    """Reject annotations without an outline; single points count as one unless there are boxes."""
    boxes, points = kinds["box"], kinds["point"]
    if boxes and boxes + points == kinds.total() and not pictures:
        and_points = f" and {counted(points, 'point')}" if points else ""
        regions = f"{counted(boxes, 'box', 'boxes')}{and_points}"
        raise FileRejected(Reason.EMPTY_MASK, f"{regions} and no outline")
    if not listed:
        raise FileRejected(Reason.EMPTY_MASK, "the annotation does not list the image")
    if not mask.any():
        raise FileRejected(Reason.EMPTY_MASK, "the annotation marks nothing in the image")


def _scaled(outlines: Outlines, rows: int, columns: int) -> tuple[tuple[Shape, ...], bool]:
    """Scale shapes to the image's size; return them and whether scaling was necessary."""
    if outlines.grid is None or outlines.grid == (rows, columns) or not outlines.shapes:
        return outlines.shapes, False
    raster.check_aspect(outlines.grid, rows, columns)
    height, width = outlines.grid
    shapes = (raster.scale(shape, rows / height, columns / width) for shape in outlines.shapes)
    return tuple(shapes), True


def _read(annotation: Annotation) -> Outlines:
    """Read an annotation with the reader for its suffix, or else for its content."""
    if annotation.path is None:
        return Outlines(annotation.shapes)
    suffix = annotation.path.suffix.lower()
    data = read_bytes(annotation.path, TEXT_LIMIT if suffix in TEXT else BINARY_LIMIT)
    with errors_as_unreadable():
        return (_READERS.get(suffix) or _installed(suffix) or _reader_for(data))(
            data, TargetImage(annotation.image_name, annotation.instance)
        )


def _installed(suffix: str) -> Reader | None:
    """Return the installed reader whose entry point is named after a suffix without its dot."""
    entry = find_entry(Group.ANNOTATIONS, suffix.removeprefix("."), (), DataError)
    return None if entry is None else load_plugin(Group.ANNOTATIONS, entry, DataError)


def _reader_for(data: bytes) -> Reader:
    """Choose a reader by the file's content."""
    if data[128:132] == b"DICM":  # PS3.10 7.1
        return dicom_file.read
    if is_picture(data):
        return _by_name(masks.read)
    head = data[:SNIFFED_BYTES].decode(encoding_of(data), errors="ignore").lstrip("\ufeff\t\r\n ")
    if head.startswith("<"):
        return _by_name(inbreast.read)
    if head.startswith("{"):
        return _by_name(_read_json)
    if via.is_csv(head):
        return _by_name(via.read_csv)
    raise unreadable("an annotation of unknown format")


def _by_name(read: Callable[[bytes, str], Outlines]) -> Reader:
    """Adapt a reader of a format that identifies images by file name only."""
    return lambda data, image: read(data, image.name)


def _read_json(data: bytes, image_name: str) -> Outlines:
    # RFC 8259 8.1 requires UTF-8 without a byte order mark; the json module also detects UTF-16 and
    # UTF-32 by their zero bytes.
    has_mark = encoding_of(data) != "utf-8"
    document = json.loads(text_of(data) if has_mark or b"\0" not in data[:4] else data)
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
