"""What healthy tissue would look like: found regions cut out and painted anew by the painter.

Stage 1 taught the network to draw healthy tissue into holes; stage 2 turns that drawing into
darkness wherever it marks. So the explanation is drawn afterwards, by the painter, the weights at
the end of stage 1 (``mamfed_common.checkpoint``). Nothing here is random. What each step brings is
in ``docs/decisions/0032-explanations-that-are-tissue.md``.
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
"""How far a cut reaches beyond what is marked, and what is fine enough to be texture, which the
painter cannot draw; as a share of the image's side."""
RELAXATIONS = 20
"""Passes of a 3 x 3 mean at each scale of :func:`fill_smoothly`."""
REACH = 4
"""How far texture is fetched, in sides of the piece that needs it."""
SMALLEST_TILE = 4
"""Pixels of side below which a piece of a cut is not divided further in search of texture."""


def repaint(
    painter: MalignancyNetwork,
    sample: Sample,
    marked: BoolImage,
    plan: TrainingPlan,
    device: torch.device,
) -> Pixels:
    """Return an image with the tissue that should be where something is marked.

    Args:
        painter: The network as stage 1 left it, on ``device``.
        sample: The image.
        marked: ``(S, S)`` bool: what was found.
        plan: Of it, the precision matters.
        device: Where to do it.

    Returns:
        ``(S, S)`` float32 in 0..1: beyond a rim of ``S / 64`` around what is marked, the image.
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
    """Return a ``(H, W)`` mask and all that lies within a distance of it."""
    side = 2 * pixels + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc), np.bool_)


def fill_smoothly(values: Pixels, known: BoolImage) -> Pixels:
    """Fill what is not known as a membrane would that is held where it is: almost harmonic.

    From coarse to fine, each scale starts from the one before it and is relaxed a little.

    Args:
        values: ``(H, W)`` float32.
        known: ``(H, W)`` bool, true somewhere: where ``values`` holds.
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
    given = torch.from_numpy(np.asarray(image, np.float32))[None, None].to(device)
    with autocast(device, plan.precision):
        drawn = painter.reconstruct(given).float()
    return np.asarray(drawn[0, 0].cpu().numpy(), np.float32)


def _blurred(values: Pixels, where: BoolImage) -> Pixels:
    """Take out of ``(S, S)`` values what is fine, which the painter cannot draw; 0 elsewhere."""
    side = 2 * max(1, round(2.5 * len(values) * RIM)) + 1  # a triangle of deviation RIM
    weight = cv2.stackBlur(where.astype(np.float32), (side, side))
    total = cv2.stackBlur(np.where(where, values, np.float32(0)), (side, side))
    return np.where(where, total / np.maximum(weight, np.float32(1e-6)), np.float32(0))


def _texture(image: Pixels, cut: BoolImage, tissue: BoolImage) -> Pixels:
    """Return what is fine in tissue nearby, for a cut.

    Args:
        image: ``(S, S)`` float32.
        cut: ``(S, S)`` bool: where texture is wanted.
        tissue: ``(S, S)`` bool: where it may be taken from, but for a rim: skin is no texture.
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
    """Copy into a box of ``texture`` that of the nearest place where its cut lies all in tissue.

    It is looked for within :data:`REACH` sides. A box that has no such place is divided.
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
