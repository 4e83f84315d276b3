"""Augmentation: random geometry, the same for image, breast mask and mask, and intensity."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_common.transforms.config import AugmentationConfig
from mamfed_common.transforms.corruption import apply_gamma
from mamfed_common.transforms.sample import Sample, Window, window_of

Grey = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float64]

BAND = 64
"""Rows of an image that are transformed at once; few, so that their window holds mostly breast."""


def apply_geometry(sample: Sample, config: AugmentationConfig, rng: np.random.Generator) -> Sample:
    """Flip, rotate and scale a sample about its centre: image, breast mask and mask alike."""
    upside_down, mirrored = rng.random() < config.flip, rng.random() < config.flip
    angle = rng.uniform(-config.max_rotation_degrees, config.max_rotation_degrees)
    scale = float(np.exp(rng.uniform(-config.max_log_scale, config.max_log_scale)))
    if angle == 0 and scale == 1:
        return _flip(sample, upside_down, mirrored)
    height, width = sample.image.shape
    matrix = _matrix((height, width), angle, scale, upside_down, mirrored)
    breast_mask, mask = (_moved(plane, matrix) for plane in (sample.breast_mask, sample.mask))
    return sample._replace(
        image=_moved_image(sample.image, matrix, breast_mask), breast_mask=breast_mask, mask=mask
    )


def vary_intensity(sample: Sample, config: AugmentationConfig, rng: np.random.Generator) -> Sample:
    """Apply a random gamma curve to the image, which simulates another exposure."""
    if rng.random() >= config.gamma:
        return sample
    log_gamma = rng.uniform(-config.max_log_gamma, config.max_log_gamma)
    return sample._replace(image=apply_gamma(sample.image, float(np.exp(log_gamma))))


def _flip(sample: Sample, upside_down: bool, mirrored: bool) -> Sample:
    order = slice(None, None, -1 if upside_down else 1), slice(None, None, -1 if mirrored else 1)
    return sample._replace(
        image=sample.image[order], breast_mask=sample.breast_mask[order], mask=sample.mask[order]
    )


def _matrix(
    shape: tuple[int, int], angle_degrees: float, scale: float, upside_down: bool, mirrored: bool
) -> Matrix:
    """Return the ``(2, 3)`` matrix (x before y) that flips, then rotates and scales."""
    height, width = shape
    flip = np.eye(3)
    if mirrored:
        flip[0] = -1, 0, width - 1
    if upside_down:
        flip[1] = 0, -1, height - 1
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_degrees, scale)
    matrix: Matrix = turn @ flip
    return matrix


def _moved(plane: Mask, matrix: Matrix) -> Mask:
    """Transform a bool array, drawing only the window where its true pixels land."""
    moved = np.zeros_like(plane)
    landing = _landing(window_of(plane), matrix, plane.shape)
    if moved[landing].size:
        drawn = _drawn(plane.view(np.uint8), matrix, landing, cv2.INTER_NEAREST)
        moved[landing] = drawn.view(bool)
    return moved


def _moved_image(image: Grey, matrix: Matrix, breast_mask: Mask) -> Grey:
    """Transform an image band by band, inside its transformed breast mask; the rest stays 0."""
    moved = np.zeros_like(image)
    for top in range(0, len(moved), BAND):
        rows, columns = window_of(breast_mask[top : top + BAND])
        window = slice(top + rows.start, top + rows.stop), columns
        inside = breast_mask[window].view(np.uint8)
        if inside.size:
            drawn = _drawn(image, matrix, window, cv2.INTER_LINEAR)
            cv2.copyTo(drawn, inside, moved[window])
    return moved


def _drawn(
    source: npt.NDArray[Any], matrix: Matrix, window: Window, interpolation: int
) -> npt.NDArray[Any]:
    """Draw one window, not empty, of a transformed image."""
    rows, columns = window
    here = matrix - [[0, 0, columns.start], [0, 0, rows.start]]
    size = columns.stop - columns.start, rows.stop - rows.start
    drawn: npt.NDArray[Any] = cv2.warpAffine(source, here, size, flags=interpolation)
    return drawn


def _landing(window: Window, matrix: Matrix, shape: tuple[int, ...]) -> Window:
    """Return the window that holds a transformed window, cut at the image's edges."""
    (top, bottom), (left, right) = ((side.start - 1, side.stop) for side in window)
    corners = [[left, left, right, right], [top, bottom, top, bottom], [1, 1, 1, 1]]
    across, down = matrix @ np.array(corners)
    return _between(down, shape[0]), _between(across, shape[1])


def _between(ends: Matrix, length: int) -> slice:
    first, last = math.floor(ends.min()), math.ceil(ends.max())
    return slice(max(0, first), max(0, min(last + 1, length)))
