"""Outlines -> masks, and masks of another size -> the image's pixels.

A pixel belongs to an outline if its centre lies inside. OpenCV's ``fillPoly`` also takes every
pixel that the edge touches: 49 % too much for a disk of 3 pixels' radius, 13 % for one of 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.annotations.outlines import unreadable
from mamfed_client.annotations.shapes import Kind, Shape
from mamfed_client.imaging.mammogram import MAX_PIXELS, Mask
from mamfed_client.imaging.rejections import FileRejected, Reason

Points = npt.NDArray[np.float64]

FAR = 1e9
"""Coordinates are clipped to this many pixels, where they still convert to integers."""
GAP = 0.25
"""A line whose ends are at most this part of its length apart outlines an area."""
ASPECT_TOLERANCE = 0.01


def draw(shapes: Sequence[Shape], rows: int, columns: int) -> Mask:
    """Unite outlines into one mask ``(rows, columns)`` bool.

    Boxes are left out. What lies outside is cut off. An outline inside the image that is too small
    or thin to hold a pixel's centre marks the pixels that its edge passes.

    Raises:
        FileRejected: A shape has no points, a wrong number of radii, or a value that is not finite.
    """
    mask: Mask = np.zeros((rows, columns), dtype=np.bool_)
    for shape in shapes:
        draw_kind = _DRAW.get(shape.kind)
        if draw_kind is None:
            raise unreadable("a shape of an unknown kind")
        draw_kind(shape, mask)
    return mask


def scale(shape: Shape, row_factor: float, column_factor: float) -> Shape:
    """Stretch a shape about the image's top left corner, half a pixel off the first centre."""
    points = tuple(
        ((x + 0.5) * column_factor - 0.5, (y + 0.5) * row_factor - 0.5) for x, y in shape.points
    )
    radii = (shape.radii[0] * column_factor, shape.radii[1] * row_factor) if shape.radii else ()
    return replace(shape, points=points, radii=radii)


def check_aspect(grid: tuple[int, int], rows: int, columns: int) -> None:
    """Refuse a grid whose aspect is more than 1 % off the image's.

    Raises:
        FileRejected: It is off, empty or too large.
    """
    height, width = grid
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise unreadable(f"a mask of {width} x {height} pixels")
    if abs(height * columns / (width * rows) - 1) > ASPECT_TOLERANCE:
        raise FileRejected(Reason.MASK_SIZE, f"mask {width} x {height}, image {columns} x {rows}")


def fit(mask: Mask, rows: int, columns: int) -> Mask:
    """Resample a mask ``(H, W)`` to ``(rows, columns)``: true where at least half is marked.

    A finding too small for that marks every pixel it touches.

    Raises:
        FileRejected: The aspects differ by more than 1 %.
    """
    height, width = mask.shape
    if (height, width) == (rows, columns):
        return mask
    check_aspect((height, width), rows, columns)
    share = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    fitted: Mask = share >= 0.5
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    y, x = np.nonzero(mask)
    fitted_y, fitted_x = y * rows // height, x * columns // width
    finding = labels[y, x]
    kept = np.zeros(count, dtype=np.bool_)
    kept[finding[fitted[fitted_y, fitted_x]]] = True
    lost = ~kept[finding]
    fitted[fitted_y[lost], fitted_x[lost]] = True
    return fitted


def _draw_polygon(shape: Shape, mask: Mask) -> None:
    points = _points(shape)
    if not _fill(points, mask):
        _trace(np.vstack([points, points[:1]]), mask)


def _draw_polyline(shape: Shape, mask: Mask) -> None:
    """Fill a line that comes back to where it began, roughly; draw another one pixel wide."""
    points = _points(shape)
    length = np.hypot(*np.diff(points, axis=0).T).sum()
    gap = math.dist(points[0], points[-1])
    if gap <= GAP * length:
        _draw_polygon(shape, mask)
    else:
        _trace(points, mask)


def _draw_ellipse(shape: Shape, mask: Mask) -> None:
    """Mark the pixels whose centre (x, y) has |(along, across)| <= 1 in units of the radii."""
    centre = _points(shape)
    first, second = _radii(shape)
    cosine, sine = math.cos(shape.angle), math.sin(shape.angle)
    reach = (math.hypot(first * cosine, second * sine), math.hypot(first * sine, second * cosine))
    top, left, part = _part(np.vstack([centre - reach, centre + reach]), mask)
    x = np.arange(left, left + part.shape[1]) - centre[0, 0]
    y = (np.arange(top, top + part.shape[0]) - centre[0, 1])[:, None]
    along = x * (cosine / first) + y * (sine / first)
    across = y * (cosine / second) - x * (sine / second)
    inside = np.hypot(along, across, out=along) <= 1 + 1e-9
    part |= inside
    if not inside.any():
        _dot(centre, mask)


