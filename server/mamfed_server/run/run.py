"""A run of the coordinator: one plan, two stages, one run folder.

:func:`run_job` runs it over any transport; ``server_app.py`` wraps it for Flower's own engines.
The strategy (``mamfed_server.strategy``) decides whom a round asks and what becomes of the answers.
Each round writes the best checkpoint first, then the round's record, then the latest checkpoint,
from which an interrupted run resumes. Wherever a crash falls, the round is repeated with the same
bits.
"""

from __future__ import annotations

import time
from typing import Any

from mamfed_common.errors import MamfedError, RunError
from mamfed_common.model.state_dict import State, state_of
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.plan.norm_groups import add_group_norms
from mamfed_common.protocol.tasks import TrainTask
from mamfed_common.runtime.seeds import derive_seed
from mamfed_common.runtime.wording import counted
from mamfed_server.aggregation.update_store import UpdateFolder
from mamfed_server.run.approved_roster import ApprovedRoster
from mamfed_server.run.checkpoint_selection import Selection
from mamfed_server.run.deadlines import training_deadlines
from mamfed_server.run.evaluations import Evaluations
from mamfed_server.run.job import Job
from mamfed_server.run.participants import check_stages, first_counts
from mamfed_server.run.plan_checks import check_network
from mamfed_server.run.redo import Redo
from mamfed_server.run.requests import SitePoller, StopRequested
from mamfed_server.run.resume import (
    ResumePoint,
    check_same_plan,
    load_last_good,
    reopen,
    round_positions,
)
from mamfed_server.run.roster import Roster, find_sites
from mamfed_server.run.round_events import log_updates, too_few
from mamfed_server.run.summary import summarise_run
from mamfed_server.run.tracked import tracked
from mamfed_server.run.training_round import TrainingRound
from mamfed_server.run.transport import Transport
from mamfed_server.run_folder.event_log import EventLog
from mamfed_server.run_folder.folder import CHECKPOINTS, UPDATES, RunFolder
from mamfed_server.run_folder.room import Again, WaitForRoom, once
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_server.strategy.protocol import StrategyContext
from mamfed_server.strategy.registry import build_strategy

__all__ = ["Job", "run_job"]

FEW_SITES = 3
"""With fewer sites, each can work out, or nearly so, what the others sent."""


def run_job(job: Job, transport: Transport) -> dict[str, Any]:
    """Run a job; its folder keeps whatever was completed.

    Returns:
        The content of ``summary.json``. A run that has already finished is not repeated.

    Raises:
        RunError: The run failed, for example because a round accepted too few updates.
        StopRequested: The run was asked to stop; it can be resumed.
        PlanError: The folder to resume holds a run of another plan, or the plan names a network or
            strategy that is not installed here.
        OutputError: The folder cannot be created, or holds something else.
    """
    folder = RunFolder(job.folder)
    if job.resume and folder.holds_run():
        check_same_plan(folder, job.plan)
        if folder.is_finished():
            return folder.read_summary()
    with tracked(job) as job:
        run = _Run(job, transport)
        try:
            return run.run()
        finally:
            run.roster.close()


