"""What pixels themselves tell of how they are stored, held against what the header says.

Neighbours in a mammogram differ little. Read with the wrong sign, number of bits or byte order they
jump by the whole range, and read in the way that is right they do not. Measured on 1,122 real
images: of the neighbours at most 0.0015 % jump by 15/16 of the range, and their mean difference is
at most 0.16 of that of strangers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.rejections import FileRejected, Reason

Stored = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]

ROWS = 48
"""Rows looked at, evenly spread."""
LEAST = 32
"""Neighbours that tell something, at least; some images are drawn of a few pixels."""
LEAST_SHARE = 0.001
"""Share of neighbours that must jump where the header says the usual: labels' edges jump, too."""
LEAST_SHARE_ODD = 0.0002
"""Likewise, where it says what few mammograms have: signed pixels, or bits that are no value."""
NEAR, NEAR_SPARE = 1 / 16, 1 / 32
"""Differences up to these shares of the range are of neighbours."""
ROUGH = 0.4
"""Mean difference of neighbours, by that of strangers, from which another order is looked at."""
STRANGERS = 97
"""Distance of pixels that tell nothing of each other."""


def check_sign(pixels: Stored, bits: int) -> None:
    """Refuse pixels that wrap round: signed ones read as unsigned, or the reverse, or cut values.

    Args:
        pixels: ``(H, W)`` as read, of a signed type where the header says so.
        bits: How many bits are the value.

    Raises:
        Refusal: The other reading is smooth where this one jumps.
    """
    rows, span = _sampled(pixels), 1 << bits
    signed = pixels.dtype.kind == "i"
    unsigned = rows & (span - 1)
    steps = np.diff(unsigned, axis=1)
    far = np.abs(steps) > (1 - NEAR) * span
    if not signed and np.count_nonzero(far) <= LEAST:
        return
    apart = _apart(unsigned >= span // 2)
    smooth = int((np.abs(steps[apart]) < NEAR * span).sum())
    far &= apart
    wrapped = int((far & ~_edges(steps, span)).sum()) if far.any() else 0
    if signed:
        if smooth > max(wrapped, LEAST, LEAST_SHARE_ODD * rows.size):
            raise _contradiction("the pixels are unsigned, (0028,0103) says signed")
    elif wrapped > max(smooth / 2, LEAST, LEAST_SHARE * rows.size):
        raise _contradiction("the pixels wrap round: they are signed, or their upper bits were cut")


def check_spare_bits(words: Stored, lowest: int, bits: int, *, signed: bool, lossy: bool) -> None:
    """Refuse a header that says fewer bits than the pixels have.

    Args:
        words: ``(H, W)`` as decoded.
        lowest: The lowest bit of the value, counted from 0.
        bits: How many bits are the value.
        signed: Whether the value is a two's complement, whose sign may have been extended.
        lossy: Whether a decoder may have overshot the largest value, by less than a quarter.

    Raises:
        Refusal: The bits above the value go on where the value wraps round. (Overlays, which were
            once stored there, jump where the value does not.)
    """
    top, container = lowest + bits, words.dtype.itemsize * 8
    if top == container:
        return
    rows, found = _sampled(words.view(f"u{container // 8}")), f"pixels of more than {bits} bits"
    spare = rows >> top
    if not spare.any():
        return
    if lossy and not signed and not lowest:
        if (rows > (5 << bits) // 4).sum() > max(LEAST, LEAST_SHARE_ODD * rows.size):
            raise _contradiction(found)
        return
    if signed:
        extended = (1 << (container - top)) - 1
        spare[(spare == extended) & (rows >> (top - 1) & 1 == 1)] = 0
    value = rows & ((1 << top) - 1)
    apart = _apart(spare)
    whole = 1 << int(rows.max()).bit_length()
    goes_on = int((np.abs(np.diff(rows, axis=1))[apart] < NEAR_SPARE * whole).sum())
    is_value = int((np.abs(np.diff(value, axis=1))[apart] < NEAR_SPARE * (1 << top)).sum())
    if goes_on > max(is_value, LEAST, LEAST_SHARE_ODD * rows.size):
        raise _contradiction(found)


def check_byte_order(words: Stored) -> None:
    """Refuse 16-bit words whose two bytes lie the other way round.

    Args:
        words: ``(H, W)``, 8 or 16 bits.

    Raises:
        Refusal: Swapped, they make a picture, and as they are they make none.
    """
    if words.dtype.itemsize != 2:
        return
    rows = np.ascontiguousarray(words[:: _step(words)])
    roughness = _roughness(rows)
    if roughness > ROUGH and _roughness(rows.byteswap()) < roughness / 2:
        raise _contradiction("the pixels' bytes lie in the wrong order")


def check_shape(words: Stored) -> None:
    """Refuse uncompressed pixels whose rows and columns the header names the wrong way round.

    Raises:
        Refusal: With height and width swapped, rows resemble the next, and as they are they do not.
    """
    height, width = words.shape
    if height == width or min(height, width) < 2:
        return
    turned = words.reshape(width, height)
    as_said = _likeness_of_rows(words)
    across = float(np.abs(np.diff(_sampled(words), axis=1)).mean())
    if as_said > 3 * across and as_said > 3 * _likeness_of_rows(turned):
        raise _contradiction("(0028,0010) Rows and (0028,0011) Columns are swapped")


def _likeness_of_rows(words: Stored) -> float:
    step = _step(words)
    above, below = words[:-1:step].astype(np.int32), words[1::step].astype(np.int32)
    return float(np.abs(above - below[: len(above)]).mean())


def _roughness(rows: Stored) -> float:
    levels = rows.astype(np.int32)
    strangers = np.abs(levels[:, STRANGERS:] - levels[:, :-STRANGERS])
    if not strangers.size or not strangers.any():
        return 0.0
    return float(np.abs(np.diff(levels, axis=1)).mean() / strangers.mean())


def _edges(steps: npt.NDArray[np.int32], span: int) -> Flags:
    """Tell steps from black to white, and those beside a flat bright area: labels and padding."""
    level = np.pad(steps == 0, ((0, 0), (2, 2)))
    before, after = level[:, :-4] & level[:, 1:-3], level[:, 3:-1] & level[:, 4:]
    edges: Flags = np.where(steps < 0, before, after) | (np.abs(steps) == span - 1)
    return edges


def _apart(classes: npt.NDArray[Any]) -> Flags:
    apart: Flags = classes[:, 1:] != classes[:, :-1]
    return apart


def _step(pixels: Stored) -> int:
    return max(1, int(pixels.shape[0]) // ROWS)


def _sampled(pixels: Stored) -> npt.NDArray[np.int32]:
    return pixels[:: _step(pixels)].astype(np.int32)


def _contradiction(found: str) -> FileRejected:
    return FileRejected(Reason.CONTRADICTION, found)
