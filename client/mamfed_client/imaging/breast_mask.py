"""Find the breast in a mammogram, excluding labels, tape, film frames and padding.

All sizes are in pixels of a small view whose longest side is ``VIEW``. They were chosen by eye on
mini-MIAS and CBIS-DDSM films and on CDD-CESM digital images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.mammogram import Grey, Mask, Pixels
from mamfed_client.imaging.morphology import disk, opened
from mamfed_client.imaging.rejections import FileRejected, Reason

VIEW = 256
HALVED_FROM = 1 / 8
"""Images to be scaled by less than this are halved first, which saves 6 ms for 8.5 megapixels."""
SATURATED = 250
"""Minimum level of a film frame, a saturated strip along the edge."""
FADING = 235
"""A film frame ends sharply: three pixels beyond it, the level is below this."""
FRAME_WIDTH = 18
"""A film frame is narrower than this."""
BODY = 35
"""Minimum thickness of a breast; letters, tape and the glow along a film's edge are thinner."""
ROUNDING = 11
"""Removing thin structures rounds the breast's corners; they are restored within this distance."""
LARGEST_HOLE = 0.03
"""Maximum share of the image that dark fat inside a breast can cover."""

View = npt.NDArray[np.uint8]


class BreastView(NamedTuple):
    """The breast on a reduced view of the whole image, whose longest side is ``VIEW``.

    Attributes:
        levels: ``(h, w)`` grey levels on the image's own scale.
        image: ``(h, w)`` bool, false on padding.
        breast: ``(h, w)`` bool, true inside the breast.
        second: Area of the second largest body as a fraction of the breast's area; 0 if there is
            none.
    """

    levels: npt.NDArray[Any]
    image: Mask
    breast: Mask
    second: float


def find_breast_mask(pixels: Grey | Pixels, valid: Mask | None = None) -> Mask:
    """Return the breast mask of :func:`breast_view` on the image's own grid, ``(H, W)`` bool.

    Raises:
        FileRejected: There is no breast.
    """
    breast_mask = upscale_mask(breast_view(pixels, valid), pixels.shape)
    return breast_mask if valid is None else breast_mask & valid


def breast_view(pixels: Grey | Pixels, valid: Mask | None = None) -> Mask:
    """Find the breast on ``(H, W)`` grey levels, tissue bright, on any scale.

    Args:
        pixels: The grey levels, uint16 or float32.
        valid: ``(H, W)`` bool, false on padding, which is never breast; None if there is none.

    Returns:
        ``(h, w)`` bool on a view of the whole image whose longest side is ``VIEW``, true inside
        the breast. It is a single piece without holes, except where padding was removed.

    Raises:
        FileRejected: There is no breast: the image is flat, or holds only thin structures.
    """
    return find_breast(pixels, valid).breast


def find_breast(pixels: Grey | Pixels, valid: Mask | None = None) -> BreastView:
    """Find the breast as :func:`breast_view` does, and return it with the view it was found on.

    Raises:
        FileRejected: There is no breast.
    """
    small, image = _reduce(pixels, valid)
    view = _enhance(small, image)
    rows, columns = _content_box(view)
    breast = np.zeros_like(view)
    breast[rows, columns], second = _body(view[rows, columns])
    breast[~image] = 0
    if not breast.any():
        raise FileRejected(Reason.NO_BREAST, "nothing but padding in its place")
    return BreastView(small, image, breast.view(np.bool_), second)


def upscale_mask(breast: Mask, shape: tuple[int, ...]) -> Mask:
    """Resize the breast's view to ``shape``, that of the image or of every n-th pixel of it."""
    full = cv2.resize(breast * np.uint8(255), shape[::-1], interpolation=cv2.INTER_LINEAR)
    breast_mask: Mask = np.asarray(full >= 128)
    return breast_mask


def _reduce(pixels: Grey | Pixels, valid: Mask | None) -> tuple[npt.NDArray[Any], Mask]:
    """Reduce the image to the view's size by area averaging, ignoring padding.

    All rows are used: a quarter of them would save 2 ms, but then the breast mask of 1 in 8
    full-size films extended along a glow.

    Returns:
        The view's grey levels, and a mask of the pixels that are at least half image, both
        ``(h, w)``.
    """
    scale = VIEW / max(pixels.shape)
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

    def reduce(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        image = _halved(image) if scale < HALVED_FROM else image
        return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation))

    if valid is None:
        small = reduce(pixels)
        return small, np.ones(small.shape, bool)
    share = reduce(valid * np.uint8(255)) / np.float32(255)
    return reduce(pixels * valid) / np.maximum(share, np.float32(0.5)), share >= 0.5


