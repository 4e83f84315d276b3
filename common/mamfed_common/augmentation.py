"""Random geometry and intensity, the same geometry on the image, its breast and its mask."""

from __future__ import annotations

import cv2
import numpy as np
from pydantic import Field

from mamfed_common.config import Config
from mamfed_common.corruption import apply_gamma
from mamfed_common.samples import Sample


class AugmentationConfig(Config):
    """How far training images are moved.

    Attributes:
        flip: Chance of a vertical flip, and, drawn apart, of a horizontal one.
        max_rotation_degrees: Rotation is uniform within this, either way.
        max_log_scale: Magnification is ``exp(u)`` with ``u`` uniform within this of 0.
        gamma: Chance of a gamma curve (stage 2 only; stage 1 has it as a corruption).
        max_log_gamma: Its exponent is ``exp(u)`` with ``u`` uniform within this of 0.
    """

    flip: float = Field(default=0.5, ge=0, le=1)
    max_rotation_degrees: float = Field(default=15.0, ge=0, le=180)
    max_log_scale: float = Field(default=0.15, ge=0, le=1)
    gamma: float = Field(default=0.5, ge=0, le=1)
    max_log_gamma: float = Field(default=0.25, ge=0, le=3)


def move(sample: Sample, config: AugmentationConfig, rng: np.random.Generator) -> Sample:
    """Flip, rotate and scale a sample about its centre; image, field and mask alike."""
    if rng.random() < config.flip:
        sample = _flip(sample, slice(None, None, -1), slice(None))
    if rng.random() < config.flip:
        sample = _flip(sample, slice(None), slice(None, None, -1))
    angle = rng.uniform(-config.max_rotation_degrees, config.max_rotation_degrees)
    scale = float(np.exp(rng.uniform(-config.max_log_scale, config.max_log_scale)))
    if angle == 0 and scale == 1:
        return sample
    return _warp(sample, angle, scale)


def vary_intensity(sample: Sample, config: AugmentationConfig, rng: np.random.Generator) -> Sample:
    """Apply a random gamma curve to the image, as another exposure would."""
    if rng.random() >= config.gamma:
        return sample
    log_gamma = rng.uniform(-config.max_log_gamma, config.max_log_gamma)
    return sample._replace(image=apply_gamma(sample.image, float(np.exp(log_gamma))))


def _flip(sample: Sample, rows: slice, columns: slice) -> Sample:
    return sample._replace(
        image=sample.image[rows, columns],
        field=sample.field[rows, columns],
        mask=sample.mask[rows, columns],
    )


def _warp(sample: Sample, angle_degrees: float, scale: float) -> Sample:
    height, width = sample.image.shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, angle_degrees, scale)

    def warp(image: np.ndarray, interpolation: int) -> np.ndarray:
        source = np.ascontiguousarray(image)
        warped: np.ndarray = cv2.warpAffine(source, matrix, (width, height), flags=interpolation)
        return warped

    return sample._replace(
        image=warp(sample.image, cv2.INTER_LINEAR),
        field=warp(sample.field.astype(np.uint8), cv2.INTER_NEAREST).astype(bool),
        mask=warp(sample.mask.astype(np.uint8), cv2.INTER_NEAREST).astype(bool),
    )
