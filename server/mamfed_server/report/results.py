"""The results in a summary: each arm's scores, and sentences that compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.wording import counted
from mamfed_server.aggregation.pooled_scores import mean_dice_of

ARM_NAMES = {
    "local": "local only",
    "centralised": "centralised",
    "personal": "personal",
    "federated": "federated",
}

Sites = Mapping[str, SiteDescription]
Scores = Mapping[str, SiteScore]


@dataclass(frozen=True)
class ArmResult:
    """One arm's results on held-out test images.

    Attributes:
        name: Its key in ``summary.json``.
        mean_dice: Mean over sites of their mean Dice.
        scores: Score of each measured site.
        across: For local models, scores by training site, then by test site.
        not_trained: Sites without a model in this arm, each with the reason.
    """

    name: str
    mean_dice: float | None
    scores: Scores
    across: Mapping[str, Scores]
    not_trained: Mapping[str, str]

    @property
    def label(self) -> str:
        """The arm in words."""
        return ARM_NAMES.get(self.name, self.name)

    @property
    def rated(self) -> set[str]:
        """Sites with a Dice."""
        return {site for site, score in self.scores.items() if score.dice is not None}


def read_arms(summary: Mapping[str, Any]) -> list[ArmResult]:
    """Read the arms of a summary, the federated one last."""
    arms = summary["arms"]
    order = [*(n for n in arms if n not in ARM_NAMES), *(n for n in ARM_NAMES if n in arms)]
    return [
        ArmResult(
            name=name,
            mean_dice=arms[name]["mean_dice"],
            scores=_read_scores(arms[name]["sites"]),
            across={s: _read_scores(v) for s, v in sorted(arms[name].get("across", {}).items())},
            not_trained=arms[name].get("not_trained", {}),
        )
        for name in order
    ]


def read_sites(summary: Mapping[str, Any]) -> dict[str, SiteDescription]:
    """Read the sites' descriptions from a summary, sorted by name."""
    sites = sorted(summary["sites"].items())
    return {name: SiteDescription.model_validate(values) for name, values in sites}


def common_sites(arms: Sequence[ArmResult]) -> list[str]:
    """Return the sites with a Dice in every arm."""
    return sorted(set.intersection(*(arm.rated for arm in arms))) if arms else []


def comparable(arms: Sequence[ArmResult]) -> bool:
    """Return whether the means of all arms cover the same sites."""
    return len({frozenset(arm.rated) for arm in arms}) <= 1


def verdict(arms: Sequence[ArmResult]) -> list[str]:
    """Return sentences on what was measured, without interpretation, the federated arm first."""
    if not arms or arms[-1].mean_dice is None:
        return ["No Dice was measured on held-out images."]
    *others, first = arms
    images = sum(first.scores[site].images or 0 for site in first.rated)
    sentence = (
        f"{first.label.capitalize()}: mean Dice {dice_text(first.mean_dice)} over "
        f"{counted(len(first.rated), 'site')} "
        f"({counted(images, 'held-out image')} with malignancy)"
    )
    if comparable(arms):
        rest = [f"{arm.label} {dice_text(arm.mean_dice)}" for arm in others]
        return ["; ".join([sentence, *rest]) + "."]
    return [f"{sentence}.", _comparison_over_common_sites(arms)]


def dice_text(value: float | None) -> str:
    """Return a Dice with two decimals, or ``n/a`` for None."""
    return "n/a" if value is None else f"{value:.2f}"


def _read_scores(values: Mapping[str, Any]) -> dict[str, SiteScore]:
    return {site: SiteScore.model_validate(score) for site, score in sorted(values.items())}


def _comparison_over_common_sites(arms: Sequence[ArmResult]) -> str:
    """Return a comparison over the common sites, for arms whose means cover different sites."""
    common = common_sites(arms)
    if not common:
        return "No site was measured in every arm, so the arms cannot be compared."
    means = [
        f"{arm.label} {dice_text(mean_dice_of({s: arm.scores[s] for s in common}))}"
        for arm in reversed(arms)
    ]
    where = "the one site" if len(common) == 1 else f"the {len(common)} sites"
    return f"At {where} measured in every arm ({', '.join(common)}): {'; '.join(means)}."
