"""Lesion detection: connected regions, hits and false alarms, FROC and AUROC."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mamfed_common.metrics.site_score import FOUND_SHARE

if TYPE_CHECKING:
    from mamfed_common.metrics.scores import ImageScore

BoolImage = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

CANDIDATE_THRESHOLD = 0.1
"""Minimum probability of the pixels in candidate regions for the FROC curve."""
MOST_CANDIDATES = 100
"""Maximum candidates per image; the strongest are kept. An untrained network gives tens of
thousands, and no false-positive rate of interest comes near this limit."""
RATES = (0.25, 0.5, 1.0, 2.0)
"""False positives per image at which the sensitivity is read from the FROC curve."""


class Regions(NamedTuple):
    """The connected regions (8-connected) of a mask.

    Attributes:
        labels: ``(S, S)`` int32: 0 outside, otherwise the region's number, from 1.
        pixels: ``(regions + 1,)`` int64: area of each region, by number; entry 0 is 0.
    """

    labels: npt.NDArray[np.int32]
    pixels: Ids

    @property
    def last(self) -> int:
        """The highest region number; 0 if there is no region."""
        return len(self.pixels) - 1


class Overlaps(NamedTuple):
    """Pairs of lesions and regions that overlap, each array ``(pairs,)`` int64.

    Attributes:
        lesion: The lesion's number, from 1.
        region: The region's number, from 1.
        pixels: Number of pixels that they share.
    """

    lesion: Ids
    region: Ids
    pixels: Ids


class Detections(NamedTuple):
    """Scores of an image's lesions and false alarms.

    Attributes:
        hits: Score of each lesion, by number: that of its best candidate, 0 without one.
        false_alarms: Score of each candidate that hits no lesion.
    """

    hits: tuple[float, ...]
    false_alarms: tuple[float, ...]


class FrocCurve(NamedTuple):
    """Sensitivity against false positives, from the lowest threshold to the highest.

    Attributes:
        false_positives_per_image: False alarms per image, over images with and without malignancy.
        sensitivity: Fraction of lesions hit, 0..1.
        images: Number of images.
        lesions: Number of lesions in them.
    """

    false_positives_per_image: tuple[float, ...]
    sensitivity: tuple[float, ...]
    images: int
    lesions: int

    def sensitivity_at(self, rate: float) -> float:
        """Return the sensitivity, 0..1, at a number of false positives per image.

        It is interpolated linearly between thresholds, as in CAMELYON 16; beyond the last candidate
        it is the highest value reached.
        """
        from monai.metrics import compute_froc_score

        rates, sensitivity = map(np.array, (self.false_positives_per_image, self.sensitivity))
        return float(compute_froc_score(rates, sensitivity, eval_thresholds=(rate,)))


def regions_of(marked: BoolImage) -> Regions:
    """Return the connected regions of a ``(S, S)`` mask."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(marked.astype(np.uint8), connectivity=8)
    pixels = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    pixels[0] = 0
    return Regions(np.asarray(labels, np.int32), pixels)


def overlaps(lesions: Regions, regions: Regions) -> Overlaps:
    """Count the pixels that lesions share with regions; other pairs are omitted."""
    both = (lesions.labels > 0) & (regions.labels > 0)
    wide = regions.last + 1
    pairs, pixels = np.unique(
        lesions.labels[both].astype(np.int64) * wide + regions.labels[both], return_counts=True
    )
    return Overlaps(pairs // wide, pairs % wide, pixels)


def detect(probability: Pixels, lesions: Regions) -> Detections:
    """Match an image's candidates with its lesions.

    A candidate is a connected region (8-connected) at or above :data:`CANDIDATE_THRESHOLD`. It hits
    every lesion of which it covers at least :data:`FOUND_SHARE`.

    Args:
        probability: ``(S, S)`` float32, 0..1.
        lesions: The image's malignant regions.
    """
    candidates = regions_of(probability >= CANDIDATE_THRESHOLD)
    scores = region_scores(probability, candidates)
    strongest = np.argsort(-scores[1:], kind="stable")[:MOST_CANDIDATES] + 1
    shared = overlaps(lesions, candidates)
    hit = shared.pixels / lesions.pixels[shared.lesion] >= FOUND_SHARE
    hit &= np.isin(shared.region, strongest)
    best = np.zeros(lesions.last + 1)
    np.maximum.at(best, shared.lesion[hit], scores[shared.region[hit]])
    alarms = strongest[np.isin(strongest, shared.region[hit], invert=True)]
    return Detections(tuple(best[1:].tolist()), tuple(scores[alarms].tolist()))


def region_scores(probability: Pixels, regions: Regions) -> npt.NDArray[np.float64]:
    """Return the mean probability of each region, ``(regions + 1,)``.

    With a Dice loss most regions have a pixel near 1, so maxima hardly distinguish them, and sums
    favour large regions. On 203 held-out mammograms (125 lesions, 256 x 256) the sensitivity,
    averaged over :data:`RATES`, was 0.65 by the mean, 0.64 by the maximum and 0.51 by the sum.
    """
    inside = regions.labels > 0
    labels, weights = regions.labels[inside], probability[inside].astype(np.float64)
    sums = np.bincount(labels, weights, minlength=regions.last + 1)
    return np.asarray(sums / np.maximum(regions.pixels, 1), np.float64)


def froc(scores: Sequence[ImageScore]) -> FrocCurve | None:
    """Return the FROC curve over all images; None without a lesion."""
    hits = [lesion.score for score in scores for lesion in score.lesion_scores]
    if not hits:
        return None
    from monai.metrics import compute_froc_curve_data

    # MONAI omits the lowest score from the thresholds; a 0 in front, which counts nowhere, is lost.
    alarms = [0.0, *chain.from_iterable(score.false_alarms for score in scores)]
    rates, sensitivity = compute_froc_curve_data(
        np.array(alarms), np.array(hits), len(hits), len(scores)
    )
    return FrocCurve(tuple(rates.tolist()), tuple(sensitivity.tolist()), len(scores), len(hits))


def auroc(scores: Sequence[ImageScore]) -> float | None:
    """Return the AUROC of the maps' peaks for images with against those without malignancy, 0..1.

    None if one of the two classes is missing.
    """
    area = roc_area(peaks_and_truth(scores))
    return None if np.isnan(area) else area


def peaks_and_truth(scores: Sequence[ImageScore]) -> npt.NDArray[np.float64]:
    """Return ``(2, images)``: each map's peak, and 1 if the image has a malignancy, otherwise 0."""
    return np.array([[s.peak for s in scores], [s.lesion_pixels > 0 for s in scores]], np.float64)


def roc_area(peaks_and_truth: npt.NDArray[np.float64]) -> float:
    """Return the area under the ROC curve of ``(2, images)``; NaN if a class is missing."""
    peaks, truth = torch.from_numpy(peaks_and_truth)
    if len(truth.unique()) < 2:
        return float("nan")
    from monai.metrics import compute_roc_auc

    return float(compute_roc_auc(peaks, truth))
