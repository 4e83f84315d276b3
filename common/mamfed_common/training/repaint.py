"""Repaint marked regions as healthy tissue, to explain what the network marks.

Stage 1 trains the network to fill holes with healthy tissue. Stage 2 makes its reconstruction dark
wherever it marks, so that reconstruction explains nothing. A second network therefore repaints the
marked regions: the painter, with the weights at the end of stage 1 (``mamfed_common.checkpoint``).
Nothing here is random. ``docs/decisions/0032-explanations-that-are-tissue.md`` measures what each
step contributes.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from mamfed_common.metrics.detection import BoolImage, Pixels
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.plan import TrainingPlan
from mamfed_common.training.device import autocast
from mamfed_common.transforms.sample import FULL_SCALE, Sample

RIM = 1 / 64
"""Margin of a cut around a marked region, as a fraction of the image's side. Detail finer than this
counts as texture, which the painter cannot draw."""
RELAXATIONS = 20
"""Passes of a 3 x 3 mean at each scale of :func:`fill_smoothly`."""
REACH = 4
"""Maximum distance at which texture is copied, in sides of the piece that needs it."""
SMALLEST_TILE = 4
"""Side in pixels below which a piece of a cut is not divided further in search of texture."""


def repaint(
    painter: MalignancyNetwork,
    sample: Sample,
    marked: BoolImage,
    plan: TrainingPlan,
    device: torch.device,
) -> Pixels:
    """Return an image whose marked regions are replaced by healthy tissue.

    Args:
        painter: The network with the weights at the end of stage 1, on ``device``.
        sample: The image.
        marked: ``(S, S)`` bool, true in marked regions.
        plan: The plan, for its precision.
        device: Device of the painter.

    Returns:
        ``(S, S)`` float32 in 0..1, equal to the image except within ``S / 64`` of a marked region.
    """
    image = np.asarray(sample.image, np.float32) / np.float32(FULL_SCALE)
    cut = dilated(marked, round(len(image) * RIM)) & sample.breast_mask
    tissue = sample.breast_mask & ~cut
    if not cut.any() or not tissue.any():
        return image
    filled = np.where(cut, fill_smoothly(image, tissue), image)
    drawn = _blurred(_draw(painter, filled, plan, device), sample.breast_mask)
    tone = fill_smoothly(_blurred(image, tissue) - drawn, tissue)
    healthy = drawn + tone + _texture(image, cut, tissue)
    return np.where(cut, np.clip(healthy, 0, 1), image)


def dilated(mask: BoolImage, pixels: int) -> BoolImage:
    """Return a ``(H, W)`` mask widened by a number of pixels in every direction."""
    side = 2 * pixels + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc), np.bool_)


def fill_smoothly(values: Pixels, known: BoolImage) -> Pixels:
    """Fill unknown pixels with an almost harmonic interpolation of the known ones.

    Works from coarse to fine: each scale starts from the coarser one and is relaxed a little.

    Args:
        values: ``(H, W)`` float32.
        known: ``(H, W)`` bool, true where ``values`` is valid; at least one pixel must be.
    """
    if known.all():
        return values
    height, width = values.shape
    if max(height, width) <= 2:
        filled = np.where(known, values, values[known].mean())
    else:
        small = ((width + 1) // 2, (height + 1) // 2)
        weight = cv2.resize(known.astype(np.float32), small, interpolation=cv2.INTER_AREA)
        total = cv2.resize(np.where(known, values, 0), small, interpolation=cv2.INTER_AREA)
        coarse = fill_smoothly(total / np.maximum(weight, 1e-6), weight > 0)
        finer = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        filled = np.where(known, values, finer)
    for _ in range(RELAXATIONS):
        mean = cv2.blur(filled, (3, 3), borderType=cv2.BORDER_REPLICATE)
        filled = np.where(known, values, mean)
    return np.asarray(filled, np.float32)


@torch.no_grad()
def _draw(
    painter: MalignancyNetwork, image: Pixels, plan: TrainingPlan, device: torch.device
) -> Pixels:
    painter.eval()
    tensor = torch.from_numpy(np.asarray(image, np.float32))[None, None].to(device)
    with autocast(device, plan.precision):
        drawn = painter.reconstruct(tensor).float()
    return np.asarray(drawn[0, 0].cpu().numpy(), np.float32)


def _blurred(values: Pixels, where: BoolImage) -> Pixels:
    """Remove fine detail from ``(S, S)`` values inside ``where``; return 0 outside."""
    side = 2 * max(1, round(2.5 * len(values) * RIM)) + 1  # a triangular kernel of deviation RIM
    weight = cv2.stackBlur(where.astype(np.float32), (side, side))
    total = cv2.stackBlur(np.where(where, values, np.float32(0)), (side, side))
    return np.where(where, total / np.maximum(weight, np.float32(1e-6)), np.float32(0))


def _texture(image: Pixels, cut: BoolImage, tissue: BoolImage) -> Pixels:
    """Return texture for a cut, copied from nearby tissue.

    Args:
        image: ``(S, S)`` float32.
        cut: ``(S, S)`` bool, true where texture is needed.
        tissue: ``(S, S)`` bool, true where texture may come from. A margin at its edge is excluded,
            because skin is not texture.
    """
    fine = np.where(tissue, image - _blurred(image, tissue), np.float32(0))
    inner = tissue & ~dilated(~(tissue | cut), max(1, round(len(image) * RIM)))
    texture = np.zeros_like(image)
    _, _, stats, _ = cv2.connectedComponentsWithStats(cut.astype(np.uint8), connectivity=8)
    for left, top, width, height, _ in stats[1:].tolist():
        _borrow(texture, fine, cut, inner, (left, top, width, height))
    return texture


def _borrow(
    texture: Pixels,
    fine: Pixels,
    cut: BoolImage,
    tissue: BoolImage,
    box: tuple[int, int, int, int],
) -> None:
    """Copy texture into a box from the nearest place where the shape of its cut is all tissue.

    The search covers :data:`REACH` sides in every direction. A box without such a place is divided.
    """
    left, top, width, height = box
    piece = cut[top : top + height, left : left + width]
    if not piece.any():
        return
    reach = REACH * max(width, height)
    first_row, first_column = max(0, top - reach), max(0, left - reach)
    near = tissue[first_row : top + height + reach, first_column : left + width + reach]
    foreign = cv2.matchTemplate((~near).astype(np.float32), piece.astype(np.float32), cv2.TM_CCORR)
    rows, columns = np.nonzero(foreign < 0.5)  # counts, as float32
    if len(rows):
        rows, columns = rows + first_row, columns + first_column
        nearest = int(np.argmin((rows - top) ** 2 + (columns - left) ** 2))
        row, column = rows[nearest], columns[nearest]
        source = fine[row : row + height, column : column + width]
        texture[top : top + height, left : left + width][piece] = source[piece]
        return
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    if max(half_width, half_height) < SMALLEST_TILE:
        return
    for y, tall in ((top, half_height), (top + half_height, height - half_height)):
        for x, wide in ((left, half_width), (left + half_width, width - half_width)):
            _borrow(texture, fine, cut, tissue, (x, y, wide, tall))
