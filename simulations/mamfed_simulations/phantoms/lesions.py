"""Draw findings into a synthetic breast: malignant ones and benign look-alikes.

A malignant mass has an irregular margin and spicules; a benign one is smooth, fainter and
surrounded by a thin lucent halo. Malignant calcifications are fine, pleomorphic and clustered;
benign ones are coarse, round and isolated. Lengths are fractions of the breast's height.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_simulations.phantoms.anatomy import Scene

_Floats = npt.NDArray[np.float32]
_Bytes = npt.NDArray[np.uint8]

_SUBPIXEL = 4  # fractional bits of cv2's coordinates: 1/16 of a pixel


class _Patch(NamedTuple):
    """A square region of the scene: its slices and each pixel's offset from the centre."""

    window: tuple[slice, slice]
    x: _Floats
    y: _Floats


def _patch(scene: Scene, place: tuple[float, float], reach: float) -> _Patch:
    rows, columns = scene.attenuation.shape
    left, right = max(0, int(place[0] - reach)), min(columns, int(place[0] + reach) + 2)
    top, bottom = max(0, int(place[1] - reach)), min(rows, int(place[1] + reach) + 2)
    x = np.arange(left, right, dtype=np.float32) - np.float32(place[0])
    y = np.arange(top, bottom, dtype=np.float32) - np.float32(place[1])
    return _Patch((slice(top, bottom), slice(left, right)), *np.meshgrid(x, y))


def find_place(
    rng: np.random.Generator,
    scene: Scene,
    radius: float,
    *,
    behind_nipple: float | None = None,
) -> tuple[float, float]:
    """Choose a finding's position: in the breast, off the muscle, apart from other findings.

    Args:
        rng: Source of the choice.
        scene: The breast; the position is marked as taken.
        radius: Radius of the finding, as a fraction of the breast's height.
        behind_nipple: Distance behind the nipple, as a fraction of the breast's depth; None: any.

    Returns:
        x and y in pixels; if nothing fits, the position with the least overlap.
    """
    rows, columns = scene.attenuation.shape
    depths = rng.uniform(0.08, 0.95, size=80)
    if behind_nipple is not None:
        depths = behind_nipple + 0.25 * (depths - 0.5)
    x = np.clip(scene.nipple[0] - depths * scene.depth, 0, columns - 1)
    y = np.clip(scene.nipple[1] + rng.uniform(-0.45, 0.45, size=80) * scene.size, 0, rows - 1)
    pixels = radius * scene.size
    spare = scene.room[y.astype(int), x.astype(int)] - pixels
    for other_x, other_y, other_radius in scene.taken:
        gap = np.hypot(x - other_x, y - other_y) - other_radius - pixels
        spare = np.minimum(spare, gap)
    chosen = int(np.argmax(spare >= 0)) if (spare >= 0).any() else int(np.argmax(spare))
    place = (float(x[chosen]), float(y[chosen]))
    scene.taken.append((*place, pixels))
    return place


def draw_mass(
    rng: np.random.Generator,
    scene: Scene,
    place: tuple[float, float],
    radius: float,
    contrast: float,
    spiculation: float,
) -> None:
    """Draw a malignant mass and mark its body, without the spicules, in the mask.

    Args:
        rng: Source of every random choice.
        scene: The breast to draw into.
        place: Centre, x and y in pixels.
        radius: Mean radius of the body, as a fraction of the breast's height.
        contrast: Attenuation relative to the default.
        spiculation: Length of the spicules relative to the default.
    """
    pixels = radius * scene.size
    patch = _patch(scene, place, pixels * (1.5 + 1.5 * spiculation))
    reach = np.hypot(patch.x, patch.y) / (pixels * _irregular(rng, patch))
    core = np.clip((1.1 - reach) / 0.55, 0, 1) ** 0.75
    mottle = rng.standard_normal((9, 9), dtype=np.float32)
    mottle = cv2.resize(mottle, reach.shape[::-1], interpolation=cv2.INTER_CUBIC)
    body = core * (1 + 0.14 * mottle)
    spicules = _spicules(rng, patch, pixels, spiculation)
    strength = contrast * rng.uniform(0.19, 0.28)
    _displace(scene, patch, core)
    _brighten(scene, patch, strength * np.maximum(body, 0.85 * spicules))
    scene.mask[patch.window] |= reach < 1


def _irregular(rng: np.random.Generator, patch: _Patch) -> _Floats:
    """Return a mass's radius in every direction, 1 on average, with lobes and a jagged margin."""
    angles = np.linspace(0, 2 * np.pi, 257, dtype=np.float32)[:-1]
    turns = np.concatenate([np.arange(2, 6), np.arange(8, 17)])
    heights = np.where(turns < 6, 0.11, 0.025) * rng.uniform(0.3, 1, size=turns.size)
    phases = rng.uniform(0, 2 * np.pi, size=turns.size)
    waves = heights[:, None] * np.cos(turns[:, None] * angles + phases[:, None])
    contour = 1 + waves.sum(axis=0)
    direction = cv2.phase(patch.x, patch.y)
    return cast(
        _Floats, contour.astype(np.float32)[(direction * (256 / (2 * np.pi))).astype(int) % 256]
    )


