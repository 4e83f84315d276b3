"""Stage 1's corruptions (paper, section 2, "Self-supervised training").

They follow Models Genesis (Zhou et al., 2019), adapted to whole mammograms: a gamma curve replaces
the non-linear intensity curve, in-painting adds ellipses, polygons and blobs to rectangles,
out-painting stays, and local shuffling is dropped. Only pixels inside the breast change.

Images are uint16, so that a gamma curve is a single look-up table, and shapes are painted only
inside their bounding boxes. Both matter for speed at 1536 x 1536 (``docs/benchmarks.md``).
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_common.transforms.config import CorruptionConfig, Fill
from mamfed_common.transforms.sample import FULL_SCALE, Window, window_of

Grey = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]
Shape = npt.NDArray[np.uint8]
Size = tuple[int, ...]

SHAPES = ("rectangle", "ellipse", "polygon", "blob")
INPAINT_SIDE = (1 / 6, 1 / 3)
"""Side of an in-painted shape, as a fraction of the image's side (Models Genesis)."""
KEPT_SIDE = (3 / 7, 4 / 7)
"""Side of a shape that out-painting preserves; it removes 3/7 to 4/7 (Models Genesis)."""
MAX_SHAPES = 5
ANOTHER_SHAPE = 0.95
"""Probability of each further shape, up to five (Models Genesis)."""


def corrupt(
    image: Grey, breast_mask: Mask, config: CorruptionConfig, rng: np.random.Generator
) -> Grey:
    """Return a corrupted copy of one image.

    Args:
        image: ``(H, W)`` uint16, 0..65535.
        breast_mask: ``(H, W)`` bool, true inside the breast. Pixels outside never change.
        config: Probabilities of the corruptions.
        rng: Source of every random choice.
    """
    corrupted = image.copy()
    window = window_of(breast_mask)
    breast, tissue = breast_mask[window], image[window]
    if not breast.size or rng.random() < config.clean:
        return corrupted
    if rng.random() < config.gamma:
        log_gamma = rng.uniform(-config.max_log_gamma, config.max_log_gamma)
        tissue = apply_gamma(tissue, float(np.exp(log_gamma)))
    if rng.random() < config.paint:
        paint = outpaint if rng.random() < config.outpaint else inpaint
        tissue = paint(tissue, breast, image.shape, config, rng)
    cv2.copyTo(tissue, breast.view(np.uint8), corrupted[window])
    return corrupted


def apply_gamma(image: Grey, gamma: float) -> Grey:
    """Raise the intensities of a ``(H, W)`` uint16 image, 0..65535 for 0..1, to a power."""
    levels = np.linspace(0.0, 1.0, FULL_SCALE + 1, dtype=np.float32) ** np.float32(gamma)
    corrected: Grey = cv2.LUT(image, np.rint(levels * FULL_SCALE).astype(np.uint16))
    return corrected


def inpaint(
    tissue: Grey, breast: Mask, size: Size, config: CorruptionConfig, rng: np.random.Generator
) -> Grey:
    """Return a copy in which one to five shapes are painted over.

    Args:
        tissue: ``(h, w)`` uint16, the window of an image that holds its breast.
        breast: ``(h, w)`` bool, true inside the breast.
        size: Height and width of the image, of which the shapes' sides are fractions.
        config: Contents of painted pixels.
        rng: Source of every random choice.
    """
    painted = tissue.copy()
    statistics = _tissue_statistics(tissue, breast)
    for _ in range(_number_of_shapes(rng)):
        shape, window = _draw_shape(rng, breast, size, INPAINT_SIDE)
        cv2.copyTo(_filler(rng, config.fills, shape.shape, statistics), shape, painted[window])
    return painted


def outpaint(
    tissue: Grey, breast: Mask, size: Size, config: CorruptionConfig, rng: np.random.Generator
) -> Grey:
    """Return a copy painted over except for one to five shapes; arguments as :func:`inpaint`."""
    statistics = _tissue_statistics(tissue, breast)
    painted = _filler(rng, config.fills, tissue.shape, statistics)
    for _ in range(_number_of_shapes(rng)):
        shape, window = _draw_shape(rng, breast, size, KEPT_SIDE)
        cv2.copyTo(tissue[window], shape, painted[window])
    return painted


def _number_of_shapes(rng: np.random.Generator) -> int:
    shapes = 1
    while shapes < MAX_SHAPES and rng.random() < ANOTHER_SHAPE:
        shapes += 1
    return shapes


