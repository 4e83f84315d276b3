"""Convert stored values to grey levels with bright tissue (the pipeline of DICOM PS3.4 N.2).

Order matters: modality LUT or rescale, then VOI LUT or window, and only then the inversion of
MONOCHROME1 (PS3.3 C.7.6.3.1.2, C.11.1, C.11.2). Every step is a function of the stored value, so
one lookup table over all stored values suffices: 3.5 ms for 13.6 megapixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from mamfed_client.imaging.dicom_header import frame_groups, items, numbers, text
from mamfed_client.imaging.display_steps import DisplaySteps, Transformed, Window, steps_of
from mamfed_client.imaging.doubts import Doubt, Doubtful, Doubts
from mamfed_client.imaging.lookup_tables import Levels, apply_lut, apply_window
from mamfed_client.imaging.mammogram import Grey, Mask
from mamfed_client.imaging.padding import (
    ValidArea,
    declared_padding,
    unpadded_area,
    verify_padding,
    without_padded_lines,
)
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.imaging.tone_evidence import (
    LEAST_SIDE,
    Tissue,
    Tones,
    every_nth,
    find_air,
    share_of_one_level,
    stretched_tones,
)
from mamfed_common.transforms.sample import FULL_SCALE

MAX_SATURATED, SATURATED_EXCESS = 0.5, 0.25
"""A window is unusable if it shows more than ``MAX_SATURATED`` of the tissue at one level, and
``SATURATED_EXCESS`` more than the pixels have at one level without it."""
UNSUSPICIOUS_SHARE = 0.2
"""Up to this share of the rough tissue, which includes some air, no closer check is made."""
MIN_LEVELS = 32
"""A modality LUT must keep this many distinct levels, or all if there are fewer."""
MAX_VARIATION = 1.5
"""Maximum total variation of a LUT's entries divided by their range; 1 if they are monotonic."""

Stored = npt.NDArray[Any]


class DisplayedImage(NamedTuple):
    """An image in the grey levels in which it is displayed.

    Attributes:
        grey: ``(H, W)`` uint16, tissue bright, 0..65535 for the whole output range of the VOI
            transformation, padding 0.
        valid: ``(H, W)`` bool, false on padding (PS3.3 C.7.5.1.1.2); None if there is none.
        doubts: Header values that the pixels do not confirm.
        steps: How stored values became grey levels.
    """

    grey: Grey
    valid: Mask | None
    doubts: Doubts = ()
    steps: DisplaySteps | None = None


@np.errstate(over="ignore")
def to_grey(stored: Stored, dataset: Dataset, *, to_show: bool = False) -> DisplayedImage:
    """Convert stored values to the grey levels that the header specifies for display.

    A VOI LUT Sequence takes precedence over windows, and the first of several is used: they are
    alternative views for the reader to choose from (PS3.3 C.11.2), and GE writes three of each. A
    LUT or window that shows most of the tissue at one level, or cannot be computed, is skipped in
    favour of the next. Without a usable one, levels are stretched from the darkest to the
    brightest pixel.

    Polarity follows Photometric Interpretation and Presentation LUT Shape. If they contradict each
    other, it is chosen so that the air is dark.

    Args:
        stored: ``(H, W)`` uint8, int8, uint16 or int16.
        dataset: The image's header.
        to_show: Read for display only: accept bright air.

    Raises:
        FileRejected: The whole image is padding, or the air is bright.
    """
    values = _every_value(stored.dtype)
    bits = _bit_patterns(stored)
    padding = declared_padding(values, dataset)
    in_use = _values_in_range(stored, values, None)
    unpadded = unpadded_area(stored, values, padding & in_use)
    if unpadded is not None:
        in_use = _values_in_range(stored, values, unpadded)
    levels, rescale = _modality(values, in_use, dataset)
    view = every_nth(bits)
    tones, air = _tones(levels[view], unpadded, dataset)
    tissue = Tissue(tones)
    valid = _valid_area(unpadded, padding, tissue)
    if valid.pixels is not unpadded:
        in_use = _values_in_range(stored, values, valid.pixels)
    (shown, window), doubts = _voi(levels, in_use, view, tissue, dataset)
    inverted, disputed = _polarity(shown[in_use], levels[in_use], 0 if to_show else air, dataset)
    if not valid.is_declared:
        doubts += (Doubtful(Doubt.PADDING, "tissue has (0028,0120) Pixel Padding Value"),)
    steps = steps_of(values, Transformed(shown, window), in_use, rescale, inverted=inverted)
    shown = 1 - shown if inverted else shown
    if valid.pixels is unpadded:
        shown[padding] = 0
    grey = _look_up(bits, shown, None if valid.pixels is unpadded else valid.pixels)
    return DisplayedImage(grey, None if valid.is_air else valid.pixels, doubts + disputed, steps)


