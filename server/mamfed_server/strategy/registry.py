"""The strategy that a plan asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from mamfed_common.errors import PlanError
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.plugins import Group, find_plugin
from mamfed_server.strategy.fedavg import FedAvg, FedBN, FedProx
from mamfed_server.strategy.fedopt import FedAdam, FedAvgM
from mamfed_server.strategy.protocol import Strategy, StrategyContext
from mamfed_server.strategy.robust import Median, TrimmedMean

StrategyFactory = Callable[[StrategyContext], Strategy]

BY_NAME: dict[str, StrategyFactory] = {"trimmed_mean": TrimmedMean, "median": Median}
"""The strategies that ``federation.strategy`` names; an extension adds others."""


def build_strategy(context: StrategyContext) -> Strategy:
    """Build the strategy that the context's plan asks for.

    Raises:
        PlanError: It is not installed here.
    """
    return strategy_of(context.plan)(context)


def strategy_of(plan: TrainingPlan) -> StrategyFactory:
    """Return what builds a plan's strategy: the one that it names, or FedAvg as its keys vary it.

    Raises:
        PlanError: It is not installed here.
    """
    federation = plan.federation
    if federation.strategy is not None:
        found = find_plugin(Group.STRATEGIES, federation.strategy, BY_NAME, PlanError)
        return cast(StrategyFactory, found)
    if federation.server_optimiser != "none":
        return FedAvgM if federation.server_optimiser == "momentum" else FedAdam
    if federation.local_norms:
        return FedBN
    return FedProx if federation.proximal_mu else FedAvg
