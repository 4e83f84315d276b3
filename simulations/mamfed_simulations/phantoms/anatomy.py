"""Draw the breast of a synthetic mammogram without findings: outline, tissue, muscle, skin.

It is drawn as a left breast with the chest wall at the left edge. Lengths are fractions of the
breast's height until rasterisation, so a scene looks the same at any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

View = Literal["CC", "MLO"]
Density = Literal["A", "B", "C", "D"]

FAT = 0.25
"""Attenuation of plain fatty tissue at full compression."""
GLAND = 0.36
"""Additional attenuation of fully glandular tissue."""
PECTORAL = 0.60
"""Attenuation of the pectoral muscle."""
GLAND_EXTENT: dict[Density, float] = {"A": 0.22, "B": 0.5, "C": 0.82, "D": 1.15}
"""Extent of glandular tissue in the cone behind the nipple, by ACR density class."""

_Floats = npt.NDArray[np.float32]
_Flags = npt.NDArray[np.bool_]


@dataclass
class Scene:
    """A left breast, to which findings are added one after the other.

    Attributes:
        attenuation: ``(H, W)`` float32, fat about 0.25, muscle about 0.6.
        breast_mask: ``(H, W)`` bool, the breast.
        muscle: ``(H, W)`` bool, the pectoral muscle; all false in a CC view.
        room: ``(H, W)`` float32, pixels to the nearest skin, muscle or image edge; 0 outside.
        nipple: x and y of the nipple in pixels.
        size: Height of the breast in pixels, the unit of a finding's lengths.
        depth: Distance from chest wall to nipple in pixels.
        mask: ``(H, W)`` bool, malignant pixels.
        taken: Circles (x, y, radius in pixels) that already hold a finding.
    """

    attenuation: _Floats
    breast_mask: _Flags
    muscle: _Flags
    room: _Floats
    nipple: tuple[float, float]
    size: float
    depth: float
    mask: _Flags
    taken: list[tuple[float, float, float]]


def draw_breast(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    view: View,
    density: Density,
    height: float,
    depth: float,
) -> Scene:
    """Draw a breast without findings.

    Args:
        rng: Source of every random choice.
        shape: Rows and columns of the image.
        view: The projection; only an MLO view shows the pectoral muscle.
        density: ACR density class.
        height: Breast height as a fraction of the rows.
        depth: Chest wall to nipple as a fraction of the breast's height.

    Returns:
        The scene, ready for findings.
    """
    size = height * shape[0]
    reach = min(depth * size, 0.85 * shape[1])
    width, nipple = _outline(rng, view, shape, size, reach)
    breast = _silhouette(width, nipple, size, shape)
    skin = cv2.distanceTransform(breast, cv2.DIST_L2, 5) / np.float32(size)
    attenuation = _parenchyma(rng, skin, density, nipple, size, reach)
    muscle = np.zeros(shape, np.float32)
    if view == "MLO":
        muscle = _pectoral(rng, shape, float(width[0]))
        attenuation += muscle * (_muscle_fibres(rng, shape) - attenuation)
    return Scene(
        attenuation=_compress(attenuation, skin),
        breast_mask=breast.astype(bool),
        muscle=muscle > 0.5,
        room=_room(breast * (muscle < 0.1)),
        nipple=nipple,
        size=size,
        depth=reach,
        mask=np.zeros(shape, bool),
        taken=[],
    )


def _silhouette(
    width: _Floats, nipple: tuple[float, float], size: float, shape: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Return the breast as 1 and the rest as 0, with the nipple in profile."""
    breast = (np.arange(shape[1], dtype=np.float32) < width[:, None]).astype(np.uint8)
    center = (round(nipple[0] - 0.006 * size), round(nipple[1]))
    cv2.ellipse(breast, center, (round(0.024 * size), round(0.02 * size)), 0, 0, 360, 1, -1)
    return breast