def _every_value(dtype: np.dtype[Any]) -> Stored:
    """Return all values of a data type, ``(256,)`` or ``(65536,)``, by their bit patterns."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return np.arange(2 ** (8 * dtype.itemsize), dtype=unsigned).view(dtype)


def _bit_patterns(stored: Stored) -> Stored:
    """Return stored values as unsigned indices, signed ones by their bit patterns.

    OpenCV's manual says that it offsets signed indices, but version 5.0 does not.
    """
    return stored.view(f"u{stored.dtype.itemsize}")


def _look_up(bits: Stored, shown: Levels, valid: Mask | None) -> Grey:
    """Look up each pixel in the levels of all values, 0..1, at full scale; 0 outside ``valid``."""
    grey: Grey = cv2.LUT(bits, np.rint(shown * FULL_SCALE).astype(np.uint16))
    if valid is not None:
        grey[~valid] = 0
    return grey


def _valid_area(unpadded: Mask | None, padding: Mask, tissue: Tissue) -> ValidArea:
    """Return the area without padding, checked against the tissue."""
    if unpadded is None:
        return ValidArea()
    return verify_padding(unpadded, tissue, is_range=padding.sum() > 1)


def _values_in_range(stored: Stored, values: Stored, image: Mask | None) -> Mask:
    """Return which values lie between the image's minimum and maximum."""
    low, high, _, _ = cv2.minMaxLoc(stored, None if image is None else image.view(np.uint8))
    in_range: Mask = (values >= low) & (values <= high)
    return in_range


def _tones(levels: Levels, unpadded: Mask | None, dataset: Dataset) -> tuple[Tones, int]:
    """Return the view's tones, tissue bright, and which end of the levels is air."""
    tones = stretched_tones(levels, of=without_padded_lines(unpadded, levels))
    air = find_air(without_padded_lines(unpadded, tones))
    high_is_dark = air > 0 if air else _is_inverted(dataset)
    return (1 - tones if high_is_dark else tones), air


def _polarity(shown: Levels, levels: Levels, air: int, dataset: Dataset) -> tuple[bool, Doubts]:
    """Return whether to invert the image so that air is dark.

    Args:
        shown: ``(n,)`` output of the VOI transformation for the values in use.
        levels: ``(n,)`` output of the modality transformation for the same values.
        air: Which end of the levels is air, as returned by ``find_air``.
        dataset: The header.

    Raises:
        FileRejected: The header is consistent, but would show air bright.
    """
    inverted = _is_inverted(dataset)
    rises = bool(shown[levels.argmax()] >= shown[levels.argmin()])
    if air == 0 or (air < 0) == (rises != inverted):
        return inverted, ()
    if not _fields_disagree(dataset):
        photometric = text(dataset, "PhotometricInterpretation")
        raise FileRejected(Reason.INVERTED, f"the air is bright under (0028,0004) {photometric}")
    detail = "(0028,0004) and (2050,0020) contradict each other; the air decided"
    return not inverted, (Doubtful(Doubt.POLARITY, detail),)


