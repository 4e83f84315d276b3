"""Where a site's training of a round starts, from which the length of its update is measured.

A site of a group starts from its group's norms, and one with local norms from its own, which the
server does not know. Measured from the average's norms, such a site seems to go far without having
trained: the difference stays, while updates shrink towards the end of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mamfed_common.model.state_dict import State
from mamfed_common.plan import TrainingPlan
from mamfed_common.plan.norm_groups import group_of, merge_trained, norm_names, select_group

if TYPE_CHECKING:
    from torch import Tensor


def origin(start: Mapping[str, Tensor], plan: TrainingPlan, site: str) -> State:
    """Return what a site would send if it had not trained.

    Args:
        start: The weights that the round started from.
        plan: Says which sites form groups.
        site: The site's name.
    """
    group = group_of(plan, site)
    return merge_trained(select_group(start, group), start, group) if group else State(start)


def parts(state: Mapping[str, Tensor], plan: TrainingPlan) -> tuple[frozenset[str], ...]:
    """Return the names of arrays that are measured together: all, or local norms by themselves.

    The first part is the one by which an update is refused. Local norms are not refused: each
    site's differ from the average's for good.
    """
    names = frozenset(state)
    if not plan.federation.local_norms:
        return (names,)
    norms = frozenset(norm_names(plan.network))
    return names - norms, norms & names
