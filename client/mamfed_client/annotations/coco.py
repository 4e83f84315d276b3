"""Read outlines from COCO files (instance segmentation, JSON)."""

from __future__ import annotations

from typing import Any

import numpy as np

from mamfed_client.annotations.classes import ClassMeaning, kind_of
from mamfed_client.annotations.outlines import NamedMask, Outlines, find_name, unreadable
from mamfed_client.annotations.shapes import Shape
from mamfed_client.imaging.mammogram import MAX_PIXELS, Mask

POINT_OFFSET = 0.5
"""In COCO, (0, 0) is the corner of the first pixel; here it is the centre."""


def is_coco(document: Any) -> bool:
    """Return whether a JSON document has the keys of a COCO file."""
    return isinstance(document, dict) and {"images", "annotations"} <= document.keys()


def read(document: Any, image_name: str) -> Outlines:
    """Read an image's polygons, run-length masks and boxes, named by their categories.

    Crowds (``iscrowd``) are treated like any other region. A box is used only if there is no
    segmentation.

    Raises:
        FileRejected: Several entries match the image, or one of its outlines cannot be parsed.
    """
    images = document["images"]
    wanted = find_name((image["file_name"] for image in images), image_name)
    if wanted is None:
        return Outlines(listed=False)
    entries = [image for image in images if image["file_name"] == wanted]
    if len(entries) > 1:
        raise unreadable(f"{len(entries)} entries match the image; expected one")
    regions = [a for a in document["annotations"] if a["image_id"] == entries[0]["id"]]
    named = [(a, _category(a, document)) for a in regions]
    shapes = tuple(shape for a, name in named for shape in _shapes(a, name))
    runs = [(a["segmentation"], name) for a, name in named if _is_runs(a.get("segmentation"))]
    masks = tuple(NamedMask(_runs_mask(segmentation), name) for segmentation, name in runs)
    declared = frozenset(_category(a, document) for a in document["annotations"])
    return Outlines(shapes, masks, _grid(entries[0]), declared=declared)


def _category(annotation: dict[str, Any], document: Any) -> str:
    """Return a region's class, preceded by its supercategory if only that is meaningful."""
    wanted = annotation.get("category_id")
    entries = [c for c in document.get("categories") or () if c.get("id") == wanted]
    if wanted is None or not entries:
        return "" if wanted is None else str(wanted)
    name, above = (str(entries[0].get(key) or "") for key in ("name", "supercategory"))
    vague = kind_of(name) in (ClassMeaning.UNKNOWN, ClassMeaning.PLAIN)
    helps = kind_of(above) not in (ClassMeaning.UNKNOWN, ClassMeaning.PLAIN)
    return f"{above} {name}" if vague and helps else name


def _grid(image: dict[str, Any]) -> tuple[int, int] | None:
    if "height" not in image or "width" not in image:
        return None
    return int(image["height"]), int(image["width"])


def _is_runs(segmentation: Any) -> bool:
    return isinstance(segmentation, dict)


def _shapes(annotation: dict[str, Any], name: str) -> tuple[Shape, ...]:
    segmentation = annotation.get("segmentation")
    if _is_runs(segmentation):
        return ()
    if segmentation:
        return tuple(Shape("polygon", _pairs(polygon), name=name) for polygon in segmentation)
    x, y, width, height = annotation["bbox"]
    return (Shape("box", _pairs((x, y, x + width, y + height)), name=name),)


def _pairs(flat: Any) -> tuple[tuple[float, float], ...]:
    """Pair x and y, with the origin moved to the centre of the first pixel."""
    numbers = [float(number) - POINT_OFFSET for number in flat]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _runs_mask(segmentation: dict[str, Any]) -> Mask:
    """Decode run lengths, alternately unmarked and marked, column by column.

    Raises:
        FileRejected: The run lengths do not match the declared size, or it is too large.
    """
    height, width = (int(side) for side in segmentation["size"])
    counts = segmentation["counts"]
    runs = _unpacked(counts) if isinstance(counts, str) else [int(count) for count in counts]
    total = height * width
    if min(height, width) < 1 or total > MAX_PIXELS:
        raise unreadable(f"a mask of {width} x {height} pixels")
    if min(runs, default=-1) < 0 or sum(runs) != total:
        raise unreadable(f"run lengths that do not fill {width} x {height} pixels")
    marked = np.arange(len(runs)) % 2 == 1
    mask: Mask = np.repeat(marked, runs).reshape(width, height).T
    return mask


def _unpacked(text: str) -> list[int]:
    """Unpack run lengths from COCO's compressed text.

    Each character minus 48 holds five bits, the lowest first, and a sixth that says whether more
    follow; the last of the five is the sign. From the fourth run on, values are differences from
    the run two before (``rleToString`` in cocoapi's ``maskApi.c``).
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise unreadable("compressed run lengths with an invalid character")
        if shift > 60:
            raise unreadable("a compressed run length that is too long")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise unreadable("truncated compressed run lengths")
    return runs
