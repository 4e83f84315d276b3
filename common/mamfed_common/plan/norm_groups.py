"""Norms by group of sites: film and digital units, say, share all weights but these few.

FedBN (Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization",
ICLR 2021) leaves every site its own norms. Here the sites of one group share theirs: a small site
learns from its like, and a hospital that joins later takes its group's
(``docs/decisions/0036-norms-by-group.md``). Here the norms are instance norms, whose scale and
shift are all that is learned of them.

The weights of a federation with groups are the network's own arrays, whose norms are the average
over all sites, and each group's norms beside them, every name behind ``group.NAME.``. A site trains
and is scored with the network's arrays and its group's norms in place; a site of no group uses the
average's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.state_dict import State, state_of
from mamfed_common.plan.training_plan import TrainingPlan

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "group."


@lru_cache(maxsize=8)
def norm_names(network: NetworkConfig) -> tuple[str, ...]:
    """Return the names of a network's norm arrays, found by what the modules are."""
    from torch import nn

    from mamfed_common.model.malignancy_net import MalignancyNetwork

    return tuple(
        f"{module_name}.{name}"
        for module_name, module in MalignancyNetwork(network).named_modules()
        if isinstance(module, nn.InstanceNorm2d)
        for name, _ in module.named_parameters(recurse=False)
    )


def group_of(plan: TrainingPlan, site: str) -> str | None:
    """Return the group of a site; None if it has none."""
    groups = plan.federation.norm_groups
    return next((group for group, sites in groups.items() if site in sites), None)


def add_group_norms(state: State, plan: TrainingPlan) -> State:
    """Add a copy of the network's norms for each group to a network's arrays."""
    names = norm_names(plan.network)
    return state | {
        _key(group, name): state[name].clone()
        for group in plan.federation.norm_groups
        for name in names
    }


def group_arrays(plan: TrainingPlan, group: str) -> dict[str, str]:
    """Return a mapping from the names of a group's arrays to those of the network's own."""
    return {_key(group, name): name for name in norm_names(plan.network)}


def expected_state(plan: TrainingPlan) -> State:
    """Return weights with the names, shapes and dtypes that a plan's messages carry."""
    from mamfed_common.model.malignancy_net import MalignancyNetwork

    return add_group_norms(state_of(MalignancyNetwork(plan.network)), plan)


def groups_in(state: Mapping[str, Tensor]) -> list[str]:
    """Return the groups whose norms a state contains."""
    return sorted({_group(name) for name in state if name.startswith(PREFIX)})


def select_group(state: Mapping[str, Tensor], group: str | None) -> State:
    """Return a network's arrays with a group's norms in place; None takes the average's."""
    own = {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}
    if group is None:
        return own
    prefix = _key(group, "")
    return own | {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def merge_trained(trained: State, global_state: Mapping[str, Tensor], group: str | None) -> State:
    """Return the weights that a site sends: those it trained, and other groups' norms unchanged.

    Args:
        trained: The network's arrays after training.
        global_state: The weights that the site received.
        group: The site's group; None if it has none.
    """
    norms = {name: tensor for name, tensor in global_state.items() if name.startswith(PREFIX)}
    if group is not None:
        own = _key(group, "")
        norms |= {n: trained[n.removeprefix(own)].clone() for n in norms if n.startswith(own)}
    return trained | norms


def _key(group: str, name: str) -> str:
    return f"{PREFIX}{group}.{name}"


def _group(name: str) -> str:
    return name.removeprefix(PREFIX).split(".", 1)[0]
