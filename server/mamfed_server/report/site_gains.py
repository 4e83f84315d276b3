"""What each site gains by taking part: a table, worst site first, and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mamfed_common.metrics.gains import Gain, compared
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.metrics.small_numbers import MARK, few_patients, is_few
from mamfed_common.runtime.wording import counted
from mamfed_server.report.data import DiceDifference, SiteGain
from mamfed_server.report.results import ArmResult

MODELS = {"shared": "federated", "personal": "personal", "local": "local"}
"""The arm in ``summary.json`` of each kind of model."""


NAMES = ("shared", "personal")


class GainRow(NamedTuple):
    """One site's row, as text.

    Attributes:
        site: The site.
        images: Its held-out images with malignancy, and their patients if known.
        small: Whether these are too few for reliable figures.
        dice: Dice of the shared, personal and local-only model.
        gains: Shared minus local and personal minus local, with intervals if known.
        others: Its held-out images without malignancy, and their patients.
        marked: Fraction of the breast that the shared and the personal model mark on those.
        reason: Why it has no personal model; empty: it has one.
    """

    site: str
    images: str
    small: bool
    dice: tuple[str, str, str]
    gains: tuple[str, str]
    others: str
    marked: tuple[str, str]
    reason: str


def gains_of(known: Sequence[SiteGain], arms: Sequence[ArmResult]) -> list[SiteGain]:
    """Return what each site gains, worst first.

    Sites are ordered by the difference between the shared model and local training if it is known,
    then by the Dice of the shared model, both ascending.

    Args:
        known: Gains that a simulation measured per image.
        arms: The arms of the summary, used if ``known`` is empty.
    """
    return sorted(list(known) or _gains_of_means(arms), key=_worst_first)


def gain_rows(promises: Sequence[SiteGain], arms: Sequence[ArmResult]) -> list[GainRow]:
    """Return the rows of the table; none if only the shared model was measured."""
    by_name = {arm.name: arm for arm in arms}
    reasons = by_name["personal"].not_trained if "personal" in by_name else {}
    if not any(len(promise.dice) > 1 or len(promise.marked) > 1 for promise in promises):
        return []
    return [
        GainRow(
            site=promise.site,
            images=_behind(promise.images, promise.patients),
            small=promise.images > 0 and is_few(promise.images, promise.patients),
            dice=_dice_texts(promise.dice),
            gains=(
                gain_text(promise.minus_local.get("shared"), promise.patients),
                gain_text(promise.minus_local.get("personal"), promise.patients),
            ),
            others=_behind(promise.other_images, promise.other_patients),
            marked=(_share(promise.marked.get("shared")), _share(promise.marked.get("personal"))),
            reason=reasons.get(promise.site, ""),
        )
        for promise in promises
    ]


def gain_sentences(promises: Sequence[SiteGain], names: Sequence[str] = NAMES) -> list[str]:
    """Return sentences on where each model scored lower or higher than local training."""
    return [sentence for name in names for sentence in _comparison(name, promises)]


def gain_text(difference: DiceDifference | None, patients: int | None = None) -> str:
    """Return a signed difference and its interval if known, flagged if from few patients."""
    if difference is None:
        return "n/a"
    text = f"{difference.value:+.2f}"
    if difference.low is None or difference.high is None:
        return text
    return f"{text} [{difference.low:+.2f}, {difference.high:+.2f}]{MARK * few_patients(patients)}"


def _comparison(name: str, promises: Sequence[SiteGain]) -> list[str]:
    gains = [
        Gain(p.site, gain.value, gain.low, gain.high, p.images, p.patients)
        for p in promises
        if (gain := p.minus_local.get(name))
    ]
    return compared(f"The {name} model", "local training", gains, digits=2)


def _gains_of_means(arms: Sequence[ArmResult]) -> list[SiteGain]:
    """Return gains computed from the sites' means: without intervals or marked fractions."""
    by_name = {arm.name: arm for arm in arms}
    by_model = {m: by_name[a].scores for m, a in MODELS.items() if a in by_name}
    return [
        _gain_of_scores(site, {m: scores[site] for m, scores in by_model.items() if site in scores})
        for site in sorted({site for scores in by_model.values() for site in scores})
    ]


def _gain_of_scores(site: str, scores: Mapping[str, SiteScore]) -> SiteGain:
    dice = {model: score.dice for model, score in scores.items() if score.dice is not None}
    minus_local: dict[str, DiceDifference] = {
        model: DiceDifference(value=dice[model] - dice["local"])
        for model in ("shared", "personal")
        if model in dice and "local" in dice
    }
    return SiteGain(
        site=site,
        images=max((score.images or 0 for score in scores.values()), default=0),
        dice=dice,
        minus_local=minus_local,
        other_images=max((s.images_without_malignancy or 0 for s in scores.values()), default=0),
    )


def _worst_first(promise: SiteGain) -> tuple[int, float, str]:
    """Return the sort key: by difference if known, then by Dice, then sites without either."""
    if "shared" in promise.minus_local:
        return 0, promise.minus_local["shared"].value, promise.site
    if "shared" in promise.dice:
        return 1, promise.dice["shared"], promise.site
    return 2, 0.0, promise.site


def _dice_texts(dice: Mapping[str, float]) -> tuple[str, str, str]:
    shared, personal, local = (f"{dice[model]:.2f}" if model in dice else "n/a" for model in MODELS)
    return shared, personal, local


def _behind(images: int, patients: int | None) -> str:
    text = counted(images, "image")
    return text if patients is None else f"{text} of {counted(patients, 'patient')}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"
