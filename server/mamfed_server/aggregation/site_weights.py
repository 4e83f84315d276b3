"""Each site's share of the average, by the number of images that it used."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mamfed_common.domain import Purpose
from mamfed_common.plan import TRAINED_ON, FederationPlan, Stage, Weighing

BESIDE = 0.25
"""Weight of an image that accompanies the malignant ones in stage 2: a step has half as many of
them, and the default plan gives their part of the loss half the weight (``losses.benign``)."""


def shares(
    examples: Mapping[str, Mapping[Purpose, int]], stage: Stage, plan: FederationPlan
) -> dict[str, float]:
    """Return each site's share of the average, in the order of their names; they add up to 1.

    Args:
        examples: Images of each purpose that each accepted site used; at least one image per site.
        stage: The stage.
        plan: Holds ``weights``, ``max_share`` and ``max_share_ratio``.
    """
    weights = {site: _weight(examples[site], stage, plan.weights) for site in sorted(examples)}
    return _capped(weights, plan)


def shares_within(shares: Mapping[str, float], plan: FederationPlan) -> dict[str, float]:
    """Return the shares of some sites among themselves, capped like those of all."""
    return _capped(shares, plan)


def counts_that_weigh(
    now: Mapping[Purpose, int], first: Mapping[Purpose, int]
) -> Mapping[Purpose, int]:
    """Return the counts that a site weighs by: what it has now, but not more than it had first.

    Args:
        now: Images of each purpose that its update used.
        first: Those of its first accepted update of the stage; empty if there was none.
    """
    grown = any(count > first.get(purpose, 0) for purpose, count in now.items())
    return first if first and grown else now


def _weight(examples: Mapping[Purpose, int], stage: Stage, weighing: Weighing) -> float:
    if weighing == "equal":
        return 1.0
    own = examples.get(TRAINED_ON[stage], 0)
    count = own + BESIDE * (sum(examples.values()) - own)
    return math.sqrt(count) if weighing == "sqrt" else count


def largest_share(num_sites: int, plan: FederationPlan) -> float:
    """Return the largest share that one of so many sites may have."""
    return min(max(plan.max_share, 1 / num_sites), plan.max_share_ratio / num_sites)


def _capped(weights: Mapping[str, float], plan: FederationPlan) -> dict[str, float]:
    """Divide 1 by weights; what a share exceeds the cap by goes to the rest in proportion."""
    if not weights:
        return {}
    cap = largest_share(len(weights), plan)
    free, remaining = dict(weights), 1.0
    while True:
        total = sum(free.values())
        over = [site for site, weight in free.items() if remaining * weight / total > cap]
        for site in over:
            del free[site]
            remaining -= cap
        if not over:
            break
    return {s: remaining * free[s] / total if s in free else cap for s in weights}
