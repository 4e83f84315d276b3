"""Outlines of findings in the pixels of their image, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mamfed_client.annotations.classes import MalignantClasses

Kind = Literal["polygon", "ellipse", "circle", "polyline", "point", "box"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One outline.

    Coordinates are x to the right and y down in image pixels; the centre of the first pixel is at
    (0, 0). Sub-pixel and outside positions are allowed.

    Attributes:
        kind: What it is. A box says that a finding is somewhere inside, not where: it is never
            drawn into a mask.
        points: Vertices of a polygon or polyline, the place of a point, two opposite corners of a
            box, the centre of a circle or an ellipse.
        radii: Of a circle (the same twice) or an ellipse, along its own axes; else empty.
        angle: Of an ellipse's first axis against x, in radians, turning from x towards y.
        name: Its class as the file names it; empty without.
    """

    kind: Kind
    points: tuple[tuple[float, float], ...]
    radii: tuple[float, float] | tuple[()] = ()
    angle: float = 0.0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What outlines a finding: a file, or shapes that a data set's table held.

    Attributes:
        path: The file, if it is one; what it is follows from its content and suffix.
        image_name: File name of the image, by which a file for many images lists it.
        shapes: The outlines where ``path`` is None.
        instance: SOP Instance UID of the image, where its file has one; never kept or shown.
        take: What the site says is malignant of it, where the file does not.
    """

    path: Path | None = None
    image_name: str = ""
    shapes: tuple[Shape, ...] = ()
    take: MalignantClasses = field(default_factory=MalignantClasses)
    instance: str = field(default="", repr=False)
