"""Models Genesis' corruptions in two dimensions, reimplemented from the paper for timing.

Zhou et al., *Models Genesis: Generic Autodidactic Models for 3D Medical Image Analysis*, MICCAI
2019: flips, a non-linear intensity curve, local pixel shuffling, in- or out-painting, on float32
images in 0..1, with the published probabilities and numbers. Noise is drawn as float32, which is
faster than the published float64.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]

FLIP, CURVE, SHUFFLE, PAINT, INPAINT = 0.4, 0.9, 0.5, 0.9, 0.2
ANOTHER = 0.95
"""Chance of each further window that is painted, or kept."""
POINTS = 100_000
"""Of the curve that intensities are interpolated on."""
BLOCKS = 10_000
"""Blocks that are shuffled, each of sides up to a tenth of the image's."""


def genesis(image: Image, rng: np.random.Generator, *, shuffle: bool) -> tuple[Image, Image]:
    """Return a corrupted image and the clean one that goes with it.

    Args:
        image: ``(H, W)`` float32 in 0..1.
        rng: Source of every random choice.
        shuffle: Whether pixels may be shuffled locally, which mamfed leaves out.
    """
    clean = flipped(image, rng)
    corrupted = clean.copy()
    if shuffle and rng.random() < SHUFFLE:
        corrupted = shuffled(corrupted, rng)
    if rng.random() < CURVE:
        corrupted = bent(corrupted, rng)
    if rng.random() < PAINT:
        paint = inpainted if rng.random() < INPAINT else outpainted
        corrupted = paint(corrupted, rng)
    return corrupted, clean


def flipped(image: Image, rng: np.random.Generator) -> Image:
    """Flip along a random axis, up to three times."""
    for _ in range(3):
        if rng.random() >= FLIP:
            break
        image = np.flip(image, int(rng.integers(2)))
    return image


def bent(image: Image, rng: np.random.Generator) -> Image:
    """Map intensities by a cubic Bezier curve, half the time a falling one."""
    t = np.linspace(0, 1, POINTS)
    weights = np.array([math.comb(3, k) * (1 - t) ** (3 - k) * t**k for k in range(4)])
    x = np.array([0, *rng.random(2), 1]) @ weights
    y = np.array([0, *rng.random(2), 1]) @ weights
    x = np.sort(x)
    y = np.sort(y) if rng.random() < 0.5 else y[::-1]
    return np.interp(image, x, y).astype(np.float32)


def shuffled(image: Image, rng: np.random.Generator) -> Image:
    """Shuffle the pixels of many small blocks, each within itself."""
    rows, columns = image.shape
    result = image.copy()
    for _ in range(BLOCKS):
        height = int(rng.integers(1, max(2, rows // 10)))
        width = int(rng.integers(1, max(2, columns // 10)))
        top, left = int(rng.integers(rows - height)), int(rng.integers(columns - width))
        window = image[top : top + height, left : left + width].ravel()
        rng.shuffle(window)
        result[top : top + height, left : left + width] = window.reshape(height, width)
    return result


def inpainted(image: Image, rng: np.random.Generator) -> Image:
    """Replace up to five windows of a sixth to a third of each side by noise."""
    for _ in range(5):
        if rng.random() >= ANOTHER:
            break
        window, shape = _window(image.shape, rng, 1 / 6, 1 / 3)
        image[window] = rng.random(shape, np.float32)
    return image


def outpainted(image: Image, rng: np.random.Generator) -> Image:
    """Replace all by noise but one to five windows of 3/7 to 4/7 of each side."""
    result = rng.random(image.shape, np.float32)
    for number in range(5):
        if number and rng.random() >= ANOTHER:
            break
        window, _ = _window(image.shape, rng, 3 / 7, 4 / 7)
        result[window] = image[window]
    return result


def _window(
    shape: tuple[int, ...], rng: np.random.Generator, smallest: float, largest: float
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    sides = tuple(int(rng.integers(int(side * smallest), int(side * largest))) for side in shape)
    starts = [int(rng.integers(3, side - own - 3)) for side, own in zip(shape, sides, strict=True)]
    window = tuple(slice(start, start + own) for start, own in zip(starts, sides, strict=True))
    return window, sides
