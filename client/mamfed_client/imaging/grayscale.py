"""Stored values -> grey levels with bright tissue (the grey scale pipeline of DICOM PS3.4 N.2).

Order matters: modality LUT or rescale, then VOI LUT or window, and only then the inversion of
MONOCHROME1 (PS3.3 C.7.6.3.1.2, C.11.1, C.11.2). All of it is a function of the stored value, so
one table of all stored values is computed and looked up: 3.5 ms for 13.6 megapixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from mamfed_client.imaging.dicom_header import frame_groups, items, numbers, text, value
from mamfed_client.imaging.doubts import Doubt, Doubtful, Doubts
from mamfed_client.imaging.mammogram import Grey, Mask
from mamfed_client.imaging.padding import (
    ValidArea,
    believed,
    declared_padding,
    outside_of,
    without_padded_lines,
)
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.imaging.tone_evidence import (
    LEAST_SIDE,
    Tissue,
    Tones,
    air_is,
    every_nth,
    share_of_one_level,
    stretched_tones,
)
from mamfed_common.transforms.sample import FULL_SCALE

MOST, MORE = 0.5, 0.25
"""Share of the tissue at one level from which a window is not used, and by how much it must exceed
the share that the pixels have anyway."""
UNSUSPICIOUS = 0.2
"""Share of what is roughly tissue, some air among it, up to which nobody looks closer."""
LEAST_LEVELS = 32
"""A modality LUT leaves as many levels, or all that there are."""
FOLDED = 1.5
"""Way up and down of a LUT's entries, by their range; 1 where they only rise or only fall."""

Levels = npt.NDArray[np.float64]
Stored = npt.NDArray[Any]


class DisplayedImage(NamedTuple):
    """An image as it is to be seen.

    Attributes:
        grey: ``(H, W)`` uint16, tissue bright, 0..65535 for the whole output range of the VOI
            transformation, padding 0.
        valid: ``(H, W)`` bool, false where the file padded (PS3.3 C.7.5.1.1.2); None where it did
            not.
        doubts: What the header says and the pixels do not bear out.
    """

    grey: Grey
    valid: Mask | None
    doubts: Doubts = ()


@np.errstate(over="ignore")
def to_grey(stored: Stored, dataset: Dataset, *, to_show: bool = False) -> DisplayedImage:
    """Make grey levels of stored values as the header says that they are to be shown.

    The VOI LUT Sequence is preferred to the window, and of several the first is taken: both mean
    alternative views of which the reader chooses (PS3.3 C.11.2), and GE writes three of each. A
    LUT or window that shows most of the tissue in one level, or that cannot be computed, gives way
    to the next; without any, levels are stretched from the darkest to the brightest pixel.

    Polarity is what Photometric Interpretation and Presentation LUT Shape say. Where the two
    contradict each other the air, which is dark, decides.

    Args:
        stored: ``(H, W)`` uint8, int8, uint16 or int16.
        dataset: The image's header.
        to_show: Whether it is only to be looked at, so that bright air does not refuse it.

    Raises:
        Refusal: All is padding, or the air is bright.
    """
    values = _every_value(stored.dtype)
    # Signed too by bit pattern: OpenCV's manual offsets signed indices, version 5.0 does not.
    bits = stored.view(f"u{stored.dtype.itemsize}")
    padding = declared_padding(values, dataset)
    outside = outside_of(stored, values, padding)
    seen = _seen(stored, values, outside)
    levels = _modality(values, seen, dataset)
    view = every_nth(bits)
    tones, air = _tones(levels[view], outside, dataset)
    tissue = Tissue(tones)
    valid = (
        ValidArea() if outside is None else believed(outside, tissue, is_range=padding.sum() > 1)
    )
    if valid.pixels is not outside:
        seen = _seen(stored, values, valid.pixels)
    shown, doubts = _shown(levels, seen, view, tissue, dataset)
    inverted, disputed = _polarity(shown[seen], levels[seen], 0 if to_show else air, dataset)
    if not valid.is_declared:
        doubts += (Doubtful(Doubt.PADDING, "tissue has (0028,0120) Pixel Padding Value"),)
    shown = 1 - shown if inverted else shown
    if valid.pixels is outside:
        shown[padding] = 0
    table = np.rint(shown * FULL_SCALE).astype(np.uint16)
    grey = cv2.LUT(bits, table)
    if valid.pixels is not outside and valid.pixels is not None:
        grey[~valid.pixels] = 0
    return DisplayedImage(grey, None if valid.is_air else valid.pixels, doubts + disputed)