def _room(free: npt.NDArray[np.uint8]) -> _Floats:
    """Return the distance in pixels to the nearest pixel that is not free, or to the image edge."""
    framed = cv2.copyMakeBorder(free, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cast(_Floats, cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1])


def _outline(
    rng: np.random.Generator, view: View, shape: tuple[int, int], size: float, depth: float
) -> tuple[_Floats, tuple[float, float]]:
    """Return the breast's width in pixels at every row, and the nipple's x and y."""
    rows = np.arange(shape[0], dtype=np.float32)
    if view == "CC":
        nipple_row = shape[0] * rng.uniform(0.46, 0.54)
        above, below = 0.5 * size, 0.5 * size
        chest_top = 0.0
    else:
        nipple_row = shape[0] * rng.uniform(0.56, 0.64)
        above, below = 1.04 * nipple_row, 0.42 * size
        chest_top = rng.uniform(0.42, 0.55)
    offset = rows - nipple_row
    reach = np.clip(np.where(offset < 0, -offset / above, offset / below), 0, 1)
    profile = np.where(
        offset < 0,
        chest_top + (1 - chest_top) * (1 - reach**2.1) ** (0.6 if view == "CC" else 0.9),
        (1 - reach**2.1) ** 0.6,
    )
    phase = rng.uniform(0, 2 * np.pi, size=2)
    turns = 2 * np.pi * offset / size
    wobble = 1 + 0.02 * np.sin(1.3 * turns + phase[0]) + 0.008 * np.sin(3 * turns + phase[1])
    width = (depth * profile * wobble).astype(np.float32)
    return width, (float(width[int(nipple_row)]), nipple_row)


def _parenchyma(
    rng: np.random.Generator,
    skin: _Floats,
    density: Density,
    nipple: tuple[float, float],
    size: float,
    depth: float,
) -> _Floats:
    """Return fat and fibroglandular tissue: a cone of lobules and ducts behind the nipple."""
    shape = (skin.shape[0], skin.shape[1])
    x = (np.arange(shape[1], dtype=np.float32) - nipple[0]) / np.float32(depth)
    y = (np.arange(shape[0], dtype=np.float32) - nipple[1]) / np.float32(size)
    away = np.hypot((x[None] + 0.5) / 0.55, y[:, None] / 0.42)
    lumps = fractal_noise(rng, shape, 3.2)
    lobules = fractal_noise(rng, shape, 2.7)
    extent = GLAND_EXTENT[density] + rng.uniform(-0.1, 0.1)
    under_skin = np.clip((skin - 0.015) / 0.06, 0, 1)
    gland = _sigmoid(5 * (extent - away + 0.45 * lumps)) * under_skin
    tissue = gland * (0.3 + 0.7 * _sigmoid(1.7 * lobules + 2.2 * extent - 0.8))
    strands = _strands(rng, x * np.float32(depth), y * np.float32(size), size)
    fibrous = strands * (0.035 + 0.11 * gland) * under_skin
    gain = rng.uniform(0.85, 1.12)
    plain = FAT + 0.025 * lobules + 0.02 * lumps
    return cast(_Floats, (gain * (plain + GLAND * tissue + fibrous)).astype(np.float32))


def _strands(rng: np.random.Generator, x: _Floats, y: _Floats, size: float) -> _Floats:
    """Return ducts that run to the nipple and the net of ligaments, 0..1.

    ``x`` ``(W,)`` and ``y`` ``(H,)`` are distances from the nipple in pixels.
    """
    shape = (len(y), len(x))
    grid_x, grid_y = np.meshgrid(-x, y)
    # Angles are measured from the vertical, so that their jump lies in front of the nipple.
    radius, angle = cv2.cartToPolar(grid_y, grid_x)
    bend = smooth_noise(rng, shape, 7)
    sheet = rng.standard_normal((160, 12), dtype=np.float32)
    ducts = cv2.remap(
        sheet,
        radius * np.float32(10 / size),
        angle * np.float32(150 / np.pi) + 5 * bend,
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )
    coarse, fine = smooth_noise(rng, shape, 16), smooth_noise(rng, shape, 34)
    ridges = np.exp(-((coarse / 0.16) ** 2)) + 0.6 * np.exp(-((fine / 0.2) ** 2))
    near = np.clip(radius * np.float32(5 / size), 0.25, 1)  # ducts crowd at the nipple
    strands = 0.4 * near * np.maximum(ducts, 0) + 0.6 * ridges
    return cast(_Floats, np.clip(strands, 0, 1.3))


