"""The input of a report: the run folder, and the notes in its ``report.json``."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mamfed_common import __version__
from mamfed_common.config import Config
from mamfed_common.errors import DataError
from mamfed_common.plan import TrainingPlan, read_plan
from mamfed_common.runtime.bounded import STATE_BYTES, read_bytes
from mamfed_common.runtime.files import write_atomic
from mamfed_server.report.participation import never_asked
from mamfed_server.run.state import KeptCheckpoint, RunState, RunStatus, run_status_of
from mamfed_server.run_folder.folder import PLAN, RunFolder
from mamfed_server.run_folder.round_record import RoundRecord

NOTES, FIGURE2, ARMS = "report.json", "figure2.png", "arms"


class RejectedRow(Config):
    """A rejected row of a site's table, known only where the table is."""

    site: str
    row: int
    image: str
    reason: str
    detail: str


class CaseNote(Config):
    """A held-out image and its score.

    Attributes:
        site: The site that holds it.
        image: Its name in the site's table.
        vendor: The vendor of the mammography unit.
        dice: Dice of prediction and truth, 0..1.
    """

    site: str
    image: str
    vendor: str
    dice: float


class Interval(Config):
    """The 95 % bootstrap interval over patients of a site's mean Dice in the federated arm."""

    low: float | None
    high: float | None
    patients: int


class DiceDifference(Config):
    """A difference of two mean Dices, with its 95 % bootstrap interval over patients if known."""

    value: float
    low: float | None = None
    high: float | None = None


class SiteGain(Config):
    """What a site gains by taking part, measured on its own held-out images.

    Attributes:
        site: The site.
        images: Number of its images with malignancy.
        patients: Number of their patients; None: unknown.
        dice: Mean Dice by model: ``shared``, ``personal``, ``local``.
        minus_local: Paired difference to ``local``, for ``shared`` and ``personal``.
        other_images: Number of its images without malignancy.
        other_patients: Number of their patients; None: unknown.
        marked: Mean fraction of the breast marked on the images without malignancy, 0..1, by model.
    """

    site: str
    images: int
    patients: int | None = None
    dice: dict[str, float] = Field(default_factory=dict)
    minus_local: dict[str, DiceDifference] = Field(default_factory=dict)
    other_images: int = 0
    other_patients: int | None = None
    marked: dict[str, float] = Field(default_factory=dict)


class RunNotes(Config):
    """Facts for the report beyond plan, rounds and summary; most of them only in simulations.

    Attributes:
        title: Heading of the page.
        command: The command line of the run.
        environment: Versions, device and threads, by name.
        rejected: All rejected rows.
        cases: The images of ``figure2.png``, in the order of its columns.
        cases_chosen_by: The rule that chose them.
        worst: The held-out images with the lowest Dice, worst first.
        intervals: Interval of the mean Dice, by site.
        promises: What each site gains, measured per image in a simulation.
    """

    title: str = "A federated run"
    command: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    rejected: tuple[RejectedRow, ...] = ()
    cases: tuple[CaseNote, ...] = ()
    cases_chosen_by: str = ""
    worst: tuple[CaseNote, ...] = ()
    intervals: dict[str, Interval] = Field(default_factory=dict)
    promises: tuple[SiteGain, ...] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        plan: The plan.
        summary: The contents of ``summary.json``, or a substitute until there is one.
        rounds: Rounds of the federated arm.
        other_rounds: Rounds of other arms, by ``local-NAME`` or ``centralised``.
        notes: The contents of ``report.json``.
        figure2: PNG of ``notes.cases``, drawn by a simulation.
        events: Number of logged events by kind.
        absent: Approved sites that no round has asked, each with the reason.
        kept: The checkpoint to use; None: there is none.
    """

    plan: TrainingPlan
    summary: dict[str, Any]
    rounds: Sequence[RoundRecord]
    other_rounds: Mapping[str, Sequence[RoundRecord]]
    notes: RunNotes
    figure2: bytes | None = None
    events: Mapping[str, int] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    kept: KeptCheckpoint | None = None

    @property
    def state(self) -> RunState:
        """The state of the run."""
        return RunState(self.summary["status"])

    @property
    def ended_well(self) -> bool:
        """Whether the run finished, including its test on held-out patients."""
        return self.state is RunState.FINISHED

    @property
    def threshold(self) -> float:
        """Minimum probability of a marked pixel on test images in the federated arm."""
        chosen: float | None = self.summary.get("threshold")
        return self.plan.evaluation.threshold if chosen is None else chosen


def environment() -> dict[str, str]:
    """Return the versions and the machine of this process, by name."""
    return {
        "mamfed": __version__,
        "Python": platform.python_version(),
        "torch": version("torch"),
        "Flower": version("flwr"),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def write_notes(folder: Path, notes: RunNotes, figure2: bytes | None = None) -> None:
    """Write the notes for the report, and figure 2 if given, to a run folder."""
    write_atomic(folder / NOTES, notes.model_dump_json(indent=2) + "\n")
    if figure2 is not None:
        write_atomic(folder / FIGURE2, figure2)


def read_notes(folder: Path) -> RunNotes:
    """Read the notes of a run folder; without any, return defaults.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / NOTES
    if not path.exists():
        return RunNotes(title=f"Run {folder.resolve().name}")
    try:
        return RunNotes.model_validate_json(read_bytes(path, STATE_BYTES))
    except (OSError, ValidationError):
        raise DataError(f"{path}: damaged; remove it to get a report without these notes") from None


def read_run(folder: Path) -> ReportData:
    """Read the report's input from a run folder, whether the run has ended or not.

    Raises:
        DataError: The summary or the notes are damaged.
        PlanError: The plan is damaged or missing.
    """
    plan, status = read_plan(folder / PLAN), run_status_of(folder)
    notes, figure2 = read_notes(folder), folder / FIGURE2
    rounds, events = status.rounds, status.events
    summary = _provisional_summary(status, plan) if status.summary is None else status.summary
    return ReportData(
        plan=plan,
        summary=summary | {"checkpoint": str(status.kept.path.resolve()) if status.kept else None},
        kept=status.kept,
        rounds=rounds,
        other_rounds=_other_rounds(folder),
        notes=notes,
        figure2=read_bytes(figure2, STATE_BYTES) if notes.cases and figure2.exists() else None,
        events=Counter(str(event.get("event")) for event in events),
        absent=never_asked(events, rounds),
    )


def _provisional_summary(status: RunStatus, plan: TrainingPlan) -> dict[str, Any]:
    """Return a substitute for the summary that a run has not written."""
    stages: dict[str, list[str]] = {}
    for record in status.rounds:
        stages[record.stage] = sorted({*stages.get(record.stage, ()), *record.expected})
    return {
        "status": status.state,
        "reason": "" if status.state is RunState.RUNNING else status.reason,
        "complete": False,
        "arms": {},
        "checkpoint_chosen_by": "the latest round: no validation Dice was measured yet",
        "pooled_validation_dice": None,
        "plan_sha256": plan.sha256(),
        "stages": stages,
        "sites": {},
        "warnings": list(dict.fromkeys(e["warning"] for e in status.events if "warning" in e)),
        "seconds": sum(record.seconds for record in status.rounds),
    }


def _other_rounds(folder: Path) -> dict[str, Sequence[RoundRecord]]:
    """Read the rounds of the other arms, local ones first."""
    arms = sorted((folder / ARMS).glob("*"), key=lambda arm: ("-" not in arm.name, arm.name))
    rounds = {arm.name: RunFolder(arm).rounds() for arm in arms if RunFolder(arm).holds_run()}
    return {name: records for name, records in rounds.items() if records}
