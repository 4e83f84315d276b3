"""Outlines of findings in image pixels, and the annotations that hold them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mamfed_client.annotations.classes import MalignantClasses

Kind = Literal["polygon", "ellipse", "circle", "polyline", "point", "box"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A single outline.

    Coordinates are in image pixels, x to the right and y down; the centre of the first pixel is at
    (0, 0). Sub-pixel positions and positions outside the image are allowed.

    Attributes:
        kind: The kind of outline. A box only shows roughly where a finding is, so it is never drawn
            into a mask.
        points: Vertices of a polygon or polyline, position of a point, two opposite corners of a
            box, or centre of a circle or ellipse.
        radii: Radii of a circle (the same twice) or of an ellipse along its own axes; else empty.
        angle: Angle from x to an ellipse's first axis, in radians, positive from x towards y.
        name: Its class as named in the file; empty if there is none.
    """

    kind: Kind
    points: tuple[tuple[float, float], ...]
    radii: tuple[float, float] | tuple[()] = ()
    angle: float = 0.0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Annotation:
    """A file with the outlines of findings, or shapes taken from a data set's table.

    Attributes:
        path: The file, if any; its format follows from its suffix or content.
        image_name: File name of the image, to find it in a file that covers several images.
        shapes: The outlines, if ``path`` is None.
        malignant: The classes that the site declares malignant, if the file does not.
        instance: SOP Instance UID of the image, if its file has one; never stored or shown.
    """

    path: Path | None = None
    image_name: str = ""
    shapes: tuple[Shape, ...] = ()
    malignant: MalignantClasses = field(default_factory=MalignantClasses)
    instance: str = field(default="", repr=False)
