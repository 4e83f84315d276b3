"""The description of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mamfed_common.plan import Stage, TrainingPlan
from mamfed_server.run_folder.event_log import Event
from mamfed_server.run_folder.round_record import RoundRecord


def _go_on() -> bool:
    return False


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Job:
    """The description of one run.

    Attributes:
        plan: The plan.
        folder: The run folder to create, or to resume in.
        num_nodes: Number of nodes to wait for, in a simulation.
        arm: Name of the run in ``summary.json``.
        training_sites: Sites that may train; None: all.
        validation_sites: Sites whose validation chooses the best round; None: all.
        test_sites: Sites on whose test patients the result is measured; None: all.
        names: Returns the node of each approved site, connected or not. None in a simulation,
            where nodes state their own names.
        min_sites: Minimum accepted updates of every round, whatever a stage's quorum.
        signature: The coordinator's signature over the plan, sent with every request.
        resume: Whether to resume a run of this plan in the folder. Otherwise an earlier run is
            renamed.
        run: Name of the run as sent to the sites; empty in a simulation.
        flower_run: Flower's id of the run, for the event log.
        query_again_seconds: Seconds until a site that refused to describe its data is asked again,
            and the shortest time between two attempts at a round.
        patience_seconds: How long a round below its floor is repeated before the run pauses; 0:
            such a round ends the run, as in a simulation, where no site comes back.
        room_seconds: How long to wait before a write is tried again for which the machine had no
            room, such as on a full disk; 0: the error ends the run, as in a simulation.
        stopping: Returns whether the run must stop now.
        before_weights: Called before the first weights are made or read, which imports torch.
        on_round: Called after every round, once its checkpoint is on disk.
        on_event: Called with every event of the event log.
    """

    plan: TrainingPlan
    folder: Path
    num_nodes: int = 0
    arm: str = "federated"
    training_sites: frozenset[str] | None = None
    validation_sites: frozenset[str] | None = None
    test_sites: frozenset[str] | None = None
    names: Callable[[], Mapping[str, int]] | None = None
    min_sites: int = 1
    signature: str = ""
    resume: bool = False
    run: str = ""
    flower_run: int | None = None
    query_again_seconds: float = 15.0
    patience_seconds: float = 0.0
    room_seconds: float = 0.0
    stopping: Callable[[], bool] = _go_on
    before_weights: Callable[[], None] = _nothing
    on_round: Callable[[RoundRecord], None] | None = None
    on_event: Callable[[Event], None] | None = None

    def need(self, stage: Stage) -> int:
        """Return the number of accepted updates that a round of a stage needs."""
        return max(self.plan.stage(stage).quorum, self.min_sites)
