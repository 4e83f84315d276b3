"""Pictures of refused images, as far as they decode: the fault is seen beside its reason."""

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
from mamfed_client.review.contact_sheet import jpeg_of, round_robin, whole
from mamfed_client.sandbox.decoder import Decoder
from mamfed_common.runtime.terminal import reading_progress
from mamfed_common.transforms.sample import FULL_SCALE, Sample

SIDE = 256
NEVER_SHOWN = frozenset({Reason.BURNED_IN, Reason.SECONDARY_CAPTURE})
"""Pixels of these may name the patient."""


class RefusedPicture(NamedTuple):
    """A picture of a refused image.

    Attributes:
        rejection: Which row, and why.
        jpeg: All of the file's image as it lies, with what outlines it, ``SIDE`` square.
        outlined: Whether a lesion is outlined.
    """

    rejection: Rejection
    jpeg: bytes
    outlined: bool


def draw_refused(intake: Intake, most: int) -> list[RefusedPicture]:
    """Draw refused images, at most so many, each reason in its turn, behind a progress bar.

    What is refused for what a header says of it, or for pixels that contradict it, is shown here as
    its header says, unless text may be in it. An image that does not decode has no picture.
    """
    tried = [r for r in intake.rejected if r.row_number in intake.refused]
    order = list(Reason)
    chosen = round_robin(tried, lambda r: order.index(r.reason), lambda r: r.row_number, most)
    chosen.sort(key=lambda r: (order.index(r.reason), r.row_number))
    if not chosen:
        return []
    drawn = []
    with Decoder() as decoder, reading_progress("drawing", len(chosen)) as done:
        for rejection in chosen:
            with suppress(FileRejected):
                drawn.append(_draw(rejection, intake.refused[rejection.row_number], decoder))
            done(1, 0)
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
    """Show the image with what is known of it; without a breast, from darkest to brightest."""
    with suppress(FileRejected):
        return whole(mammogram, mask, analyse(mammogram))
    rows, columns = mammogram.grey.shape
    transform = Transform(rows, columns, 0, rows, 0, columns, flipped=False, size=SIDE)
    tones = stretched_tones(transform.apply(mammogram.grey))
    image = (tones * np.float32(FULL_SCALE)).astype(np.uint16)
    nothing = np.zeros(image.shape, np.bool_)
    marked = nothing if mask is None else transform.apply_mask(mask)
    return Sample(image, nothing, marked, "")
