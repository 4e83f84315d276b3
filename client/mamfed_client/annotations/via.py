"""Read outlines from files of the VGG Image Annotator (VIA 1 and 2), JSON or CSV."""

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
    """The outlines of all images in a VIA table.

    Attributes:
        shapes: Mapping from file name as written to its outlines; empty if it has no region.
        bad: File names with a row that could not be parsed and was skipped.
    """

    shapes: dict[str, tuple[Shape, ...]]
    bad: frozenset[str]


class _Row(NamedTuple):
    """The cells of a region as written."""

    image: str
    shape: str
    attributes: str


def table_shapes(path: Path) -> Table:
    """Read the outlines of all images in a VIA table.

    Raises:
        FileRejected: The file cannot be read or is not a VIA table.
    """
    shapes: dict[str, tuple[Shape, ...]] = {}
    bad: set[str] = set()
    for row in _rows(read_bytes(path, TEXT_LIMIT)):
        try:
            row_shapes = _cell_shapes(row)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
            bad.add(row.image)
            continue
        shapes[row.image] = shapes.get(row.image, ()) + row_shapes
    return Table(shapes, frozenset(bad))


def read_csv(data: bytes, image_name: str) -> Outlines:
    """Read an image's rows of a VIA table.

    Raises:
        FileRejected: The file is not a VIA table, or a row of the image cannot be parsed.
    """
    rows = list(_rows(data))
    wanted = find_name((row.image for row in rows), image_name)
    shapes = [shape for row in rows if row.image == wanted for shape in _cell_shapes(row)]
    declared = frozenset(_row_class(row) for row in rows if row.shape not in ("", "{}"))
    return Outlines(tuple(shapes), listed=wanted is not None, declared=declared)


def is_csv(head: str) -> bool:
    """Return whether a text begins like a VIA table."""
    delimiter, _, text = dialect(head)
    return text.partition(delimiter)[0].strip('"') in NAME_COLUMNS


def read_json(document: Any, image_name: str) -> Outlines:
    """Read an image's regions from a VIA project or an annotation export.

    Raises:
        FileRejected: The document is neither.
    """
    entries = _entries(document)
    wanted = find_name((entry["filename"] for entry in entries), image_name)
    regions = [r for entry in entries if entry["filename"] == wanted for r in _regions(entry)]
    shapes = tuple(_shape(region["shape_attributes"], _region_class(region)) for region in regions)
    declared = frozenset(_region_class(region) for entry in entries for region in _regions(entry))
    return Outlines(shapes, listed=wanted is not None, declared=declared)


def _rows(data: bytes) -> list[_Row]:
    """Return the file name of each row, with shape and attributes as JSON text."""
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
    """Decode a table, replacing bytes that are not UTF-8: they rarely affect the columns read."""
    if encoding_of(data).startswith("utf-8") and b"\0" not in data:
        return data.decode(errors="replace").lstrip("\ufeff")
    return text_of(data)


def _entries(document: Any) -> list[Any]:
    images = document.get("_via_img_metadata", document) if isinstance(document, dict) else None
    entries = list(images.values()) if isinstance(images, dict) else []
    if not entries or not all(isinstance(e, dict) and "filename" in e for e in entries):
        raise unreadable("JSON that is neither a VIA nor a COCO file")
    return entries


def _regions(entry: dict[str, Any]) -> list[Any]:
    """Return an entry's regions: VIA 1 numbers them in an object, VIA 2 has a list."""
    regions = entry.get("regions") or []
    return list(regions.values()) if isinstance(regions, dict) else regions


def _cell_shapes(row: _Row) -> tuple[Shape, ...]:
    """Parse a row's shape; ``{}`` means that the image has no region."""
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
    """Join a region's attributes: texts, ticked options, and names whose value is yes."""
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
        # Radians from x towards y, as on an HTML canvas; VIA 1 has no rotated ellipses.
        angle = float(attributes.get("theta") or 0)
        return Shape("ellipse", (centre,), _values(attributes, "rx", "ry"), angle)
    raise ValueError("unknown kind of shape")


def _values(attributes: Any, *keys: str) -> Any:
    """Return the numbers for the keys as a tuple."""
    return _numbers(attributes[key] for key in keys)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
