"""Files of the VGG Image Annotator (VIA 1 and 2), JSON and CSV -> outlines."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from mamfed_client.annotations.outlines import (
    Outlines,
    find_name,
    read_bytes,
    text_of,
    unreadable,
)
from mamfed_client.annotations.shapes import Shape
from mamfed_client.tables.csv_table import dialect
from mamfed_common.runtime.text import encoding_of

TEXT_LIMIT = 64 << 20
LONGEST_CELL = 16 << 20
NAME_COLUMNS = ("#filename", "filename")
SHAPE_COLUMN = "region_shape_attributes"
CLASS_COLUMN = "region_attributes"


class Table(NamedTuple):
    """A whole VIA table.

    Attributes:
        shapes: File name as written -> its outlines; none where the image has no region.
        bad: File names with a row that is not understood, and left out.
    """

    shapes: dict[str, tuple[Shape, ...]]
    bad: frozenset[str]


class _Row(NamedTuple):
    """Cells of one region as written."""

    image: str
    shape: str
    attributes: str


def table_shapes(path: Path) -> Table:
    """Read a VIA table for all its images at once.

    Raises:
        FileRejected: The file cannot be read or is no VIA table.
    """
    shapes: dict[str, tuple[Shape, ...]] = {}
    bad: set[str] = set()
    for row in _rows(read_bytes(path, TEXT_LIMIT)):
        try:
            found = _cell_shapes(row)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
            bad.add(row.image)
            continue
        shapes[row.image] = shapes.get(row.image, ()) + found
    return Table(shapes, frozenset(bad))


def read_csv(data: bytes, image_name: str) -> Outlines:
    """Read one image's rows of a VIA table.

    Raises:
        FileRejected: It is no VIA table, or a row of the image is not understood.
    """
    rows = list(_rows(data))
    wanted = find_name((row.image for row in rows), image_name)
    found = [shape for row in rows if row.image == wanted for shape in _cell_shapes(row)]
    declared = frozenset(_row_class(row) for row in rows if row.shape not in ("", "{}"))
    return Outlines(tuple(found), listed=wanted is not None, declared=declared)


def is_csv(start: str) -> bool:
    """Tell a VIA table by its beginning."""
    delimiter, _, text = dialect(start)
    return text.partition(delimiter)[0].strip('"') in NAME_COLUMNS


def read_json(document: Any, image_name: str) -> Outlines:
    """Take one image's regions of a VIA project or of an export of its annotations.

    Raises:
        FileRejected: It is neither of them.
    """
    entries = _entries(document)
    wanted = find_name((entry["filename"] for entry in entries), image_name)
    found = [region for entry in entries if entry["filename"] == wanted for region in _of(entry)]
    shapes = tuple(_shape(region["shape_attributes"], _region_class(region)) for region in found)
    declared = frozenset(_region_class(region) for entry in entries for region in _of(entry))
    return Outlines(shapes, listed=wanted is not None, declared=declared)


def _rows(data: bytes) -> list[_Row]:
    """Take the file name, and shape and attributes as JSON, of each row."""
    delimiter, _, text = dialect(_text(data))
    former = csv.field_size_limit(LONGEST_CELL)
    try:
        reader = csv.DictReader(StringIO(text, newline=""), delimiter=delimiter)
        header = reader.fieldnames or ()
        name_column = next((name for name in NAME_COLUMNS if name in header), None)
        if name_column is None or SHAPE_COLUMN not in header:
            raise unreadable("a table without VIA's columns filename and region_shape_attributes")
        columns = (name_column, SHAPE_COLUMN, CLASS_COLUMN)
        return [_Row(*(row.get(column) or "" for column in columns)) for row in reader]
    except csv.Error:
        raise unreadable("not a CSV table") from None
    finally:
        csv.field_size_limit(former)


def _text(data: bytes) -> str:
    """Decode a table; only three columns count, so a byte that is not UTF-8 costs no row."""
    if encoding_of(data).startswith("utf-8") and b"\0" not in data:
        return data.decode(errors="replace").lstrip("\ufeff")
    return text_of(data)


def _entries(document: Any) -> list[Any]:
    images = document.get("_via_img_metadata", document) if isinstance(document, dict) else None
    entries = list(images.values()) if isinstance(images, dict) else []
    if not entries or not all(isinstance(e, dict) and "filename" in e for e in entries):
        raise unreadable("JSON that is neither a VIA nor a COCO file")
    return entries


def _of(entry: dict[str, Any]) -> list[Any]:
    """List an entry's regions: VIA 1 numbers them in an object, VIA 2 has a list."""
    regions = entry.get("regions") or []
    return list(regions.values()) if isinstance(regions, dict) else regions


def _cell_shapes(row: _Row) -> tuple[Shape, ...]:
    """Read a row's shape; ``{}`` stands for an image without a region."""
    attributes = json.loads(row.shape)
    return (_shape(attributes, _row_class(row)),) if attributes else ()


def _row_class(row: _Row) -> str:
    try:
        return _class(json.loads(row.attributes or "{}"))
    except (ValueError, RecursionError):
        return row.attributes


def _region_class(region: Any) -> str:
    return _class(region.get("region_attributes") or {})


def _class(attributes: Any) -> str:
    """Join what a region's attributes say: texts, the names of ticked boxes and of what is yes."""
    if not isinstance(attributes, dict):
        return str(attributes)
    words = (_attribute(str(key), value) for key, value in attributes.items())
    return " ".join(word for word in words if word)


def _attribute(key: str, value: Any) -> str:
    if isinstance(value, dict):  # tick boxes: option -> whether it is ticked
        return " ".join(str(option) for option, ticked in value.items() if ticked)
    word = str(value).strip()
    if word.casefold() in ("yes", "true", "1"):
        return key
    if word.casefold() in ("", "no", "false", "0", "none", "unknown"):
        return ""
    return f"{key} {word}" if "rads" in key.casefold() else word


def _shape(attributes: Any, name: str) -> Shape:
    return replace(_unnamed(attributes), name=name)


def _unnamed(attributes: Any) -> Shape:
    kind = attributes["name"]
    if kind in ("polygon", "polyline"):
        x, y = (_numbers(attributes[key]) for key in ("all_points_x", "all_points_y"))
        return Shape(kind, tuple(zip(x, y, strict=True)))
    if kind == "rect":
        left, top, width, height = _values(attributes, "x", "y", "width", "height")
        return Shape("box", ((left, top), (left + width, top + height)))
    centre = _values(attributes, "cx", "cy")
    if kind == "point":
        return Shape("point", (centre,))
    if kind == "circle":
        return Shape("circle", (centre,), _values(attributes, "r", "r"))
    if kind == "ellipse":
        # Radians from x towards y, as the canvas turns; VIA 1 does not turn ellipses.
        angle = float(attributes.get("theta") or 0)
        return Shape("ellipse", (centre,), _values(attributes, "rx", "ry"), angle)
    raise ValueError("unknown kind of shape")


def _values(attributes: Any, *keys: str) -> Any:
    """Take numbers as a tuple as long as the keys."""
    return _numbers(attributes[key] for key in keys)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