def _tissue_statistics(image: Grey, breast_mask: Mask) -> tuple[float, float]:
    """Return mean and deviation of the breast, subsampled if the window is large."""
    step = max(1, min(image.shape) // 192)
    tissue = image[::step, ::step][breast_mask[::step, ::step]]
    if not tissue.size:
        return 0.5 * FULL_SCALE, 0.1 * FULL_SCALE
    return float(tissue.mean()), float(tissue.std())


def _filler(
    rng: np.random.Generator,
    fills: tuple[Fill, ...],
    shape: tuple[int, ...],
    tissue: tuple[float, float],
) -> Grey:
    """Draw the contents of painted pixels, a uint16 array of ``shape``."""
    fill = fills[rng.integers(len(fills))]
    if fill == "constant":
        return np.full(shape, rng.integers(FULL_SCALE + 1), np.uint16)
    if fill == "noise":
        return _noise(rng, shape)
    mean, deviation = tissue
    centre = mean + deviation * rng.uniform(-1.5, 2.5)
    levels = np.clip(_standard_normal() * (0.7 * deviation) + centre, 0, FULL_SCALE)
    grey: Grey = cv2.LUT(_noise(rng, shape), levels.astype(np.uint16))
    return grey


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Grey:
    """Draw uniform grey levels, four from each 64 bits of the generator."""
    count = math.prod(shape)
    bits = rng.integers(0, 2**64, -(-count // 4), np.uint64)
    return bits.view(np.uint16)[:count].reshape(shape)


@cache
def _standard_normal() -> npt.NDArray[np.float64]:
    """Return the median of each of 65,536 equally likely slices of the normal distribution.

    The table turns uniform grey levels into Gaussian ones, a hundred times faster than drawing.
    """
    quantile = NormalDist().inv_cdf
    return np.array([quantile((k + 0.5) / (FULL_SCALE + 1)) for k in range(FULL_SCALE + 1)])


def _draw_shape(
    rng: np.random.Generator, breast: Mask, size: Size, side: tuple[float, float]
) -> tuple[Shape, Window]:
    """Draw a random shape centred somewhere in the breast.

    Args:
        rng: Source of every random choice.
        breast: ``(h, w)`` bool, true inside the breast.
        size: Height and width of the image.
        side: Minimum and maximum height and width, as a fraction of the image's.

    Returns:
        The shape, as ones in a uint8 array, and the window of ``breast`` that it covers, both cut
        at the edges.
    """
    rows, columns = breast.shape
    height = max(1, round(rng.uniform(*side) * size[0]))
    width = max(1, round(rng.uniform(*side) * size[1]))
    row, column = _point_inside(rng, breast)
    shape = _paint_shape(rng, height, width)
    top, left = row - height // 2, column - width // 2
    first_row, first_column = max(0, -top), max(0, -left)
    shape = shape[first_row : rows - top, first_column : columns - left]
    start_row, start_column = max(0, top), max(0, left)
    window = (
        slice(start_row, start_row + shape.shape[0]),
        slice(start_column, start_column + shape.shape[1]),
    )
    return shape, window


def _point_inside(rng: np.random.Generator, breast_mask: Mask) -> tuple[int, int]:
    """Draw a pixel of the breast by rejection; list all pixels if the breast is tiny."""
    rows, columns = breast_mask.shape
    for _ in range(64):
        row, column = int(rng.integers(rows)), int(rng.integers(columns))
        if breast_mask[row, column]:
            return row, column
    inside = np.flatnonzero(breast_mask)
    row, column = divmod(int(inside[rng.integers(inside.size)]), columns)
    return row, column


def _paint_shape(rng: np.random.Generator, height: int, width: int) -> Shape:
    """Paint one of :data:`SHAPES` as ones into a ``(height, width)`` uint8 array."""
    canvas = np.zeros((height, width), np.uint8)
    kind = SHAPES[rng.integers(len(SHAPES))]
    if kind == "rectangle":
        canvas[:] = 1
    elif kind == "ellipse":
        centre, half = (width / 2, height / 2), (max(width, 2), max(height, 2))
        cv2.ellipse(canvas, (centre, half, 0.0), (1,), -1)
    else:
        cv2.fillPoly(canvas, [_outline(rng, kind, height, width)], (1,))
    return canvas


def _outline(rng: np.random.Generator, kind: str, height: int, width: int) -> npt.NDArray[np.int32]:
    """Return a closed outline, ``(points, 1, 2)`` as x, y: a star-shaped polygon or a blob."""
    if kind == "polygon":
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 10)))
        radii = rng.uniform(0.4, 1.0, angles.size)
    else:
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        waves = [
            rng.uniform(0, 0.3) * np.cos(k * angles + rng.uniform(0, 2 * np.pi))
            for k in range(2, 6)
        ]
        radii = 1.0 + np.sum(waves, axis=0)
        radii /= radii.max()
    x = width / 2 * (1 + radii * np.cos(angles))
    y = height / 2 * (1 + radii * np.sin(angles))
    return np.stack([x, y], axis=1).astype(np.int32)[:, None]
