"""Draw outlines into masks, and resample masks to the image's size.

A pixel belongs to an outline if its centre lies inside. OpenCV's ``fillPoly`` also fills every
pixel that the edge touches: 49 % too many for a disk with a radius of 3 pixels, 13 % for 8.
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
"""Coordinates are clipped to this many pixels, so that they can be converted to integers."""
GAP = 0.25
"""A line outlines an area if its ends are at most this fraction of its length apart."""
ASPECT_TOLERANCE = 0.01


def draw(shapes: Sequence[Shape], rows: int, columns: int) -> Mask:
    """Draw outlines into a single mask ``(rows, columns)`` bool.

    Boxes are not drawn, and parts outside the image are clipped. An outline too small or thin to
    contain a pixel's centre marks the pixels along its edge.

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
    """Scale a shape about the image's top left corner, half a pixel from the first centre."""
    points = tuple(
        ((x + 0.5) * column_factor - 0.5, (y + 0.5) * row_factor - 0.5) for x, y in shape.points
    )
    radii = (shape.radii[0] * column_factor, shape.radii[1] * row_factor) if shape.radii else ()
    return replace(shape, points=points, radii=radii)


def check_aspect(grid: tuple[int, int], rows: int, columns: int) -> None:
    """Check that a grid's aspect ratio is within 1 % of the image's.

    Raises:
        FileRejected: The aspect ratio differs, or the grid is empty or too large.
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
        FileRejected: The aspect ratios differ by more than 1 %.
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
    """Fill a line that roughly returns to its start; draw any other line one pixel wide."""
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
    """Return a shape's points as ``(N, 2)``, x and y."""
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
    """Crop the mask to the pixels whose centres lie within the points' extent.

    Returns:
        Top row, left column, and the cropped view of the mask.
    """
    left, top = np.ceil(points.min(axis=0)).clip(0, mask.shape[::-1]).astype(int)
    right, bottom = np.floor(points.max(axis=0) + 1).clip((left, top), mask.shape[::-1]).astype(int)
    return int(top), int(left), mask[top:bottom, left:right]


def _fill(points: Points, mask: Mask) -> bool:
    """Mark the pixels whose centres an outline winds around, in either direction.

    A centre on a left or top edge is inside and one on a right or bottom edge outside, so that
    outlines with a common edge share no pixel.

    Returns:
        Whether any pixel was marked.
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
    """Draw a line one pixel wide: one pixel per step along the longer axis of each segment."""
    _dot(points, mask)
    for start, end in pairwise(points):
        axis = int(np.argmax(np.abs(end - start)))
        low, high = sorted((start[axis], end[axis]))
        last = mask.shape[1 - axis] - 1
        steps = np.arange(max(math.ceil(low), 0), min(math.floor(high), last) + 1)
        slope = (end - start)[1 - axis] / ((end - start)[axis] or 1)
        positions = np.empty((len(steps), 2))
        positions[:, axis] = steps
        positions[:, 1 - axis] = start[1 - axis] + (steps - start[axis]) * slope
        _dot(positions, mask)


def _dot(points: Points, mask: Mask) -> None:
    """Mark the pixels in the image that contain the points ``(N, 2)``."""
    x, y = np.floor(points + 0.5).astype(int).T
    inside = (x >= 0) & (x < mask.shape[1]) & (y >= 0) & (y < mask.shape[0])
    mask[y[inside], x[inside]] = True
