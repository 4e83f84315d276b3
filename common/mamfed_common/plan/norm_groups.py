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

from torch import Tensor

from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.model.state_dict import State, state_of
from mamfed_common.model.unet import InstanceNorm, NetworkConfig
from mamfed_common.plan.training_plan import TrainingPlan

PREFIX = "group."


@lru_cache(maxsize=8)
def norm_names(network: NetworkConfig) -> tuple[str, ...]:
    """Return the names of a network's norm arrays, found by what the modules are."""
    return tuple(
        f"{module_name}.{name}"
        for module_name, module in MalignancyNetwork(network).named_modules()
        if isinstance(module, InstanceNorm)
        for name, _ in module.named_parameters(recurse=False)
    )


def group_of(plan: TrainingPlan, site: str) -> str | None:
    """Return the group that a site belongs to."""
    groups = plan.federation.norm_groups
    return next((group for group, sites in groups.items() if site in sites), None)


def add_group_norms(state: State, plan: TrainingPlan) -> State:
    """Put each group's norms, equal to the network's, beside a network's arrays."""
    names = norm_names(plan.network)
    return state | {
        _key(group, name): state[name].clone()
        for group in plan.federation.norm_groups
        for name in names
    }


def group_arrays(plan: TrainingPlan, group: str) -> dict[str, str]:
    """Return the names of a group's arrays, each with the name of the network's own array."""
    return {_key(group, name): name for name in norm_names(plan.network)}


def expected_state(plan: TrainingPlan) -> State:
    """Return weights with the names, shapes and dtypes of those that a plan's messages carry."""
    return add_group_norms(state_of(MalignancyNetwork(plan.network)), plan)


def groups_in(state: Mapping[str, Tensor]) -> list[str]:
    """Return the groups whose norms lie beside a network's arrays."""
    return sorted({_group(name) for name in state if name.startswith(PREFIX)})


def select_group(state: Mapping[str, Tensor], group: str | None) -> State:
    """Return a network's arrays with the norms of a group in place; None: with the average's."""
    own = {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}
    if group is None:
        return own
    beside = _key(group, "")
    return own | {
        name.removeprefix(beside): tensor
        for name, tensor in state.items()
        if name.startswith(beside)
    }


def merge_trained(trained: State, start: Mapping[str, Tensor], group: str | None) -> State:
    """Return what a site sends: all that it trained, its group's norms too, the others' as it got.

    Args:
        trained: The network's arrays after training.
        start: The weights that came.
        group: The site's.
    """
    beside = {name: tensor for name, tensor in start.items() if name.startswith(PREFIX)}
    if group is not None:
        own = _key(group, "")
        beside |= {n: trained[n.removeprefix(own)].clone() for n in beside if n.startswith(own)}
    return trained | beside


def _key(group: str, name: str) -> str:
    return f"{PREFIX}{group}.{name}"


def _group(name: str) -> str:
    return name.removeprefix(PREFIX).split(".", 1)[0]
