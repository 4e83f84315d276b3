"""The strategy that a plan asks for."""

from __future__ import annotations

from collections.abc import Callable

from mamfed_common.plan import TrainingPlan
from mamfed_server.strategy.fedavg import FedAvg, FedBN, FedProx
from mamfed_server.strategy.fedopt import FedAdam, FedAvgM
from mamfed_server.strategy.protocol import Strategy, StrategyContext
from mamfed_server.strategy.robust import Median, TrimmedMean

STRATEGIES: dict[str, Callable[[StrategyContext], Strategy]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedbn": FedBN,
    "fedavgm": FedAvgM,
    "fedadam": FedAdam,
    "trimmed_mean": TrimmedMean,
    "median": Median,
}


def strategy_name(plan: TrainingPlan) -> str:
    """Return the name of a plan's strategy."""
    federation = plan.federation
    if federation.server_optimiser != "none":
        return {"momentum": "fedavgm", "adam": "fedadam"}[federation.server_optimiser]
    if federation.local_norms:
        return "fedbn"
    return "fedprox" if federation.proximal_mu else "fedavg"


def build_strategy(context: StrategyContext) -> Strategy:
    """Build the strategy that the context's plan asks for."""
    return STRATEGIES[strategy_name(context.plan)](context)