def _every_value(dtype: np.dtype[Any]) -> Stored:
    """Return all values of a data type, ``(256,)`` or ``(65536,)``, by their bit patterns."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return np.arange(2 ** (8 * dtype.itemsize), dtype=unsigned).view(dtype)


def _seen(stored: Stored, values: Stored, image: Mask | None) -> Mask:
    """Tell which values lie between the least and the greatest of the image."""
    low, high, _, _ = cv2.minMaxLoc(stored, None if image is None else image.view(np.uint8))
    seen: Mask = (values >= low) & (values <= high)
    return seen


def _tones(levels: Levels, outside: Mask | None, dataset: Dataset) -> tuple[Tones, int]:
    """Return the view's tones, tissue bright, and which end of the levels is air."""
    tones = stretched_tones(levels, of=without_padded_lines(outside, levels))
    air = air_is(without_padded_lines(outside, tones))
    high_is_dark = air > 0 if air else _is_inverted(dataset)
    return (1 - tones if high_is_dark else tones), air


def _polarity(shown: Levels, levels: Levels, air: int, dataset: Dataset) -> tuple[bool, Doubts]:
    """Tell whether to invert what is seen, ``(n,)`` as shown and as levels, so that air is dark.

    Raises:
        Refusal: The header, which does not contradict itself, would show air bright.
    """
    inverted = _is_inverted(dataset)
    rises = bool(shown[levels.argmax()] >= shown[levels.argmin()])
    if air == 0 or (air < 0) == (rises != inverted):
        return inverted, ()
    if not _fields_disagree(dataset):
        photometric = text(dataset, "PhotometricInterpretation")
        raise FileRejected(Reason.INVERTED, f"the air is bright under (0028,0004) {photometric}")
    found = "(0028,0004) and (2050,0020) contradict each other; the air decided"
    return not inverted, (Doubtful(Doubt.POLARITY, found),)


