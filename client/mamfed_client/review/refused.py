"""Draw the rejected images that can be decoded, so that the fault is visible next to its reason."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import numpy as np

from mamfed_client.datasets.manifest import Row
from mamfed_client.imaging.geometry import Transform
from mamfed_client.imaging.mammogram import Mammogram, Mask
from mamfed_client.imaging.preprocess import analyse
from mamfed_client.imaging.rejections import FileRejected, Reason, Rejection
from mamfed_client.imaging.tone_evidence import stretched_tones
from mamfed_client.preparation.ingest import Intake
from mamfed_client.preparation.prepare_row import annotations_of, is_outlined
from mamfed_client.review.contact_sheet import jpeg_of, round_robin, whole_image
from mamfed_client.sandbox.decoder import Decoder
from mamfed_common.runtime.terminal import reading_progress
from mamfed_common.transforms.sample import FULL_SCALE, Sample

SIDE = 256
NEVER_SHOWN = frozenset({Reason.BURNED_IN, Reason.SECONDARY_CAPTURE})
"""The pixels of these images may name the patient."""


class RefusedPicture(NamedTuple):
    """A picture of a rejected image.

    Attributes:
        rejection: The row and the reason.
        jpeg: The file's whole image, unrotated, with its outlines, ``SIDE`` square.
        outlined: Whether a lesion is outlined.
    """

    rejection: Rejection
    jpeg: bytes
    outlined: bool


def draw_refused(intake: Intake, most: int) -> list[RefusedPicture]:
    """Draw at most ``most`` rejected images, from each reason in turn, with a progress bar.

    Images rejected for their header, or for pixels that contradict it, are shown as the header
    says, unless they may contain text. An image that cannot be decoded has no picture.
    """
    readable = [r for r in intake.rejected if r.row_number in intake.rejected_rows]
    order = list(Reason)
    chosen = round_robin(readable, lambda r: order.index(r.reason), lambda r: r.row_number, most)
    chosen.sort(key=lambda r: (order.index(r.reason), r.row_number))
    if not chosen:
        return []
    drawn = []
    with Decoder() as decoder, reading_progress("drawing", len(chosen)) as advance:
        for rejection in chosen:
            with suppress(FileRejected):
                drawn.append(_draw(rejection, intake.rejected_rows[rejection.row_number], decoder))
            advance(1, 0)
    return drawn


def _draw(rejection: Rejection, row: Row, decoder: Decoder) -> RefusedPicture:
    allow = row.allow | (frozenset(Reason) - NEVER_SHOWN)
    mammogram, _ = decoder.mammogram(row.image_path, allow, to_show=True)
    mask = _mask(row, mammogram, decoder)
    sample = _sample(mammogram, mask)
    return RefusedPicture(rejection, jpeg_of(sample), bool(sample.mask.any()))


def _mask(row: Row, mammogram: Mammogram, decoder: Decoder) -> Mask | None:
    if not is_outlined(row):
        return None
    try:
        return decoder.mask(annotations_of(row, mammogram), *mammogram.grey.shape)[0].mask
    except FileRejected:
        return None


def _sample(mammogram: Mammogram, mask: Mask | None) -> Sample:
    """Return the image as analysed or, if no breast is found, scaled from darkest to brightest."""
    with suppress(FileRejected):
        return whole_image(mammogram, mask, analyse(mammogram))
    rows, columns = mammogram.grey.shape
    transform = Transform(rows, columns, 0, rows, 0, columns, flipped=False, size=SIDE)
    tones = stretched_tones(transform.apply(mammogram.grey))
    image = (tones * np.float32(FULL_SCALE)).astype(np.uint16)
    nothing = np.zeros(image.shape, np.bool_)
    marked = nothing if mask is None else transform.apply_mask(mask)
    return Sample(image, nothing, marked, "")