def _spicules(
    rng: np.random.Generator, patch: _Patch, pixels: float, spiculation: float
) -> _Floats:
    """Return thin, tapering, slightly bent lines that radiate from the mass; 0..1."""
    canvas = np.zeros(patch.x.shape, np.uint8)
    origin = np.array([-patch.x[0, 0], -patch.y[0, 0]])
    count = int(rng.integers(18, 30))
    directions = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.normal(0, 0.15, count)
    for direction in directions:
        steps = np.linspace(0.5, 1 + spiculation * rng.uniform(0.3, 1.4), 6)
        angles = direction + rng.normal(0, 0.12) * (steps - 0.5)
        knots = origin + pixels * steps[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        thick = rng.uniform(0.06, 0.11) * pixels
        for tip in (5, 4, 3, 2):  # from the faint tip to the root, so that the root is on top
            width = max(1, round(thick * (1.2 - 0.2 * tip)))
            _line(canvas, knots[: tip + 1], 295 - 40 * tip, width)
    soft = cv2.GaussianBlur(canvas, (0, 0), max(0.6, 0.025 * pixels))
    return cast(_Floats, soft.astype(np.float32) / 255)


def draw_cluster(
    rng: np.random.Generator,
    scene: Scene,
    place: tuple[float, float],
    radius: float,
    contrast: float,
) -> None:
    """Draw a cluster of fine pleomorphic calcifications; the mask is its slightly wider hull.

    Args:
        rng: Source of every random choice.
        scene: The breast to draw into.
        place: Centre, x and y in pixels.
        radius: Radius of the cluster, as a fraction of the breast's height.
        contrast: Attenuation relative to the default.
    """
    pixels = radius * scene.size
    patch = _patch(scene, place, 1.5 * pixels)
    origin = np.array([-patch.x[0, 0], -patch.y[0, 0]])
    count = int(rng.integers(14, 30))
    spread = np.sqrt(rng.uniform(0, 1, count)) * pixels
    angles = rng.uniform(0, 2 * np.pi, count)
    squeeze = np.array([1.0, rng.uniform(0.6, 1.0)])
    specks = origin + (spread * np.stack([np.cos(angles), np.sin(angles)])).T * squeeze
    canvas = np.zeros(patch.x.shape, np.uint8)
    for speck in specks:
        _speck(rng, canvas, speck, scene.size)
    bright = cv2.GaussianBlur(canvas, (0, 0), max(0.5, 0.0011 * scene.size))
    _brighten(scene, patch, bright.astype(np.float32) * np.float32(0.62 * contrast / 255))
    scene.mask[patch.window] |= _hull(specks, canvas.shape, 0.009 * scene.size)


def _speck(
    rng: np.random.Generator, canvas: _Bytes, center: npt.NDArray[np.float64], size: float
) -> None:
    """Draw one calcification: a grain, or a short bent rod as in a duct."""
    grey = int(rng.integers(130, 256))
    length, turn = rng.uniform(0.0035, 0.0065) * size, rng.uniform(0, 180)
    if rng.random() < 0.3:
        angles = np.deg2rad(turn) + np.array([0, np.pi + rng.normal(0, 0.5)])
        arms = 1.6 * length * np.stack([np.cos(angles), np.sin(angles)], 1)
        knots = np.stack([center + arms[0], center, center + arms[1]])
        _line(canvas, knots, grey, max(1, round(0.0045 * size)))
        return
    axes = (length, length * rng.uniform(0.5, 1.0))
    _ellipse(canvas, center, axes, turn, grey)


def _hull(
    points: npt.NDArray[np.float64], shape: tuple[int, ...], margin: float
) -> npt.NDArray[np.bool_]:
    """Fill the points' convex hull, dilated by ``margin`` pixels."""
    filled = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
    width = 2 * round(margin) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return cast(npt.NDArray[np.bool_], cv2.dilate(filled, disc).astype(bool))


def draw_cyst(rng: np.random.Generator, scene: Scene, radius: float) -> None:
    """Draw a benign mass: round or oval, sharply outlined, homogeneous, with a lucent halo."""
    place = find_place(rng, scene, radius)
    patch = _patch(scene, place, 1.6 * radius * scene.size)
    reach = _oval(rng, patch, radius * scene.size, rng.uniform(0.75, 1.0))
    inside = np.clip((1.05 - reach) / 0.2, 0, 1)
    halo = np.exp(-(((reach - 1.1) / 0.07) ** 2))
    _brighten(scene, patch, rng.uniform(0.1, 0.17) * inside - 0.06 * halo)


def draw_lymph_node(rng: np.random.Generator, scene: Scene, *, axillary: bool) -> None:
    """Draw a lymph node: a smooth bean with a fatty hilum, in the axilla or in the breast."""
    radius = rng.uniform(0.025, 0.045)
    if axillary:
        place = (rng.uniform(0.1, 0.7) * scene.depth, rng.uniform(0.05, 0.2) * scene.size)
        scene.taken.append((*place, radius * scene.size))
    else:
        place = find_place(rng, scene, radius)
    patch = _patch(scene, place, 1.6 * radius * scene.size)
    reach = _oval(rng, patch, radius * scene.size, rng.uniform(0.55, 0.7))
    aside = np.float32(0.35 * radius * scene.size)
    hilum = np.hypot(patch.x - aside, patch.y) / (0.45 * radius * scene.size)
    rim = np.clip((1.03 - reach) / 0.12, 0, 1)
    fat = np.clip((1.2 - hilum) / 0.5, 0, 1)
    _brighten(scene, patch, rng.uniform(0.16, 0.26) * rim * (1 - 0.95 * fat))


def draw_vessel(rng: np.random.Generator, scene: Scene) -> None:
    """Draw a vessel: a long, faint band of constant width that winds from the chest wall."""
    start = scene.nipple[1] + rng.uniform(-0.35, 0.35) * scene.size
    x = np.linspace(0, rng.uniform(0.45, 0.85) * scene.depth, 24)
    drift = rng.uniform(-0.35, 0.35) * x
    swing = 0.02 * scene.size * np.sin(x / scene.size * rng.uniform(8, 16) + rng.uniform(0, 6))
    canvas = np.zeros(scene.breast_mask.shape, np.uint8)
    knots = np.stack([x, start + drift + swing], axis=1)
    _line(canvas, knots, 255, max(1, round(rng.uniform(0.006, 0.011) * scene.size)))
    band = cv2.GaussianBlur(canvas, (0, 0), max(0.6, 0.0015 * scene.size))
    faint = np.float32(rng.uniform(0.06, 0.12) / 255)
    scene.attenuation += faint * band * (scene.breast_mask & ~scene.muscle)


def draw_coarse_calcification(rng: np.random.Generator, scene: Scene) -> None:
    """Draw a benign calcification: coarse, round, dense, sometimes with a lucent centre."""
    radius = rng.uniform(0.008, 0.014)
    place = find_place(rng, scene, 2 * radius)
    patch = _patch(scene, place, 2 * radius * scene.size)
    reach = _oval(rng, patch, radius * scene.size, rng.uniform(0.85, 1.0))
    dense = np.clip((1.1 - reach) / 0.3, 0, 1)
    if rng.random() < 0.4:
        dense *= 1 - 0.6 * np.clip((0.7 - reach) / 0.3, 0, 1)
    _brighten(scene, patch, rng.uniform(0.4, 0.6) * dense)


def _oval(rng: np.random.Generator, patch: _Patch, radius: float, aspect: float) -> _Floats:
    """Return the relative distance from the patch's centre, 1 on a rotated ellipse."""
    turn = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = cos * patch.x + sin * patch.y, cos * patch.y - sin * patch.x
    return cast(_Floats, np.hypot(along, across / np.float32(aspect)) / np.float32(radius))


def _displace(scene: Scene, patch: _Patch, core: _Floats) -> None:
    """Smooth the tissue that a mass displaces; ``core`` is 0..1."""
    under = scene.attenuation[patch.window]
    level = (under * core).sum() / max(float(core.sum()), 1.0)
    scene.attenuation[patch.window] = under + np.float32(0.7) * core * (level - under)


def _brighten(scene: Scene, patch: _Patch, added: _Floats) -> None:
    """Add attenuation, less in dense tissue, because film and detectors saturate."""
    under = scene.attenuation[patch.window]
    scene.attenuation[patch.window] = under + added * np.clip(1.25 - 0.75 * under, 0.3, 1.1)


def _line(canvas: _Bytes, knots: npt.NDArray[np.float64], grey: int, thickness: int) -> None:
    points = np.rint(knots * 2**_SUBPIXEL).astype(np.int32)[:, None]
    cv2.polylines(canvas, [points], False, grey, thickness, cv2.LINE_AA, _SUBPIXEL)


def _ellipse(
    canvas: _Bytes,
    center: npt.NDArray[np.float64],
    axes: tuple[float, float],
    turn: float,
    grey: int,
) -> None:
    unit = 2**_SUBPIXEL
    middle = (round(center[0] * unit), round(center[1] * unit))
    half = (round(axes[0] * unit), round(axes[1] * unit))
    cv2.ellipse(canvas, middle, half, turn, 0, 360, grey, -1, cv2.LINE_AA, _SUBPIXEL)
