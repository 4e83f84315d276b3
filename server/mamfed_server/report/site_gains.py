"""What each site gains by taking part, the worst site first, in a table and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mamfed_common.metrics.gains import Gain, compared
from mamfed_common.metrics.scores import SiteScore
from mamfed_common.metrics.small_numbers import MARK, few_patients, is_few
from mamfed_common.runtime.wording import counted
from mamfed_server.report.data import DiceDifference, SiteGain
from mamfed_server.report.results import ArmResult

MODELS = {"shared": "federated", "personal": "personal", "local": "local"}
"""A site's models by the arms of ``summary.json`` that they are of."""


NAMES = ("shared", "personal")


class GainRow(NamedTuple):
    """One site's row, all in words.

    Attributes:
        site: The site.
        images: Its held-out images with malignancy, and their patients where they are known.
        small: Whether these are so few that the figures say little.
        dice: Dice of the shared, personal and local-only model.
        gains: Shared minus local and personal minus local, with intervals where they are known.
        others: Its held-out images without malignancy, and their patients.
        marked: Share of the breast that the shared and the personal model mark on those.
        reason: Why it has no personal model; empty where it has one.
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
    """Return each site's promise, the worst first.

    Worst is the lowest difference of the shared model to local training where that is known, then
    the lowest Dice of the shared model.

    Args:
        known: What a simulation measured image by image.
        arms: The arms of the summary, which stand in where nothing was.
    """
    found = list(known) or _of_means(arms)
    return sorted(found, key=_order)


def gain_rows(promises: Sequence[SiteGain], arms: Sequence[ArmResult]) -> list[GainRow]:
    """Return the table; nothing where there is but the shared model to tell of."""
    by_name = {arm.name: arm for arm in arms}
    reasons = by_name["personal"].not_trained if "personal" in by_name else {}
    if not any(len(promise.dice) > 1 or len(promise.marked) > 1 for promise in promises):
        return []
    return [
        GainRow(
            site=promise.site,
            images=_behind(promise.images, promise.patients),
            small=promise.images > 0 and is_few(promise.images, promise.patients),
            dice=_three(promise.dice),
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
    """Say where a model scored lower than the site's own training would have, and where higher."""
    return [sentence for name in names for sentence in _said(name, promises)]


def gain_text(found: DiceDifference | None, patients: int | None = None) -> str:
    """Return a signed difference, with its interval where there is one, flagged if over few."""
    if found is None:
        return "n/a"
    text = f"{found.value:+.2f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{found.low:+.2f}, {found.high:+.2f}]{MARK * few_patients(patients)}"


def _said(name: str, promises: Sequence[SiteGain]) -> list[str]:
    found = [
        Gain(p.site, gain.value, gain.low, gain.high, p.images, p.patients)
        for p in promises
        if (gain := p.minus_local.get(name))
    ]
    return compared(f"The {name} model", "local training", found, digits=2)


def _of_means(arms: Sequence[ArmResult]) -> list[SiteGain]:
    """Make promises of sites' means: without intervals, and without the breast's pixels."""
    by_name = {arm.name: arm for arm in arms}
    scores = {m: by_name[a].scores for m, a in MODELS.items() if a in by_name}
    return [
        _of_scores(site, {m: found[site] for m, found in scores.items() if site in found})
        for site in sorted({site for found in scores.values() for site in found})
    ]


def _of_scores(site: str, scores: Mapping[str, SiteScore]) -> SiteGain:
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


def _order(promise: SiteGain) -> tuple[int, float, str]:
    """Sort by the difference where it is known, then by Dice, then sites without either."""
    if "shared" in promise.minus_local:
        return 0, promise.minus_local["shared"].value, promise.site
    if "shared" in promise.dice:
        return 1, promise.dice["shared"], promise.site
    return 2, 0.0, promise.site


def _three(dice: Mapping[str, float]) -> tuple[str, str, str]:
    shared, personal, local = (f"{dice[model]:.2f}" if model in dice else "n/a" for model in MODELS)
    return shared, personal, local


def _behind(images: int, patients: int | None) -> str:
    text = counted(images, "image")
    return text if patients is None else f"{text} of {counted(patients, 'patient')}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"
