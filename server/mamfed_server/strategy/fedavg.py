"""FedAvg, and the two strategies that differ from it at the sites only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage
from mamfed_server.aggregation.group_norms import aggregate_groups
from mamfed_server.aggregation.site_weights import shares
from mamfed_server.strategy.protocol import (
    EvaluationSummary,
    RoundUpdates,
    StrategyContext,
    TrainAggregate,
    TrainInstructions,
    summarise_scores,
)


class FedAvg:
    """Take the mean of the updates as the new weights (McMahan et al., 2017).

    ``federation.weights`` and ``max_share`` say what each site weighs. With ``norm_groups`` the
    norms of a group are combined over the sites of that group alone.
    """

    def __init__(self, context: StrategyContext) -> None:
        """Follow the plan of ``context``."""
        self.plan = context.plan

    def configure_train(
        self, stage: Stage, server_round: int, global_state: State, sites: Sequence[str]
    ) -> TrainInstructions:
        """Ask every site that can train."""
        return TrainInstructions(sites, global_state)

    def aggregate_train(self, updates: RoundUpdates) -> TrainAggregate:
        """Combine the updates, norms by group."""
        site_shares = self.site_shares(updates)
        state = aggregate_groups(
            lambda chosen: self.combine(updates, chosen),
            site_shares,
            updates.global_state,
            updates.plan,
        )
        return TrainAggregate(state, site_shares)

    def aggregate_evaluate(
        self, stage: Stage, server_round: int, scores: Mapping[str, SiteScore]
    ) -> EvaluationSummary:
        """Average Dice over sites, and over images."""
        return summarise_scores(scores)

    def site_shares(self, updates: RoundUpdates) -> dict[str, float]:
        """Return each site's share, in the order of their names; they add up to 1."""
        return shares(updates.examples, updates.stage, updates.plan.federation)

    def combine(self, updates: RoundUpdates, site_shares: Mapping[str, float]) -> State:
        """Combine the updates of the sites in ``site_shares``, which add up to 1."""
        return updates.weighted_mean(site_shares)


class FedProx(FedAvg):
    """FedAvg with a proximal term (Li et al., 2020).

    Each site adds ``federation.proximal_mu / 2`` times the squared distance from the round's
    starting weights to its loss (``mamfed_common.training.objective.optimizer_step``).
    """


class FedBN(FedAvg):
    """FedAvg with local norms (Li et al., 2021).

    Because of ``federation.local_norms``, each site trains and is scored with its own instance
    norms (``mamfed_client.training.fedbn``); the mean contains everyone's.
    """
