"""FedAvgM and FedAdam: the server takes a round's mean update as a gradient."""

from __future__ import annotations

from mamfed_server.strategy.fedavg import FedAvg
from mamfed_server.strategy.protocol import RoundUpdates, StrategyContext, TrainAggregate
from mamfed_server.strategy.server_optimizer import OptimizerName, ServerOptimizer


class FedOpt(FedAvg):
    """FedAvg followed by one step of a server optimizer.

    Attributes:
        optimizer_name: The optimizer.
    """

    optimizer_name: OptimizerName

    def __init__(self, context: StrategyContext) -> None:
        """Keep the optimizer's state in the context's folder."""
        super().__init__(context)
        self._optimizer = ServerOptimizer(
            context.plan, context.folder, context.warn, self.optimizer_name
        )

    def aggregate_train(self, updates: RoundUpdates) -> TrainAggregate:
        """Average the updates and step towards the mean."""
        mean, site_shares = super().aggregate_train(updates)
        position = updates.stage, updates.server_round
        return TrainAggregate(
            self._optimizer.step(updates.global_state, mean, position), site_shares
        )


class FedAvgM(FedOpt):
    """FedAvg with server momentum (Hsu et al., 2019)."""

    optimizer_name = "momentum"


class FedAdam(FedOpt):
    """Adam on the server (Reddi et al., 2021)."""

    optimizer_name = "adam"