def _fields_disagree(dataset: Dataset) -> bool:
    """Return whether Presentation LUT Shape contradicts Photometric Interpretation."""
    shape = text(dataset, "PresentationLUTShape")
    expected = (
        "INVERSE" if text(dataset, "PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY"
    )
    return shape in ("IDENTITY", "INVERSE") and shape != expected


def _is_inverted(dataset: Dataset) -> bool:
    """Return whether the header declares low values as bright.

    In a mammogram, Presentation LUT Shape INVERSE only restates MONOCHROME1 (PS3.3 C.8.11.3), so
    both together invert once.
    """
    return (
        text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        or text(dataset, "PresentationLUTShape") == "INVERSE"
    )


def _modality(
    values: Stored, in_use: Mask, dataset: Dataset
) -> tuple[Levels, tuple[float, float] | None]:
    """Apply the modality LUT or the rescale (PS3.3 C.11.1); they are mutually exclusive.

    A LUT that is far from monotonic, or merges many levels into few, is skipped.

    Returns:
        The levels, and slope and intercept; None for a LUT.
    """
    levels = values.astype(np.float64)
    for holder in (dataset, *frame_groups(dataset, "PixelValueTransformationSequence")):
        for lut in items(holder, "ModalityLUTSequence")[:1]:
            entries = apply_lut(levels, lut)
            if entries is not None and _keeps_levels(entries[0][in_use], levels[in_use]):
                return entries[0], None
        slope, intercept = numbers(holder, "RescaleSlope"), numbers(holder, "RescaleIntercept")
        if slope and intercept and slope[0] != 0:
            return levels * slope[0] + intercept[0], (slope[0], intercept[0])
    return levels, (1.0, 0.0)


def _keeps_levels(entries: Levels, levels: Levels) -> bool:
    min_levels = min(MIN_LEVELS, np.unique(levels).size)
    return not _oscillates(entries, levels) and np.unique(entries).size >= min_levels


def _oscillates(entries: Levels, levels: Levels) -> bool:
    """Return whether entries rise and fall repeatedly, as bytes in the wrong order do."""
    in_order = entries[np.argsort(levels, kind="stable")]
    return bool(np.abs(np.diff(in_order)).sum() > MAX_VARIATION * np.ptp(in_order))


def _voi(
    levels: Levels, in_use: Mask, view: Stored, tissue: Tissue, dataset: Dataset
) -> tuple[Transformed, Doubts]:
    """Apply the first VOI transformation that keeps the tissue's levels apart.

    Args:
        levels: ``(n,)`` levels of all stored values.
        in_use: ``(n,)`` bool, true for values in the image's range.
        view: ``(h, w)`` stored values of the reduced view, as bit patterns.
        tissue: The tissue on the same view.
        dataset: The header.

    Returns:
        The result, and a doubt if the first transformation was skipped.
    """
    doubts: Doubts = ()
    for shown, window in _transformations(levels, in_use, dataset):
        share = _saturated_share(shown, levels, view, tissue)
        if share == 0 and np.ptp(shown[in_use]) > 0:
            return Transformed(shown, window), doubts
        if min(view.shape) >= LEAST_SIDE and not doubts:
            detail = f"the first shows {share or 1:.0%} of the tissue at one level"
            doubts = (Doubtful(Doubt.WINDOW, detail),)
    darkest, brightest = levels[in_use].min(), levels[in_use].max()
    span = brightest - darkest
    if not np.isfinite(span):
        raise FileRejected(Reason.UNREADABLE_IMAGE, "grey levels are not finite")
    stretched: Levels = np.clip((levels - darkest) / (span or 1), 0, 1)
    return Transformed(stretched, Window.between(float(darkest), float(brightest))), doubts


def _saturated_share(shown: Levels, levels: Levels, view: Stored, tissue: Tissue) -> float:
    """Return the share of the tissue shown at one level, or 0 if the share is acceptable."""
    if min(view.shape) < LEAST_SIDE:
        return 0.0
    if share_of_one_level(shown[view[tissue.rough]]) <= UNSUSPICIOUS_SHARE:
        return 0.0
    values = view[tissue.fine]
    share = share_of_one_level(shown[values])
    limit = max(MAX_SATURATED, share_of_one_level(levels[values]) + SATURATED_EXCESS)
    return share if share > limit else 0.0


def _transformations(levels: Levels, in_use: Mask, dataset: Dataset) -> Iterator[Transformed]:
    """Yield the result of each VOI LUT, then of each window, in order of preference."""
    for holder in (dataset, *frame_groups(dataset, "FrameVOILUTSequence")):
        for lut in items(holder, "VOILUTSequence"):
            entries = apply_lut(levels, lut)
            if entries is not None and not _oscillates(entries[0][in_use], levels[in_use]):
                yield Transformed(entries[0] / entries[1], None)
        centres, widths = numbers(holder, "WindowCenter"), numbers(holder, "WindowWidth")
        function = text(holder, "VOILUTFunction").upper()
        for centre, width in zip(centres, widths, strict=False):
            shown = apply_window(levels, centre, width, function)
            if shown is not None:
                yield Transformed(shown, Window(centre, width, function))
