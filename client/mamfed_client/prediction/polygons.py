"""Marked regions as closed polygons along the edges of their pixels.

Coordinates are columns and rows from the upper left corner of the first pixel, as in graphics of
structured reports (PS3.3 C.18.6.1.2) and presentation states (PS3.3 C.10.5.1.2).
"""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull

from mamfed_client.imaging.mammogram import Mask

Points = npt.NDArray[np.float64]
Step = tuple[int, int]

MOST_POINTS = 4000
"""Maximum points of a polygon. An explicit VR of FL has room for 8,191 (PS3.5 7.1.2), and viewers
draw handles on them."""
FIRST_TOLERANCE = 0.5
"""Half a pixel: the steps of a slanting edge become a line."""


def polygon_of(region: Mask, corner: tuple[int, int]) -> Points:
    """Return a region's outline, ``(N, 2)`` columns and rows; the last point is the first.

    Holes are reached by a line there and back, so that the polygon's area is the region's. An
    outline of more than :data:`MOST_POINTS` is simplified, and its smallest holes are filled.

    Args:
        region: ``(h, w)`` bool, one 8-connected region.
        corner: Row and column of its first pixel in the image.
    """
    exact = sorted((_corners(loop) for loop in _loops(region)), key=_area, reverse=True)
    loops, tolerance = exact, FIRST_TOLERANCE
    while sum(map(len, loops)) + 2 * len(loops) > MOST_POINTS:
        loops = [_simplified(exact[0], tolerance)]
        loops += [_simplified(x, tolerance) for x in exact[1:] if _area(x) > 8 * tolerance**2]
        tolerance *= 1.5
    outline = np.vstack([loops[0], loops[0][:1]])
    for hole in loops[1:]:
        outline = _with_hole(outline, hole)
    return outline + np.array(corner[::-1], np.float64)


def longest_diameter(polygon: Points) -> float:
    """Return the largest distance between two points of a polygon, in pixels."""
    hull = polygon[ConvexHull(polygon).vertices]
    return float(np.hypot(*(hull[:, None] - hull).T).max())


def area_of(polygon: Points) -> float:
    """Return the area of a closed polygon in pixels; overlapping lines there and back have none."""
    x, y = polygon.T
    return float(abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2)


def _loops(region: Mask) -> list[list[Step]]:
    """Follow the edges between marked and other pixels, with the marked pixels on the right.

    Where two marked pixels meet at a corner only, the way goes on to the other pixel, so that an
    8-connected region has one outer loop.
    """
    edges = _edges(np.pad(region, 1))
    loops = []
    while edges:
        start = min(edges)
        loop: list[Step] = []
        (x, y), (dx, dy) = start, edges[start][0]
        while (x, y) != start or not loop or start in edges:
            ways = edges.get((x, y))
            if ways is None:
                break
            left = (dy, -dx)
            way = left if left in ways and loop else ways[0]
            ways.remove(way)
            if not ways:
                del edges[x, y]
            loop.append((x, y))
            dx, dy = way
            x, y = x + dx, y + dy
        loops.append(loop)
    return loops


def _edges(padded: Mask) -> dict[Step, list[Step]]:
    """Return the steps that lead away from each point of the pixels' grid."""
    edges: defaultdict[Step, list[Step]] = defaultdict(list)
    below = padded[1:, 1:-1] & ~padded[:-1, 1:-1]
    above = padded[:-1, 1:-1] & ~padded[1:, 1:-1]
    right = padded[1:-1, 1:] & ~padded[1:-1, :-1]
    left = padded[1:-1, :-1] & ~padded[1:-1, 1:]
    for flags, (dx, dy), (off_x, off_y) in (
        (below, (1, 0), (0, 0)),
        (above, (-1, 0), (1, 0)),
        (right, (0, -1), (0, 1)),
        (left, (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(flags).tolist():
            edges[x + off_x, y + off_y].append((dx, dy))
    return dict(edges)


def _corners(loop: list[Step]) -> Points:
    """Return the points at which a loop turns."""
    points = np.asarray(loop, dtype=np.float64)
    ahead, behind = np.roll(points, -1, axis=0) - points, points - np.roll(points, 1, axis=0)
    turns: Points = points[(ahead != behind).any(axis=1)]
    return turns


def _area(loop: Points) -> float:
    return area_of(np.vstack([loop, loop[:1]]))


def _simplified(loop: Points, tolerance: float) -> Points:
    """Leave out points that are at most ``tolerance`` pixels off the line, but keep three."""
    found = cv2.approxPolyDP(loop.astype(np.float32)[:, None], tolerance, closed=True)[:, 0]
    simple: Points = found.astype(np.float64)
    return simple if len(simple) >= 3 else loop[:: max(1, len(loop) // 3)]


def _with_hole(outline: Points, hole: Points) -> Points:
    """Insert a hole at the nearest pair of points, by a line there and back."""
    distances = np.hypot(*(outline[:, None] - hole).transpose(2, 0, 1))
    at, first = np.unravel_index(distances.argmin(), distances.shape)
    turned = np.roll(hole, -int(first), axis=0)
    return np.vstack([outline[: at + 1], turned, turned[:1], outline[at:]])
