"""Combine a round's updates where groups of sites have their own norms.

See ``mamfed_common.plan.norm_groups``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mamfed_common.model.state_dict import State
from mamfed_common.plan import TrainingPlan
from mamfed_common.plan.norm_groups import group_arrays
from mamfed_server.aggregation.site_weights import shares_within


def aggregate_groups(
    combine: Callable[[Mapping[str, float]], State],
    shares: Mapping[str, float],
    global_state: State,
    plan: TrainingPlan,
) -> State:
    """Combine a round's updates, each group's norms over the sites of that group alone.

    The limits on a share hold in each group as they do among all sites.

    The norms of a group that sent nothing move as the common ones do, so that a group that joins
    later starts from what the others have learned.

    Args:
        combine: Combines the updates of the sites whose shares it is given; they add up to 1.
        shares: Each accepted site's share; they add up to 1.
        global_state: The weights that the round started from.
        plan: Says which sites form groups.
    """
    state = combine(shares)
    for group, sites in sorted(plan.federation.norm_groups.items()):
        arrays = group_arrays(plan, group)
        present = {site: shares[site] for site in sites if site in shares}
        if present:
            own = combine(shares_within(present, plan.federation))
            state |= {name: own[name] for name in arrays}
        else:
            state |= {
                name: global_state[name] + (state[plain] - global_state[plain])
                for name, plain in arrays.items()
            }
    return state
