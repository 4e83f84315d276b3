"""The contact sheet of a check: choose the images and draw them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.doubts import Doubt
from mamfed_client.imaging.mammogram import Mammogram, Mask
from mamfed_client.imaging.preprocess import (
    ImageAnalysis,
    Transform,
    analyse,
    intensity_range,
    prepare,
    rescale_intensity,
    transform_masks,
)
from mamfed_client.imaging.rejections import FileRejected
from mamfed_client.preparation.ingest import AcceptedImage
from mamfed_client.preparation.prepare_row import annotations_of
from mamfed_client.review.show import BREAST, LESION, outline, thickened
from mamfed_client.sandbox.decoder import Decoder
from mamfed_common.domain import Purpose
from mamfed_common.runtime.seeds import derive_seed
from mamfed_common.runtime.terminal import reading_progress
from mamfed_common.transforms.sample import FULL_SCALE, Sample

SIDE = 256
"""Side of a picture in pixels, slightly larger than it is displayed."""
LEVELS = 32
"""Number of bins of the grey-level histogram."""
JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, 88),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)
"""Colour keeps its full resolution; otherwise outlines of one pixel would blur."""

Item = TypeVar("Item")

ORDER: tuple[Purpose, ...] = ("malignant", "benign", "without_malignancy")
"""Order of precedence for listing an image that serves several purposes."""


@dataclass(frozen=True, slots=True)
class ImagePicture:
    """A picture of a prepared image.

    Attributes:
        case: The image.
        jpeg: The sample with its outlines, ``SIDE`` square; the whole image if it is doubtful.
        mirrored: Whether left and right are swapped compared with the file.
        outlined: Whether a lesion is outlined.
        breast_share: Share of the file's image that is breast, 0..1.
        levels: ``(LEVELS,)`` float64, shares of the breast's pixels by grey level, black to white.
    """

    case: AcceptedImage
    jpeg: bytes
    mirrored: bool
    outlined: bool
    breast_share: float
    levels: npt.NDArray[np.float64]


def choose(cases: Sequence[AcceptedImage], most: int) -> list[AcceptedImage]:
    """Choose doubtful images first, then others evenly from every vendor, view and purpose.

    Doubtful images are taken from each doubt in turn; among the others, malignant ones come first.
    Within a group the choice is random but reproducible: it depends on row numbers alone.

    Returns:
        At most ``most`` images: the doubtful ones by doubt and row, then the others by purpose,
        vendor, view and row.
    """
    doubtful = round_robin([case for case in cases if case.doubts], _by_doubt, _row, most)
    others = [case for case in cases if not case.doubts]
    chosen = round_robin(others, _group, _row, most - len(doubtful))
    return [
        *sorted(doubtful, key=lambda c: (*_by_doubt(c), c.row.row_number)),
        *sorted(chosen, key=lambda c: (*_group(c), c.row.row_number)),
    ]


def round_robin(
    items: Sequence[Item], group: Callable[[Item], Any], row: Callable[[Item], int], most: int
) -> list[Item]:
    """Take at most ``most`` items from all groups in turn, in an order seeded by row numbers."""
    groups: defaultdict[Any, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda i: derive_seed(0, "contact sheet", row(i))):
        groups[group(item)].append(item)
    turns = zip_longest(*(groups[key] for key in sorted(groups)))
    return list(islice((item for turn in turns for item in turn if item is not None), most))


def _row(case: AcceptedImage) -> int:
    return case.row.row_number


def main_category(case: AcceptedImage) -> Purpose | None:
    """Return the purpose that an image is listed under; None if it serves none."""
    return next((purpose for purpose in ORDER if purpose in case.purposes), None)


def draw(cases: Sequence[AcceptedImage]) -> tuple[list[ImagePicture], list[int]]:
    """Read images again and draw them, with a progress bar on stderr.

    Returns:
        The pictures in the order of ``cases``, and the rows that can no longer be read.
    """
    if not cases:
        return [], []
    drawn: list[ImagePicture] = []
    failed: list[int] = []
    with Decoder() as decoder, reading_progress("drawing", len(cases)) as advance:
        for case in cases:
            try:
                drawn.append(_draw(case, decoder))
            except FileRejected:
                failed.append(case.row.row_number)
            advance(1, int(case.row.row_number in failed))
    return drawn, failed


def _by_doubt(case: AcceptedImage) -> tuple[int]:
    return (list(Doubt).index(case.doubts[0].doubt),)


def _group(case: AcceptedImage) -> tuple[int, str, str]:
    purpose = main_category(case)
    rank = len(ORDER) if purpose is None else ORDER.index(purpose)
    return rank, case.row.vendor or "", case.row.view or ""


def _draw(case: AcceptedImage, decoder: Decoder) -> ImagePicture:
    row = case.row
    mammogram, _ = decoder.mammogram(row.image_path, row.allow)
    mammogram = replace(mammogram, facts=replace(mammogram.facts, laterality=row.laterality))
    mask: Mask | None = None
    if "malignant" in case.purposes:
        mask = decoder.mask(annotations_of(row, mammogram), *mammogram.grey.shape)[0].mask
    analysis = analyse(mammogram)
    sample, transform = prepare(mammogram, mask, SIDE, analysis=analysis)
    return ImagePicture(
        case=case,
        jpeg=jpeg_of(whole_image(mammogram, mask, analysis) if case.doubts else sample),
        mirrored=transform.flipped and not case.doubts,
        outlined=bool(sample.mask.any()),
        breast_share=_breast_share(sample, transform),
        levels=_levels(sample),
    )


def whole_image(mammogram: Mammogram, mask: Mask | None, analysis: ImageAnalysis) -> Sample:
    """Return the file's whole image, unrotated; cropping or turning could hide what is wrong."""
    grey, breast = mammogram.grey, analysis.view.breast
    rows, columns = grey.shape
    transform = Transform(rows, columns, 0, rows, 0, columns, flipped=False, size=SIDE)
    levels = intensity_range(grey, mammogram.valid, breast)
    breast_mask, marked = transform_masks(transform, breast, mammogram.valid, mask)
    return Sample(rescale_intensity(transform.apply(grey), *levels), breast_mask, marked, "")


def jpeg_of(sample: Sample) -> bytes:
    """Draw a sample with the outlines of breast and lesion."""
    grey = (sample.image >> 8).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    outline(picture, sample.breast_mask, BREAST)
    for reach in (3, 5):
        outline(picture, thickened(sample.mask, reach), LESION)
    _, encoded = cv2.imencode(".jpg", picture[..., ::-1], JPEG)
    return encoded.tobytes()


def _breast_share(sample: Sample, transform: Transform) -> float:
    file_pixels = sample.breast_mask.sum() / transform.scale**2
    return min(1.0, float(file_pixels / (transform.rows * transform.columns)))


def _levels(sample: Sample) -> npt.NDArray[np.float64]:
    inside = sample.image[sample.breast_mask]
    counts, _ = np.histogram(inside, LEVELS, (0, FULL_SCALE + 1))
    return counts / max(1, inside.size)
