"""What each site of a round weighs in the average, by the images that it used."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mamfed_common.domain import Purpose
from mamfed_common.plan import TRAINED_ON, FederationPlan, Stage, Weighing

BESIDE = 0.25
"""What an image counts that stands beside in stage 2: a step has half as many of them as malignant
ones, and the default plan gives what is learned of them half the weight (``losses.benign``)."""


def shares(
    examples: Mapping[str, Mapping[Purpose, int]], stage: Stage, plan: FederationPlan
) -> dict[str, float]:
    """Return each site's share of the average, in the order of their names; they add up to 1.

    Args:
        examples: Images of each kind that each accepted site used, at least one.
        stage: The stage.
        plan: Its ``weights`` and ``max_share``.
    """
    weights = {site: _weight(examples[site], stage, plan.weights) for site in sorted(examples)}
    return _capped(weights, plan.max_share)


def _weight(examples: Mapping[Purpose, int], stage: Stage, weighing: Weighing) -> float:
    if weighing == "equal":
        return 1.0
    own = examples.get(TRAINED_ON[stage], 0)
    count = own + BESIDE * (sum(examples.values()) - own)
    return math.sqrt(count) if weighing == "sqrt" else count


def _capped(weights: Mapping[str, float], max_share: float) -> dict[str, float]:
    """Share 1 out by weights, no part above the cap: what is cut goes to the rest in proportion."""
    if not weights:
        return {}
    cap = max(max_share, 1 / len(weights))
    free, left = dict(weights), 1.0
    while True:
        total = sum(free.values())
        over = [site for site, weight in free.items() if left * weight / total > cap]
        for site in over:
            del free[site]
            left -= cap
        if not over:
            break
    return {s: left * free[s] / total if s in free else cap for s in weights}
