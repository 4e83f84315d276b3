"""What the round loop asks of a federated learning strategy, in Flower's words.

Flower's own strategies keep every reply in memory. Here an update is checked and stored on disk as
it arrives, and a strategy reads the accepted ones block by block (:class:`RoundUpdates`), so memory
holds one model whatever the number of sites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from mamfed_common.domain import Purpose
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_server.aggregation.coordinate_wise import BlockReducer
from mamfed_server.aggregation.pooled_scores import PooledValidation, mean_dice_of, pool
from mamfed_server.aggregation.update_store import UpdateFolder


class StrategyContext(NamedTuple):
    """What a strategy is built from.

    Attributes:
        plan: The run's plan.
        folder: The run's checkpoint folder, for state that must survive a crash. It exists by the
            first round.
        warn: Writes a warning to the event log.
    """

    plan: TrainingPlan
    folder: Path
    warn: Callable[[str], None]


class TrainInstructions(NamedTuple):
    """Whom to ask for an update, and from which weights they start.

    Attributes:
        sites: The sites to ask, some or all of those that can train.
        global_state: The weights to send.
    """

    sites: Sequence[str]
    global_state: State


@dataclass(frozen=True)
class RoundUpdates:
    """The accepted updates of one round: at least one, already checked.

    Attributes:
        plan: The plan.
        stage: The stage.
        server_round: The round of the stage, from 1.
        global_state: The weights that the sites started from.
        examples: How many images of each purpose each accepted site trained on.
        store: The updates on disk.
    """

    plan: TrainingPlan
    stage: Stage
    server_round: int
    global_state: State
    examples: Mapping[str, Mapping[Purpose, int]]
    store: UpdateFolder

    def weighted_mean(self, shares: Mapping[str, float]) -> State:
        """Return the mean of some sites' updates, each with its share; the shares add up to 1."""
        return self.store.average(shares, self.global_state)

    def reduce(self, sites: Sequence[str], reduce: BlockReducer) -> State:
        """Combine some sites' updates value by value.

        Args:
            sites: The sites, at least one.
            reduce: Takes ``(sites, n)`` values and returns ``(n,)`` of the same dtype. It may
                overwrite its argument, and is called from several threads.
        """
        return self.store.reduce(sites, self.global_state, reduce)


class TrainAggregate(NamedTuple):
    """What a strategy made of a round's updates.

    Attributes:
        state: The new weights, with the names, shapes and dtypes of the old ones.
        shares: What each accepted site contributed, for the report; they add up to 1.
    """

    state: State
    shares: Mapping[str, float]


class EvaluationSummary(NamedTuple):
    """One round's validation over all sites, for the round's record.

    Attributes:
        mean_dice: Mean over sites of their mean Dice; None where no site reports one.
        pooled: Dice pooled over images; None likewise.
    """

    mean_dice: float | None
    pooled: PooledValidation | None


class Strategy(Protocol):
    """What happens on the server in a round.

    Everything that a strategy remembers from round to round must lie in its folder: after a crash
    a new object goes on in its place, and must end with the same bits.
    """

    def configure_train(
        self, stage: Stage, server_round: int, global_state: State, sites: Sequence[str]
    ) -> TrainInstructions:
        """Choose the sites to ask and the weights to send.

        A round with too few updates is done again, and this is called again for it.

        Args:
            stage: The stage.
            server_round: The round of the stage, from 1.
            global_state: The weights after the round before.
            sites: The sites that can train, in the order of their names.
        """

    def aggregate_train(self, updates: RoundUpdates) -> TrainAggregate:
        """Turn the accepted updates, at least the quorum, into new weights.

        It is called again with the same updates if the machine had no room, as on a full disk.
        """

    def aggregate_evaluate(
        self, stage: Stage, server_round: int, scores: Mapping[str, SiteScore]
    ) -> EvaluationSummary:
        """Summarise the sites' validation scores of a round."""


def summarise_scores(scores: Mapping[str, SiteScore]) -> EvaluationSummary:
    """Return the summary that the built-in strategies report."""
    return EvaluationSummary(mean_dice_of(scores), pool(scores))
