"""Check what a site sends before any of it is used.

Every fault in an answer is raised as a WeightsError that names it, so that none ends the run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from flwr.app import RecordDict

from mamfed_common.domain import PURPOSES, Part, Purpose
from mamfed_common.errors import WeightsError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.state_dict import State
from mamfed_common.plan import TrainingPlan, Wire
from mamfed_common.protocol.messages import ARRAYS, BODY, JSON, unpack_body, unpack_update
from mamfed_common.protocol.tasks import SiteDescription, TrainReport

if TYPE_CHECKING:
    from torch import Tensor

MIN_FOR_MEDIAN = 3
MAX_LOSS = 1e9
"""Largest loss of a training that has not diverged, with orders of magnitude to spare."""


class WrongCountError(WeightsError):
    """An update claims a number of examples that the site did not declare."""


class Candidate(NamedTuple):
    """An update that may be averaged.

    Attributes:
        state: The weights.
        report: What the site reports about its training.
    """

    state: State
    report: TrainReport


def read_description(content: RecordDict) -> SiteDescription:
    """Read a site's description of its data.

    Raises:
        WeightsError: It is malformed, or a count is out of range.
    """
    with _decoding_errors_as_weights_errors():
        _check_records(content, {BODY})
        return unpack_body(content, SiteDescription)


def read_update(
    content: RecordDict, start: State, declared: Mapping[Purpose, int], wire: Wire = "float32"
) -> Candidate:
    """Read a site's trained weights.

    Args:
        content: The answer.
        start: The weights that the round started from.
        declared: How many images of each purpose the site declared; the number that an update
            claims becomes its weight.
        wire: The plan's encoding of weights.

    Raises:
        WeightsError: Something is missing, malformed, unexpected, or does not fit the weights.
    """
    with _decoding_errors_as_weights_errors():
        _check_records(content, {ARRAYS, BODY})
        state, report = unpack_update(content, start, wire)
        for kind in PURPOSES:
            found, expected = report.num_examples.get(kind, 0), declared.get(kind, 0)
            if found != expected:
                raise WrongCountError(f"claims {found} {kind} examples but declared {expected}")
        if report.loss is not None and abs(report.loss) > MAX_LOSS:
            raise WeightsError(
                f"reports a loss of {report.loss:.3g}, at most {MAX_LOSS:g} expected"
            )
        return Candidate(state, report)


def read_score(
    content: RecordDict, description: SiteDescription, part: Part, plan: TrainingPlan
) -> SiteScore:
    """Read a site's score on one part of its data.

    Raises:
        WeightsError: It is malformed, or covers more than the site declared.
    """
    with _decoding_errors_as_weights_errors():
        _check_records(content, {BODY})
        score = unpack_body(content, SiteScore)
        malignant = description.images.get("malignant", {}).get(part, 0)
        without = description.images.get("without_malignancy", {}).get(part, 0)
        images, others = score.images or 0, score.images_without_malignancy or 0
        _check_at_most("images", images, malignant)
        # A small lesion may vanish on the plan's coarser grid; its image then counts as without.
        _check_at_most("images in all", images + others, malignant + without)
        _check_at_most("lesions", score.lesions or 0, images * plan.image_size**2)
        _check_at_most("lesions found", score.lesions_found or 0, score.lesions or 0)
        redrawn = score.lesions_redrawn or 0
        _check_at_most("lesions redrawn as tissue", score.redrawn_as_tissue or 0, redrawn)
        if score.lesions is not None:
            _check_at_most("lesions redrawn", redrawn, score.lesions)
        _check_at_most(
            "false positive pixels", score.false_positive_pixels or 0, plan.image_size**2
        )
        _check_counts_behind(score)
        return score


def distance(state: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> float:
    """Return the Euclidean distance of two sets of weights, computed in float64.

    Only floating-point tensors count. Memory: one tensor's difference.
    """
    import torch

    return math.hypot(
        *(
            float(torch.linalg.vector_norm(state[name] - tensor, dtype=torch.float64))
            for name, tensor in start.items()
            if tensor.is_floating_point()
        )
    )


def too_far(norms: Mapping[str, float], max_ratio: float) -> dict[str, str]:
    """Return the sites whose update is too far from the starting weights, each with the reason.

    Args:
        norms: Each site's distance from where it started.
        max_ratio: The largest distance allowed, as a multiple of the median.
    """
    if len(norms) < MIN_FOR_MEDIAN:
        return {}
    median = statistics.median(norms.values())
    return {
        site: f"its update's norm {norm:.3g} is over {max_ratio:g} times the median {median:.3g}"
        for site, norm in norms.items()
        if norm > max_ratio * median
    }


def too_long(norms: Mapping[str, float], max_ratio: float) -> dict[str, float]:
    """Return the sites whose update is to be shortened, each with its norm over the median norm.

    Args:
        norms: The distance from where its site started of each update that is not refused.
        max_ratio: The largest ratio that stays as it is.
    """
    if len(norms) < MIN_FOR_MEDIAN:
        return {}
    median = statistics.median(norms.values())
    return {site: norm / median for site, norm in norms.items() if norm > max_ratio * median}


def shortened(
    state: State, start: State, factor: float, names: Collection[str] | None = None
) -> State:
    """Return weights at ``factor`` times their distance from ``start``; counters stay.

    Args:
        state: The weights.
        start: Where they come from.
        factor: How much of the way they go.
        names: The arrays that change; None: all.
    """
    return {
        name: start[name] + (tensor - start[name]) * factor
        if tensor.is_floating_point() and (names is None or name in names)
        else tensor
        for name, tensor in state.items()
    }


@contextmanager
def _decoding_errors_as_weights_errors() -> Iterator[None]:
    """Turn decoders' errors about hostile bytes (BadZipFile, MemoryError) into WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"its answer cannot be read ({type(error).__name__})") from None


def _check_records(content: RecordDict, expected: set[str]) -> None:
    """Reject unexpected records. They are not named, because a name may be a patient's."""
    records = content.config_records
    extra = set(content) - expected
    if BODY in records:
        extra |= set(records[BODY]) - {JSON}
    if extra:
        raise WeightsError(f"sends {len(extra)} records that were not asked for")


def _check_counts_behind(score: SiteScore) -> None:
    images, others = score.images or 0, score.images_without_malignancy or 0
    counts = {
        "dice": images,
        "iou": images,
        "dice_at": images,
        "auroc": min(images, others),
        "sensitivity_at_1": score.lesions or 0,
        "redrawn_minus_ring": score.lesions_redrawn or 0,
        "false_positive_pixels": others,
    }
    for name, count in counts.items():
        if getattr(score, name) is not None and not count:
            raise WeightsError(f"reports {name} over nothing")


def _check_at_most(what: str, found: float, allowed: float) -> None:
    if found > allowed:
        raise WeightsError(f"reports {found:.15g} {what}, at most {allowed:.15g} are possible")