class _Run:
    """A job in progress."""

    def __init__(self, job: Job, transport: Transport) -> None:
        self.job = job
        self.plan: TrainingPlan = job.plan
        check_network(self.plan.network.name)  # before a site is asked
        self.again: Again = once
        if job.room_seconds:
            self.again = WaitForRoom(
                job.room_seconds, lambda: self.poller.check_stopping(), self._say_room
            )
        self.folder = RunFolder(job.folder, self.again)
        self.log = EventLog(job.on_event, self.again)
        self.roster = Roster(job)
        self.poller = SitePoller(
            transport,
            offline_seconds=job.plan.federation.offline_seconds,
            stopping=job.stopping,
            on_presence=lambda node_id, online: self.roster.presence(node_id, online),
            on_asked_again=lambda site, why: self.log.write("asked again", site=site, reason=why),
        )
        self.selection = Selection(self.folder, self.plan, lambda: self.roster.descriptions)
        self.strategy = build_strategy(
            StrategyContext(self.plan, self.folder.path / CHECKPOINTS, self._warn)
        )
        self.evaluations = Evaluations(job, self.folder, self.strategy, self.poller, self.log)
        self.started = time.monotonic()
        self.earlier_seconds = 0.0

    def run(self) -> dict[str, Any]:
        """Run the rest of the job and return its summary."""
        if self.job.names is None:  # a simulation that cannot start leaves no folder
            self.roster = find_sites(self.poller, self.job)
            self._warn(*check_stages(self.plan, self.roster.descriptions, self.job.training_sites))
        resumed = self._open()
        try:
            self._gather(resumed)
            self._train(resumed)
            self.evaluations.test(self.roster)
        except StopRequested:
            self.log.write("stopped")
            self._finish("stopped")
            raise
        except MamfedError as error:
            self.log.write("failed", reason=str(error))
            self._finish("failed", str(error))
            raise
        self.log.write("finished")
        return self._finish("finished")

    def _open(self) -> ResumePoint:
        """Create the run folder, or resume in it."""
        if not (self.job.resume and self.folder.holds_run()):
            self.folder.create(self.plan)
            self.log.open(self.folder.path)
            self._log_position("started", 0)
            return ResumePoint(0, None, [], [])
        resumed = reopen(self.folder, self.plan)
        self.log.open(self.folder.path)
        self.selection.restore(resumed)
        self.earlier_seconds = sum(record.seconds for record in self.folder.rounds())
        for note in resumed.notes:
            self.log.write("checkpoint damaged", warning=note)
        redone = [f"{stage} {server_round}" for stage, server_round in resumed.redone]
        # ``mamfed-server start`` creates the folder of a new run before this process starts.
        kind = "resumed" if self.log.events() else "started"
        self._log_position(kind, resumed.done, redone=redone)
        return resumed

    def _log_position(self, kind: str, done: int, **facts: Any) -> None:
        """Log which round comes next; None where only the test is left."""
        stage, server_round = (*round_positions(self.plan), (None, None))[done]
        self.log.write(
            kind,
            plan_sha256=self.plan.sha256(),
            stage=stage,
            server_round=server_round,
            flower_run=self.job.flower_run,
            **facts,
        )

    def _gather(self, resumed: ResumePoint) -> None:
        """Wait for the sites of a federation."""
        if self.job.names is None:
            return
        if (floor := self.job.min_sites) < FEW_SITES:
            self._warn(
                f"min_sites is {floor}: an average over {counted(floor, 'site')} shows each of "
                "them what the others sent"
            )
        self.roster = ApprovedRoster(self.job, self.poller, self.log)
        order = round_positions(self.plan)
        stage, _ = order[min(resumed.done, len(order) - 1)]
        self.roster.gather(stage)
        try:
            warnings = check_stages(self.plan, self.roster.descriptions, self.job.training_sites)
        except RunError as error:  # a later stage, for which sites may still join
            warnings = [str(error)]
        self._warn(*warnings)

    def _train(self, resumed: ResumePoint) -> None:
        """Run the remaining rounds, with a checkpoint after each."""
        state = self._first_state()
        for stage, server_round in round_positions(self.plan)[resumed.done :]:
            state = self._round(state, stage, server_round)

    def _first_state(self) -> State:
        """Return the last checkpoint's weights, or the initial ones."""
        from mamfed_common.model.malignancy_net import build_network

        self.job.before_weights()
        checkpoint, _ = load_last_good(self.folder)
        if checkpoint:
            return checkpoint.state
        network = build_network(self.plan.network, derive_seed(self.plan.seed, "weights"))
        return add_group_norms(state_of(network), self.plan)

    def _round(self, state: State, stage: Stage, server_round: int) -> State:
        redo = Redo(self.job.patience_seconds, self.job.query_again_seconds)
        while True:
            started = time.monotonic()
            averaged, record = self._train_round(state, stage, server_round)
            if averaged is not None:
                break
            record = record.model_copy(update={"seconds": time.monotonic() - started})
            self._wait_to_redo(record, redo)
        if self.plan.validates(stage, server_round):
            record = self.evaluations.validate(self.roster, averaged, record)
        record = record.model_copy(update={"seconds": time.monotonic() - started})
        self.selection.keep(averaged, record)
        if self.job.on_round:
            self.job.on_round(record)
        return averaged

    def _wait_to_redo(self, record: RoundRecord, redo: Redo) -> None:
        """Wait until a round with too few accepted updates can be done again.

        Raises:
            RunError: There is no patience, or waiting is of no use.
        """
        need = self.job.need(record.stage)
        found = too_few(record, need)
        if not self.job.patience_seconds:
            self.folder.append_round(record)
            raise RunError(found)
        self.log.write(
            "below the floor",
            stage=record.stage,
            server_round=record.server_round,
            accepted=list(record.accepted),
            need=need,
            warning=f"{found}; the round is done again",
        )
        try:
            self.roster.wait_to_redo(record.stage, redo, record.refused)
        except RunError as error:
            self.folder.append_round(record)
            raise RunError(f"{found}; {error}") from None

    def _train_round(
        self, state: State, stage: Stage, server_round: int
    ) -> tuple[State | None, RoundRecord]:
        self.roster.refresh()
        descriptions, trainers = self.roster.descriptions, self.roster.trainers(stage)
        sites, global_state = self.strategy.configure_train(
            stage, server_round, state, list(trainers)
        )
        nodes = {site: trainers[site] for site in sites}
        absent = self.roster.absent()
        self.log.write(
            "round", stage=stage, server_round=server_round, sites=list(nodes), absent=absent
        )
        training = TrainingRound(
            task=TrainTask(
                plan=self.plan,
                signature=self.job.signature,
                stage=stage,
                server_round=server_round,
                run=self.job.run,
            ),
            global_state=global_state,
            declared={site: descriptions[site].images_used(self.plan, stage) for site in nodes},
            updates=UpdateFolder(self.folder.path / UPDATES),
            min_updates=self.job.need(stage),
            strategy=self.strategy,
            on_wrong_count=self.roster.ask_anew,
            first_counts=first_counts(self.folder.rounds(), stage),
            again=self.again,
        )
        deadlines = training_deadlines(self.plan, stage, self.folder.rounds(), nodes)
        averaged, record = training.run(self.poller, nodes, deadlines)
        record = record.model_copy(update={"absent": absent})
        log_updates(self.log, record, self.plan, training.first_counts)
        return averaged, record

    def _say_room(self, reason: str, seconds: float) -> None:
        self.log.write("no room", reason=reason, seconds=round(seconds, 1))

    def _warn(self, *warnings: str) -> None:
        for warning in warnings:
            self.log.write("warning", warning=warning)

    def _finish(self, status: str, reason: str = "") -> dict[str, Any]:
        """Write ``summary.json`` and return its content."""
        results = summarise_run(
            self.job,
            self.roster,
            self.selection,
            self.evaluations.test_scores,
            self.evaluations.personal,
            self.log.warnings(),
        )
        seconds = self.earlier_seconds + time.monotonic() - self.started
        summary = {
            "status": status,
            "reason": reason,
            **results,
            "complete": status == "finished" and results["complete"],
            "seconds": round(seconds, 1),
        }
        self.folder.write_summary(summary)
        return summary
