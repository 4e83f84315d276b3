"""Where a run starts: at its beginning, or after the last checkpoint of an earlier process."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, load_checkpoint
from mamfed_common.errors import CheckpointError, PlanError
from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage, TrainingPlan, read_plan
from mamfed_common.runtime.documents import parse_yaml
from mamfed_common.runtime.fingerprint import Fingerprint, describe_differences
from mamfed_common.runtime.text import read_text
from mamfed_server.run.participants import stages_of
from mamfed_server.run_folder.folder import LATEST, NEXT, PLAN, PRETRAINED, PREVIOUS, RunFolder
from mamfed_server.run_folder.round_record import RoundRecord

Position = tuple[Stage, int]
"""A stage and its round, counted from 1."""


class ResumePoint(NamedTuple):
    """What an earlier process has left.

    Attributes:
        done: How many rounds are done.
        best: The facts of the best checkpoint so far, where there is one.
        redone: Rounds that had ended but have to be done again.
        notes: What was damaged.
        painter: The weights at the end of stage 1, where the run has come so far.
    """

    done: int
    best: CheckpointFacts | None
    redone: list[Position]
    notes: list[str]
    painter: State | None = None


def round_positions(plan: TrainingPlan) -> list[Position]:
    """Return all rounds of a run in their order."""
    return [
        (stage, server_round)
        for stage in stages_of(plan)
        for server_round in range(1, plan.stage(stage).rounds + 1)
    ]


def position_of(facts: CheckpointFacts | RoundRecord) -> Position:
    """Return the round that a checkpoint or a record is of."""
    return facts.stage, facts.server_round


def check_same_plan(
    folder: RunFolder,
    plan: TrainingPlan,
    advice: str = "go on with its own plan (mamfed-server resume does), or choose another name",
) -> None:
    """Refuse to go on in a folder with another plan.

    Raises:
        PlanError: The folder's run follows another plan, or its plan cannot be read.
    """
    kept = read_plan(folder.path / PLAN)
    if differs := difference(kept, plan):
        raise PlanError(
            f"{folder.path}: holds a run of plan {kept.sha256()}, asked for plan {plan.sha256()} "
            f"({differs}); {advice}"
        )


def difference(kept: TrainingPlan, asked: TrainingPlan) -> str:
    """Say in what two plans differ; empty where they are one."""
    question = Fingerprint.of(**asked.model_dump(mode="json"))
    return describe_differences(question.differences(kept.model_dump(mode="json")))


def keys_of_today(path: Path) -> str:
    """Say which keys a run's plan lacks, and what they are now; empty where it lacks none.

    A run folder's plan is written whole, so what it lacks was not known when the run began.

    Raises:
        PlanError: The plan cannot be read.
    """
    today = Fingerprint.of(**read_plan(path).model_dump(mode="json"))
    kept = parse_yaml(read_text(path), str(path), PlanError)
    found = [d for d in today.differences(kept) if d.kept is None and d.asked is not None]
    return ", ".join(f"{one.name} {one.asked}" for one in found)


def load_last_good(folder: RunFolder) -> tuple[Checkpoint | None, list[str]]:
    """Return the furthest checkpoint that is whole, and a note for each that is not."""
    checkpoint, damaged = _find_last_good(folder)
    return checkpoint, list(damaged.values())


def reopen(folder: RunFolder, plan: TrainingPlan) -> ResumePoint:
    """Prepare a run folder for going on: what follows the last good checkpoint is forgotten.

    Raises:
        PlanError: The folder's run follows another plan.
        OutputError: The folder cannot be written.
    """
    check_same_plan(folder, plan)
    folder.reopen()
    checkpoint, damaged = _find_last_good(folder)
    for name in damaged:
        folder.set_aside(name)
    folder.promote_next()
    order = round_positions(plan)
    done = order.index(position_of(checkpoint.facts)) + 1 if checkpoint else 0
    records = folder.rounds()
    kept = [record for record in records if position_of(record) in order[:done]]
    folder.keep_rounds(kept)
    best, notes = _read_best(folder)
    painter = None
    if done and done >= plan.pretraining.rounds:
        painter, more = _read_painter(folder, plan)
        notes += more
    redone = [position_of(record) for record in records[len(kept) :]]
    return ResumePoint(done, best, redone, [*damaged.values(), *notes], painter)


def _find_last_good(folder: RunFolder) -> tuple[Checkpoint | None, dict[str, str]]:
    """Look at ``next`` first: it is there only where a kill came before its renaming."""
    damaged: dict[str, str] = {}
    for name in (NEXT, LATEST, PREVIOUS):
        path = folder.checkpoint_path(name)
        if not path.exists():
            continue
        try:
            return load_checkpoint(path), damaged
        except CheckpointError as error:
            damaged[name] = f"{error}; using the one before it"
    return None, damaged


def _read_best(folder: RunFolder) -> tuple[CheckpointFacts | None, list[str]]:
    path = folder.checkpoint_path("best")
    if not path.exists():
        return None, []
    try:
        return load_checkpoint(path).facts, []
    except CheckpointError as error:
        folder.set_aside("best")
        return None, [f"{error}; it is written again, or another round is chosen"]


def _read_painter(folder: RunFolder, plan: TrainingPlan) -> tuple[State | None, list[str]]:
    """Find the weights at the end of stage 1: in a file of their own, or wherever else they lie."""
    if not plan.pretraining.rounds:
        return None, []
    notes: list[str] = []
    for name in (PRETRAINED, LATEST, PREVIOUS, "best"):
        try:
            found = load_checkpoint(folder.checkpoint_path(name))
        except CheckpointError as error:
            if name == PRETRAINED and folder.checkpoint_path(name).exists():
                folder.set_aside(name)
                notes.append(f"{error}; looking for the painter in the other checkpoints")
            continue
        if position_of(found.facts) == (Stage.PRETRAINING, plan.pretraining.rounds):
            return found.state, notes
        if found.painter is not None:
            return found.painter, notes
    return None, [*notes, f"{folder.path}: no painter: explanations will have no healthy tissue"]