def _fields_disagree(dataset: Dataset) -> bool:
    """Tell whether Presentation LUT Shape is another than Photometric Interpretation demands."""
    shape = text(dataset, "PresentationLUTShape")
    demanded = (
        "INVERSE" if text(dataset, "PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY"
    )
    return shape in ("IDENTITY", "INVERSE") and shape != demanded


def _is_inverted(dataset: Dataset) -> bool:
    """Tell whether low values are bright.

    In a mammogram Presentation LUT Shape INVERSE only repeats what MONOCHROME1 says (PS3.3
    C.8.11.3), so both together invert once.
    """
    return (
        text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        or text(dataset, "PresentationLUTShape") == "INVERSE"
    )


def _modality(values: Stored, seen: Mask, dataset: Dataset) -> Levels:
    """Apply the modality LUT or the rescale (PS3.3 C.11.1); the two exclude each other.

    A LUT that folds, or leaves few levels of many, gives way to what comes next.
    """
    levels = values.astype(np.float64)
    for holder in (dataset, *frame_groups(dataset, "PixelValueTransformationSequence")):
        for lut in items(holder, "ModalityLUTSequence")[:1]:
            entries = _look_up(levels, lut)
            if entries is not None and _keeps(entries[0][seen], levels[seen]):
                return entries[0]
        slope, intercept = numbers(holder, "RescaleSlope"), numbers(holder, "RescaleIntercept")
        if slope and intercept and slope[0] != 0:
            return levels * slope[0] + intercept[0]
    return levels


def _keeps(entries: Levels, levels: Levels) -> bool:
    enough = min(LEAST_LEVELS, np.unique(levels).size)
    return not _folds(entries, levels) and np.unique(entries).size >= enough


def _folds(entries: Levels, levels: Levels) -> bool:
    """Tell whether entries go up and down with the levels, as bytes in a wrong order do."""
    in_order = entries[np.argsort(levels, kind="stable")]
    return bool(np.abs(np.diff(in_order)).sum() > FOLDED * np.ptp(in_order))


def _shown(
    levels: Levels, seen: Mask, view: Stored, tissue: Tissue, dataset: Dataset
) -> tuple[Levels, Doubts]:
    """Apply the first VOI transformation that leaves the tissue's levels apart: 0..1.

    Args:
        levels: ``(n,)`` of all stored values.
        seen: ``(n,)`` bool: which of them the image has.
        view: ``(h, w)`` stored values of the view, by their bit patterns.
        tissue: Of the view.
        dataset: The header.
    """
    doubts: Doubts = ()
    for shown in _transformations(levels, seen, dataset):
        share = _lost(shown, levels, view, tissue)
        if share == 0 and np.ptp(shown[seen]) > 0:
            return shown, doubts
        if min(view.shape) >= LEAST_SIDE and not doubts:
            found = f"the first shows {share or 1:.0%} of the tissue at one level"
            doubts = (Doubtful(Doubt.WINDOW, found),)
    darkest, brightest = levels[seen].min(), levels[seen].max()
    span = brightest - darkest
    if not np.isfinite(span):
        raise FileRejected(Reason.UNREADABLE_IMAGE, "grey levels are not finite")
    stretched: Levels = np.clip((levels - darkest) / (span or 1), 0, 1)
    return stretched, doubts


def _lost(shown: Levels, levels: Levels, view: Stored, tissue: Tissue) -> float:
    """Return the share of the tissue that is shown at one level; 0 where that is no fault."""
    if min(view.shape) < LEAST_SIDE:
        return 0.0
    if share_of_one_level(shown[view[tissue.rough]]) <= UNSUSPICIOUS:
        return 0.0
    values = view[tissue.fine]
    share = share_of_one_level(shown[values])
    return share if share > max(MOST, share_of_one_level(levels[values]) + MORE) else 0.0


def _transformations(levels: Levels, seen: Mask, dataset: Dataset) -> Iterator[Levels]:
    """Yield what each VOI LUT, then each window, makes of the levels: 0..1, best first."""
    for holder in (dataset, *frame_groups(dataset, "FrameVOILUTSequence")):
        for lut in items(holder, "VOILUTSequence"):
            entries = _look_up(levels, lut)
            if entries is not None and not _folds(entries[0][seen], levels[seen]):
                yield entries[0] / entries[1]
        centres, widths = numbers(holder, "WindowCenter"), numbers(holder, "WindowWidth")
        function = text(holder, "VOILUTFunction").upper()
        for centre, width in zip(centres, widths, strict=False):
            shown = _window(levels, centre, width, function)
            if shown is not None:
                yield shown


def _look_up(levels: Levels, lut: Dataset) -> tuple[Levels, int] | None:
    """Look levels up in a LUT; what lies outside takes the first or the last entry.

    Returns:
        The entries and the largest that the LUT could hold; None where it has no sound entries.
        Where entries exceed the bits that the descriptor names, its bits are wrong, not they.
    """
    descriptor = [int(number) for number in numbers(lut, "LUTDescriptor")]
    if len(descriptor) != 3:
        return None
    entries = _entries(lut, descriptor[0] % 65536 or 65536)  # 65536 is written as 0
    if entries is None:
        return None
    first = descriptor[1]
    if first > 32767 and levels.min() < 0:  # SS read as US
        first -= 65536
    place = np.clip(np.rint(levels) - first, 0, entries.size - 1).astype(np.intp)
    bits = descriptor[2] if 0 < descriptor[2] <= 16 else 16
    return entries[place].astype(np.float64), max(2**bits - 1, int(entries.max()))


def _entries(lut: Dataset, count: int) -> npt.NDArray[np.uint16] | None:
    """Return LUT Data ``(count,)``: 16-bit entries, or 8-bit ones two to a word."""
    data: Any = value(lut, "LUTData")
    if isinstance(data, bytes):
        is_little = lut.original_encoding[1] is not False
        data_16 = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2" if is_little else ">u2")
    else:
        try:
            data_16 = np.array(list(data), dtype=np.int64).astype(np.uint16)
        except (TypeError, ValueError, OverflowError):
            return None
    if data_16.size >= count:
        return data_16[:count].astype(np.uint16)
    bytes_8 = data_16.astype("<u2").view(np.uint8)
    return bytes_8[:count].astype(np.uint16) if bytes_8.size >= count else None


def _window(levels: Levels, centre: float, width: float, function: str) -> Levels | None:
    """Apply a window (PS3.3 C.11.2.1.2, C.11.2.1.3): 0..1; None where it has no width.

    A LINEAR window of width 1 is a threshold: allowed, but no picture of a breast.
    """
    if function not in ("SIGMOID", "LINEAR_EXACT"):
        centre, width = centre - 0.5, width - 1
    if width <= 0:
        return None
    if function == "SIGMOID":
        exponent = np.clip(-4 * (levels - centre) / width, -700, 700)  # exp overflows past 709
        return np.asarray(1 / (1 + np.exp(exponent)))
    return np.clip((levels - centre) / width + 0.5, 0, 1)