def _pectoral(rng: np.random.Generator, shape: tuple[int, int], top_width: float) -> _Floats:
    """Return the pectoral muscle's coverage, 0..1: a slightly bulging wedge at the chest wall."""
    rows = np.arange(shape[0], dtype=np.float32)
    reach = np.clip(rows / (shape[0] * rng.uniform(0.55, 0.78)), 0, 1)
    edge = top_width * rng.uniform(0.72, 0.9) * (1 - reach ** rng.uniform(1.0, 1.35))
    columns = np.arange(shape[1], dtype=np.float32)
    softness = 0.012 * shape[0]
    return cast(_Floats, np.clip((edge[:, None] - columns) / softness, 0, 1))


def _muscle_fibres(rng: np.random.Generator, shape: tuple[int, int]) -> _Floats:
    fade = np.linspace(0.05, -0.07, shape[0], dtype=np.float32)[:, None]
    level = np.float32(PECTORAL + rng.uniform(-0.06, 0.1))
    along = np.array([[1, 0, 0], [-0.55, 0.12, 0]], np.float32)  # stretched along the muscle
    fibres = cv2.warpAffine(
        smooth_noise(rng, shape, 60), along, shape[::-1], borderMode=cv2.BORDER_REFLECT_101
    )
    return cast(_Floats, level + fade + 0.01 * fibres + 0.03 * fractal_noise(rng, shape, 2.8))


def _compress(attenuation: _Floats, skin: _Floats) -> _Floats:
    """Thin the breast towards its edge, where the paddle does not press, and add the skin."""
    inside = 1 - np.clip(skin / 0.09, 0, 1)
    thickness = np.sqrt(1 - inside**2)
    line = np.exp(-(((skin - 0.006) / 0.005) ** 2))
    pressed = attenuation * (0.25 + 0.75 * thickness) + np.float32(0.09) * line
    return cast(_Floats, pressed.astype(np.float32))


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], beta: float) -> _Floats:
    """Return noise of zero mean and unit variance whose power falls as 1 / frequency ** beta.

    Mammograms have beta near 3 (Burgess 1999). The noise is drawn on a grid of half the side and
    enlarged; the detector's own noise fills the finest scale.

    Args:
        rng: Source of the noise.
        shape: Rows and columns of the result.
        beta: Exponent of the power spectrum.

    Returns:
        ``shape`` float32.
    """
    side = 64 * -(-max(shape) // 128)
    squared = np.fft.rfftfreq(side)[None, :] ** 2 + np.fft.fftfreq(side)[:, None] ** 2
    squared[0, 0] = np.inf
    amplitude = (squared ** (-beta / 4)).astype(np.float32)
    waves = rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
    noise = np.fft.irfft2(amplitude * (waves[0] + 1j * waves[1]), s=(side, side))
    noise = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    part = noise[: -(-shape[0] // 2), : -(-shape[1] // 2)]
    return cast(_Floats, cv2.resize(part, shape[::-1], interpolation=cv2.INTER_CUBIC))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> _Floats:
    """Return smooth noise of ``shape`` with about ``cells`` bumps along the rows' axis."""
    grid = (cells, max(2, round(cells * shape[1] / shape[0])))
    bumps = rng.standard_normal(grid, dtype=np.float32)
    return cast(_Floats, cv2.resize(bumps, shape[::-1], interpolation=cv2.INTER_CUBIC))


def _sigmoid(values: _Floats) -> _Floats:
    return cast(_Floats, 1 / (1 + np.exp(-values)))
