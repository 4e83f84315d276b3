"""What one run is to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mamfed_common.plan import Stage, TrainingPlan
from mamfed_server.run_folder.event_log import Event
from mamfed_server.run_folder.round_record import RoundRecord


def _go_on() -> bool:
    return False


@dataclass(frozen=True)
class Job:
    """What one run is to do.

    Attributes:
        plan: The plan.
        folder: The run folder to make, or to go on in.
        num_nodes: Nodes to wait for, in a simulation.
        arm: What the run is called in ``summary.json``.
        training_sites: Sites that may train; None for all.
        validation_sites: Sites that choose the best round; None for all.
        test_sites: Sites whose test patients the result is measured on; None for all.
        names: Returns the node of each approved site, connected or not. None in a simulation:
            nodes are taken at their word.
        min_sites: No average is made of fewer accepted updates, whatever a stage's quorum.
        signature: The coordinator's, over the plan; it goes with every request.
        resume: Go on with the run in the folder where there is one of this plan. Otherwise an
            earlier run is moved aside.
        run: What sites are told that the run is called; empty in a simulation.
        flower_run: Flower's number of the run, for the event log.
        query_again_seconds: How long after a site's refusal to describe itself it is asked again.
        stopping: Tells whether the run is to stop now.
        on_round: Called after every round, when its checkpoint is on disk.
        on_event: Called with every event.
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
    stopping: Callable[[], bool] = _go_on
    on_round: Callable[[RoundRecord], None] | None = None
    on_event: Callable[[Event], None] | None = None

    def need(self, stage: Stage) -> int:
        """Return how many accepted updates a round of a stage needs."""
        return max(self.plan.stage(stage).quorum, self.min_sites)
