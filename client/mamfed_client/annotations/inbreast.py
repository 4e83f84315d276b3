"""Read outlines from INbreast's XML files: Apple property lists exported by OsiriX."""

from __future__ import annotations

import plistlib
import re
from typing import Any

from mamfed_client.annotations.outlines import Outlines, text_of, unreadable
from mamfed_client.annotations.shapes import Shape
from mamfed_common.runtime.text import encoding_of

DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
NUMBER = r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*"
POINT = re.compile(rf"\s*\({NUMBER},{NUMBER}\)\s*")


def read(data: bytes, image_name: str = "") -> Outlines:
    """Read every region of the file's first image; ``Name`` is its class.

    A file may mix masses, calcifications, clusters, distortions, asymmetries and spiculated
    regions. x and y of ``Point_px`` count from the top left. Regions of one or two points are
    single calcifications: each point marks its pixel.

    Raises:
        FileRejected: The file is not such a list, or a point cannot be parsed.
    """
    try:
        # plistlib rejects entity declarations, so entity expansion attacks are impossible.
        document = plistlib.loads(_without_mark(data), fmt=plistlib.FMT_XML)
    except MemoryError:
        raise
    except Exception:  # expat's errors, and any other exception from plistlib
        raise unreadable("not an Apple property list") from None
    try:
        regions = document["Images"][0]["ROIs"]
    except (KeyError, IndexError, TypeError):
        raise unreadable("a property list without Images[0].ROIs") from None
    return Outlines(shapes=tuple(shape for region in regions for shape in _shapes(region)))


def _without_mark(data: bytes) -> bytes:
    """Convert a file with a byte order mark to UTF-8; the mark overrides the XML declaration."""
    if encoding_of(data) == "utf-8":
        return data  # expat honours the declaration
    return DECLARATION.sub("", text_of(data), count=1).encode()


def _shapes(region: dict[str, Any]) -> tuple[Shape, ...]:
    points = tuple(_point(text) for text in region["Point_px"])
    name = str(region.get("Name") or "")
    if len(points) < 3:
        return tuple(Shape("point", (point,), name=name) for point in points)
    return (Shape("polygon", points, name=name),)


def _point(text: str) -> tuple[float, float]:
    match = POINT.fullmatch(text)
    if match is None:
        raise unreadable("a point that is not written (x, y)")
    return float(match[1]), float(match[2])
