"""A round's average where groups of sites have norms of their own (``common/norm_groups.py``)."""

from __future__ import annotations

from collections.abc import Mapping

from mamfed_common.model.state_dict import State
from mamfed_common.plan import TrainingPlan
from mamfed_common.plan.norm_groups import group_arrays
from mamfed_server.aggregation.update_store import UpdateFolder


def average_groups(
    updates: UpdateFolder, shares: Mapping[str, float], start: State, plan: TrainingPlan
) -> State:
    """Average a round's updates, each group's norms over the sites of that group alone.

    The norms of a group that sent nothing move as the average's do: a group that comes in later
    starts from what the others have learned.

    Args:
        updates: The accepted updates.
        shares: Each accepted site's share of the average; they add up to 1.
        start: Weights that the round started from.
        plan: Says which sites form groups.
    """
    mean = updates.average(shares, start)
    for group, sites in sorted(plan.federation.norm_groups.items()):
        arrays = group_arrays(plan, group)
        present = {site: shares[site] for site in sites if site in shares}
        if present:
            total = sum(present.values())
            own = updates.average({s: share / total for s, share in present.items()}, start)
            mean |= {name: own[name] for name in arrays}
        else:
            mean |= {
                name: start[name] + (mean[plain] - start[plain]) for name, plain in arrays.items()
            }
    return mean
