"""INbreast's XML files, Apple property lists as OsiriX exports them -> outlines."""

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
    """Read every region of the file's first image; its ``Name`` is its class.

    Masses, calcifications, clusters, distortions, asymmetries and spiculated regions stand side by
    side in one file. x and y of ``Point_px`` count from the top left. Regions of one or two points
    are single calcifications: each point marks its pixel.

    Raises:
        FileRejected: It is no such list, or a point is not understood.
    """
    try:
        # plistlib refuses entity declarations, so that none can blow up
        document = plistlib.loads(_unmarked(data), fmt=plistlib.FMT_XML)
    except MemoryError:
        raise
    except Exception:  # expat's errors and whatever plistlib trips over
        raise unreadable("not an Apple property list") from None
    try:
        regions = document["Images"][0]["ROIs"]
    except (KeyError, IndexError, TypeError):
        raise unreadable("a property list without Images[0].ROIs") from None
    return Outlines(shapes=tuple(shape for region in regions for shape in _shapes(region)))


def _unmarked(data: bytes) -> bytes:
    """Bring what an editor saved with a mark to UTF-8: the mark decides, whatever XML declares."""
    if encoding_of(data) == "utf-8":
        return data  # expat knows by the declaration
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
