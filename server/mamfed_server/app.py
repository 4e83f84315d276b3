"""The coordinator's Flower ServerApp: one plan, two stages, one run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from mamfed_common.checkpoint import Checkpoint, CheckpointFacts
from mamfed_common.errors import RunError
from mamfed_common.metrics import SiteScore
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.seeds import derive_seed
from mamfed_common.state import State, state_of
from mamfed_common.subtraction import build_network
from mamfed_common.weights import Part, SiteDescription
from mamfed_server.participants import check_stages, evaluators, stages_of, trainers
from mamfed_server.rounds import Nodes, evaluate_sites, find_sites, mean_dice_of, train_round
from mamfed_server.runs import RoundRecord, RunFolder

NODES_DEADLINE_SECONDS = 300.0


@dataclass(frozen=True)
class Job:
    """What one ServerApp is to do.

    Attributes:
        plan: The plan.
        folder: The run folder to make.
        num_nodes: Nodes to wait for.
        arm: What the run is called in ``summary.json``.
        training_sites: Sites that may train; None for all.
        validation_sites: Sites that choose the best round; None for all.
        test_sites: Sites whose test patients the result is measured on; None for all.
        on_round: Called after every round.
    """

    plan: TrainingPlan
    folder: Path
    num_nodes: int
    arm: str = "federated"
    training_sites: frozenset[str] | None = None
    validation_sites: frozenset[str] | None = None
    test_sites: frozenset[str] | None = None
    on_round: Callable[[RoundRecord], None] | None = None


def make_server_app(job: Job) -> ServerApp:
    """Make the ServerApp that does a job.

    Its main function raises RunError where the run fails; what was reached stays in the folder.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        started = time.monotonic()
        sites = find_sites(
            grid, job.plan, num_nodes=job.num_nodes, deadline_seconds=NODES_DEADLINE_SECONDS
        )
        run = _Run(job, grid, sites)
        run.warnings += check_stages(job.plan, run.descriptions, job.training_sites)
        run.folder.create(job.plan)
        try:
            run.train()
            run.test()
        except RunError as error:
            run.finish("failed", time.monotonic() - started, str(error))
            raise
        run.finish("finished", time.monotonic() - started)

    return app


