"""Give virtual hospitals distinct looks: one cohort as other vendors' processing would show it.

A look changes grey levels inside the breast only. The air around it, labels, film frames and masks
do not change.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.breast_mask import breast_view, upscale_mask
from mamfed_client.imaging.mammogram import Mammogram, Mask, Pixels
from mamfed_client.imaging.preprocess import BLACK_SHARE, WHITE_SHARE, intensity_range
from mamfed_common.runtime.seeds import generator
from mamfed_common.transforms.sample import FULL_SCALE

GRID = 256
"""Longest side in pixels of the grid on which blur and grain are defined, so that a look does not
depend on the size of the stored image and survives downscaling."""
EIGHT_BIT_STEP = FULL_SCALE // 255


class Appearance(NamedTuple):
    """A hospital's image processing, applied to a breast with grey levels scaled to 0..1.

    Attributes:
        gamma: Exponent of the curve; below 1 brightens fat, above 1 darkens it.
        blur: Standard deviation in pixels of ``GRID``.
        noise: Standard deviation of the grain at black; at white it is 3.5 times as large.
    """

    gamma: float = 1.0
    blur: float = 0.0
    noise: float = 0.0


ORIGINAL = Appearance()
KNOWN = (
    ORIGINAL,
    Appearance(gamma=1.8, blur=0.9, noise=0.010),
    Appearance(gamma=0.55, noise=0.030),
    Appearance(gamma=1.35, blur=0.4, noise=0.020),
    Appearance(gamma=0.75, blur=1.2, noise=0.005),
)


def looks_of(sites: int, seed: int) -> list[Appearance]:
    """Return one look per site: original for the first, then ``KNOWN``, then random ones."""
    drawn = [_drawn(generator(seed, "look", site)) for site in range(len(KNOWN), sites)]
    return [*KNOWN[:sites], *drawn]


def with_look(
    mammogram: Mammogram, look: Appearance, random: np.random.Generator
) -> npt.NDArray[Any]:
    """Return a mammogram's grey levels with a look applied; padding becomes 0.

    Args:
        mammogram: ``(H, W)`` uint16.
        look: Look to apply to the breast.
        random: Generator of the grain.

    Returns:
        ``(H, W)``: uint8 if all levels are 8-bit levels spread over 16 bits, otherwise uint16. The
        breast keeps its black and white levels.

    Raises:
        FileRejected: No breast was found.
    """
    grey, valid = mammogram.grey, mammogram.valid
    breast = breast_view(grey, valid)
    black, white = intensity_range(grey, valid, breast)
    breast_mask = upscale_mask(breast, grey.shape)
    if valid is not None:
        breast_mask &= valid
    levels = (grey.astype(np.float32) - black) / (white - black)
    shown = _processed(np.clip(levels, 0, 1), breast_mask, look, random)
    image = grey.copy()
    if valid is not None:
        image[~valid] = 0
    step = EIGHT_BIT_STEP if not (image % EIGHT_BIT_STEP).any() else 1
    changed = (black + shown[breast_mask] * (white - black)) / step
    image[breast_mask] = np.rint(changed).astype(np.uint16) * step
    return (image // EIGHT_BIT_STEP).astype(np.uint8) if step > 1 else image


def _drawn(random: np.random.Generator) -> Appearance:
    """Draw a random look within the range of the known ones."""
    return Appearance(
        gamma=float(np.exp(random.uniform(np.log(0.55), np.log(1.8)))),
        blur=float(random.uniform(0, 1.2)),
        noise=float(random.uniform(0, 0.03)),
    )


def _processed(
    image: Pixels, breast_mask: Mask, look: Appearance, random: np.random.Generator
) -> Pixels:
    """Apply blur, gamma and grain, and rescale as preparation does; ``(H, W)`` in 0..1."""
    if look.blur:
        sigma = look.blur * max(image.shape) / GRID
        share = cv2.GaussianBlur(breast_mask.astype(np.float32), (0, 0), sigma)
        blurred = cv2.GaussianBlur(image * breast_mask, (0, 0), sigma)
        image = np.asarray(blurred / np.maximum(share, 1e-6), np.float32)
    image = np.clip(image, 0, 1) ** np.float32(look.gamma)
    image = image + _grain(image.shape, random) * np.float32(look.noise) * (0.4 + image)
    black, white = np.quantile(image[breast_mask], (BLACK_SHARE, WHITE_SHARE))
    return np.asarray(np.clip((image - black) / max(white - black, 1e-6), 0, 1), np.float32)


def _grain(shape: tuple[int, ...], random: np.random.Generator) -> Pixels:
    """Draw noise of mean 0 and standard deviation 1 on ``GRID``, upscaled for larger images."""
    scale = max(1.0, max(shape) / GRID)
    height, width = (max(2, round(side / scale)) for side in shape)
    noise = random.standard_normal((height, width)).astype(np.float32)
    if scale == 1:
        noise = noise[: shape[0], : shape[1]]
    enlarged_noise = cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(enlarged_noise / enlarged_noise.std(), np.float32)