def _halved(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Average blocks of 2 x 2 pixels, which OpenCV does fast; drop an odd last row or column."""
    rows, columns = (side // 2 for side in image.shape)
    even = image[: 2 * rows, : 2 * columns]
    return np.asarray(cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA))


def _enhance(small: npt.NDArray[Any], image: Mask) -> View:
    """Stretch the levels to 0..255 and take the square root, which separates skin from film."""
    if not image.any():
        raise FileRejected(Reason.NO_BREAST, "the image is all padding")
    low, high = np.percentile(small[image], (1, 99.5))
    if not high > low:
        raise FileRejected(Reason.NO_BREAST, "the image is flat")
    levels = np.sqrt(np.clip((small - low) / (high - low), 0, 1)) * 255
    view: View = cv2.medianBlur(levels.astype(np.uint8), 3)
    return view


def _content_box(view: View) -> tuple[slice, slice]:
    """Return the rows and columns within any almost black border, as images padded square have."""
    content = view > 6
    slices = []
    for share in (content.mean(axis=1), content.mean(axis=0)):
        filled = np.flatnonzero(share > 0.02)
        if not filled.size:
            raise FileRejected(Reason.NO_BREAST, "the image is all but black")
        slices.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return slices[0], slices[1]


def _body(view: View) -> tuple[View, float]:
    """Find the breast: the largest solid piece that is brighter than the film.

    Returns:
        The breast as 0 and 1, and the area of the second largest piece as a fraction of its area.
    """
    frame = _frame(view)
    if frame.all():
        raise FileRejected(Reason.NO_BREAST, "the image is one bright area")
    dark_frame = np.where(frame, np.uint8(0), view)
    otsu, _ = cv2.threshold(view[~frame].reshape(-1, 1), 0, 255, cv2.THRESH_OTSU)
    tissue = _solid(dark_frame > _film_level(dark_frame, 0.75 * otsu))
    core, second = _largest(_thick(tissue))
    return _filled(cv2.dilate(core, disk(ROUNDING)) & tissue), second


def _solid(values: Mask) -> View:
    """Close gaps and fill holes, except large holes, which are film inside a ring-shaped frame."""
    padded = cv2.copyMakeBorder(values.astype(np.uint8), 9, 9, 9, 9, cv2.BORDER_REPLICATE)
    solid: View = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disk(9))[9:-9, 9:-9].copy()
    _, holes, stats, _ = cv2.connectedComponentsWithStats(1 - solid, connectivity=4)
    fillable = stats[:, cv2.CC_STAT_AREA] < LARGEST_HOLE * solid.size
    for edge in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        fillable[edge] = False
    solid[fillable[holes]] = 1
    return solid


def _frame(view: View) -> Mask:
    """Find saturated strips along the edges, as scanners leave around a film.

    They end sharply, whereas a muscle that saturates towards the edge fades.
    """
    frame = np.zeros(view.shape, bool)
    for turns in range(4):
        turned = np.rot90(view, turns)
        columns = np.arange(turned.shape[1])
        runs = _runs_from_left(turned >= SATURATED)
        beyond = turned[np.arange(len(runs)), np.minimum(runs + 3, columns[-1])]
        strip = (runs > 0) & (runs < FRAME_WIDTH) & (beyond < FADING)
        if strip.mean() > 0.15:
            np.rot90(frame, turns)[...] |= (columns < runs[:, None] + 2) & strip[:, None]
    return frame


def _runs_from_left(values: Mask) -> npt.NDArray[np.int64]:
    """Count the true values before the first false one in each row."""
    runs: npt.NDArray[np.int64] = np.where(
        values.all(axis=1), values.shape[1], np.argmin(values, axis=1)
    )
    return runs


def _film_level(view: View, bright: float) -> float:
    """Return a threshold just above the background: padding at 0, or the grey of blank film.

    Background is dark and flat. If too little of it is visible, ``bright`` is returned.
    """
    linear = np.square(view / np.float32(255))
    mean = cv2.blur(linear, (7, 7))
    deviation = np.sqrt(np.maximum(cv2.blur(np.square(linear), (7, 7)) - np.square(mean), 0))
    background = view[(deviation < 0.006) & (view < bright)]
    if background.size < 0.01 * view.size:
        return bright
    return min(bright, float(np.percentile(background, 99)) + 8)


def _thick(values: npt.NDArray[Any]) -> View:
    """Remove structures thinner than ``BODY``, or half that at the edges, which are mirrored."""
    padded = cv2.copyMakeBorder(values.astype(np.uint8), BODY, BODY, BODY, BODY, cv2.BORDER_REFLECT)
    return opened(padded, BODY)[BODY:-BODY, BODY:-BODY]


def _largest(values: View) -> tuple[View, float]:
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(values, connectivity=4)
    if count < 2:
        raise FileRejected(Reason.NO_BREAST, "nothing but thin structures in the image")
    areas = stats[1:, cv2.CC_STAT_AREA]
    second = float(np.sort(areas)[-2] / areas.max()) if count > 2 else 0.0
    return np.asarray(pieces == 1 + int(np.argmax(areas)), dtype=np.uint8), second


def _filled(values: View) -> View:
    """Close small gaps, fill holes and keep the largest piece."""
    padded = cv2.copyMakeBorder(values, 9, 9, 9, 9, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disk(9))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled: View = np.zeros_like(padded)
    cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return filled[9:-9, 9:-9]