def _draw_point(shape: Shape, mask: Mask) -> None:
    _dot(_points(shape), mask)


def _draw_nothing(shape: Shape, mask: Mask) -> None:
    _points(shape)


_DRAW: dict[Kind, Callable[[Shape, Mask], None]] = {
    "polygon": _draw_polygon,
    "polyline": _draw_polyline,
    "ellipse": _draw_ellipse,
    "circle": _draw_ellipse,
    "point": _draw_point,
    "box": _draw_nothing,
}


def _points(shape: Shape) -> Points:
    """Take a shape's points as ``(N, 2)``, x and y."""
    points = np.asarray(shape.points, dtype=np.float64).reshape(-1, 2)
    if not len(points) or not np.isfinite([*points.ravel(), *shape.radii, shape.angle]).all():
        raise unreadable(f"a {shape.kind} without points or with a value that is not finite")
    return np.clip(points, -FAR, FAR)


def _radii(shape: Shape) -> tuple[float, float]:
    if len(shape.radii) != 2 or min(shape.radii) < 0:
        raise unreadable(f"a {shape.kind} needs two radii, not negative")
    first, second = np.clip(shape.radii, 1e-6, FAR)
    return first, second


def _part(points: Points, mask: Mask) -> tuple[int, int, Mask]:
    """Cut out the rows and columns whose pixel centres lie within the points' extent.

    Returns:
        Top row, left column, and the view of the mask from there on.
    """
    left, top = np.ceil(points.min(axis=0)).clip(0, mask.shape[::-1]).astype(int)
    right, bottom = np.floor(points.max(axis=0) + 1).clip((left, top), mask.shape[::-1]).astype(int)
    return int(top), int(left), mask[top:bottom, left:right]


def _fill(points: Points, mask: Mask) -> bool:
    """Mark the pixel centres that an outline winds around, in either sense.

    Of centres on the edge those to its right and below belong to the outline, so that outlines
    that share an edge share no pixel.

    Returns:
        Whether it winds around any.
    """
    top, left, part = _part(points, mask)
    height, width = part.shape
    start, end = points, np.roll(points, -1, axis=0)
    upper, lower = np.where((start[:, 1] <= end[:, 1])[:, None], [start, end], [end, start])
    first = np.ceil(upper[:, 1]).clip(top, top + height).astype(int)
    counts = np.ceil(lower[:, 1]).clip(top, top + height).astype(int) - first
    if counts.sum() > MAX_PIXELS:
        raise unreadable("an outline that crosses more rows than can be filled")
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (lower - upper)[edge, 0] / (lower - upper)[edge, 1]
    crossing = upper[edge, 0] + (row - upper[edge, 1]) * slope
    column = np.ceil(crossing).clip(left, left + width).astype(int)
    turns: npt.NDArray[Any] = np.zeros((height, width + 1), dtype=np.int32)
    sense = np.where(start[:, 1] <= end[:, 1], 1, -1).astype(np.int32)
    np.add.at(turns, (row - top, column - left), sense[edge])
    inside = np.cumsum(turns, axis=1, out=turns)[:, :-1] != 0
    part |= inside
    return bool(inside.any())


def _trace(points: Points, mask: Mask) -> None:
    """Draw a line one pixel wide: a pixel for each step along the longer axis of a piece."""
    _dot(points, mask)
    for start, end in pairwise(points):
        axis = int(np.argmax(np.abs(end - start)))
        low, high = sorted((start[axis], end[axis]))
        last = mask.shape[1 - axis] - 1
        steps = np.arange(max(math.ceil(low), 0), min(math.floor(high), last) + 1)
        slope = (end - start)[1 - axis] / ((end - start)[axis] or 1)
        places = np.empty((len(steps), 2))
        places[:, axis] = steps
        places[:, 1 - axis] = start[1 - axis] + (steps - start[axis]) * slope
        _dot(places, mask)


def _dot(points: Points, mask: Mask) -> None:
    """Mark the pixels that points ``(N, 2)`` lie in, those within the image."""
    x, y = np.floor(points + 0.5).astype(int).T
    inside = (x >= 0) & (x < mask.shape[1]) & (y >= 0) & (y < mask.shape[0])
    mask[y[inside], x[inside]] = True