@dataclass
class _Run:
    """A job under way."""

    job: Job
    grid: Grid
    sites: Mapping[str, tuple[int, SiteDescription]]
    best_dice: float | None = None
    chosen: State = field(default_factory=dict)
    chosen_by: str = "last round"
    warnings: list[str] = field(default_factory=list)
    test_scores: dict[str, SiteScore] = field(default_factory=dict)

    @property
    def plan(self) -> TrainingPlan:
        return self.job.plan

    @property
    def descriptions(self) -> dict[str, SiteDescription]:
        return {site: description for site, (_, description) in self.sites.items()}

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.job.folder)

    def train(self) -> None:
        """Run all rounds of both stages; checkpoint after each."""
        seed = derive_seed(self.plan.seed, "weights")
        state = state_of(build_network(self.plan.network, seed))
        for stage in stages_of(self.plan):
            for server_round in range(1, self.plan.stage(stage).rounds + 1):
                state = self._round(state, stage, server_round)

    def test(self) -> None:
        """Measure the chosen weights on the held-out test patients of every site."""
        if self.plan.finetuning.rounds == 0:
            return
        nodes = self._evaluators("test", self.job.test_sites)
        self.test_scores, failures = evaluate_sites(
            self.grid, self.chosen, self.plan, "test", nodes
        )
        self.warnings += [f"test: {site}: {reason}" for site, reason in failures.items()]

    def finish(self, status: str, seconds: float, reason: str = "") -> None:
        """Write ``summary.json``."""
        self.folder.write_summary(self._summary(status, seconds, reason))

    def _round(self, state: State, stage: Stage, server_round: int) -> State:
        started = time.monotonic()
        declared = {site: d.training_images(stage) for site, d in self.descriptions.items()}
        trainers = self._trainers(stage)
        averaged, record = train_round(
            self.grid, state, self.plan, stage, server_round, trainers, declared
        )
        self.warnings += [
            f"{stage} round {server_round}: {site} left out: {reason}"
            for site, reason in record.refused.items()
        ]
        if averaged is not None and stage is Stage.FINETUNING:
            record = self._validate(averaged, record)
        record = record.model_copy(update={"seconds": time.monotonic() - started})
        self.folder.append_round(record)
        if averaged is None:
            raise RunError(
                f"{stage} round {server_round}: {len(record.accepted)} of {len(trainers)} updates "
                f"accepted, quorum is {self.plan.stage(stage).quorum}"
            )
        self._checkpoint(averaged, record)
        if self.job.on_round:
            self.job.on_round(record)
        return averaged

    def _validate(self, state: State, record: RoundRecord) -> RoundRecord:
        nodes = self._evaluators("val", self.job.validation_sites)
        scores, failures = evaluate_sites(self.grid, state, self.plan, "val", nodes)
        self.warnings += [
            f"validation of round {record.server_round}: {site}: {reason}"
            for site, reason in failures.items()
        ]
        update = {"validation": scores, "mean_validation_dice": mean_dice_of(scores)}
        return record.model_copy(update=update)

    def _checkpoint(self, state: State, record: RoundRecord) -> None:
        """Write ``latest``, and ``best`` and ``final`` where this round is such."""
        checkpoint = Checkpoint(
            state=state,
            facts=CheckpointFacts(
                plan=self.plan,
                plan_sha256=self.plan.sha256(),
                stage=record.stage,
                server_round=record.server_round,
                expected=record.expected,
                accepted=tuple(record.accepted),
                refused=record.refused,
                validation=record.validation,
                mean_validation_dice=record.mean_validation_dice,
            ),
        )
        self.folder.save("latest", checkpoint)
        last_stage = stages_of(self.plan)[-1]
        is_last = record.stage is last_stage and (
            record.server_round == self.plan.stage(last_stage).rounds
        )
        dice = record.mean_validation_dice
        is_best = dice is not None and (self.best_dice is None or dice > self.best_dice)
        if is_best or (is_last and self.best_dice is None):
            self.chosen = state
            self.folder.save("best", checkpoint)
        if is_best:
            self.best_dice, self.chosen_by = dice, "validation Dice"
        if is_last:
            self.folder.save("final", checkpoint)

    def _summary(self, status: str, seconds: float, reason: str) -> dict[str, Any]:
        rounds = self.folder.rounds()
        complete = status == "finished" and not any(record.refused for record in rounds)
        return {
            "status": status,
            "reason": reason,
            "complete": complete,
            "arms": {
                self.job.arm: {
                    "mean_dice": mean_dice_of(self.test_scores),
                    "sites": {s: score.model_dump() for s, score in self.test_scores.items()},
                }
            },
            "checkpoint": self._result_path(),
            "checkpoint_chosen_by": self.chosen_by,
            "best_validation_dice": self.best_dice,
            "plan_sha256": self.plan.sha256(),
            "stages": {stage: list(self._trainers(stage)) for stage in stages_of(self.plan)},
            "sites": {site: d.model_dump() for site, d in self.descriptions.items()},
            "rounds": len(rounds),
            "warnings": self.warnings,
            "seconds": round(seconds, 1),
        }

    def _result_path(self) -> str | None:
        """Return the best checkpoint, or in a run that failed before it the latest one."""
        paths = [self.folder.checkpoint_path(name) for name in ("best", "latest")]
        return next((str(path.resolve()) for path in paths if path.exists()), None)

    def _trainers(self, stage: Stage) -> Nodes:
        return self._nodes(trainers(self.descriptions, stage, self.job.training_sites))

    def _evaluators(self, part: Part, chosen: frozenset[str] | None) -> Nodes:
        return self._nodes(evaluators(self.descriptions, part, chosen))

    def _nodes(self, names: list[str]) -> Nodes:
        return {name: self.sites[name][0] for name in names}
