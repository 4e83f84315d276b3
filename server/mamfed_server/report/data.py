"""What a report is made of: the run folder, and what ``report.json`` adds to it."""

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
from mamfed_common.runtime.files import write_atomic
from mamfed_server.report.participation import never_asked
from mamfed_server.run.state import KeptCheckpoint, RunState, RunStatus, run_status_of
from mamfed_server.run_folder.folder import PLAN, RoundRecord, RunFolder

NOTES, FIGURE2, ARMS = "report.json", "figure2.png", "arms"


class RejectedRow(Config):
    """A row of a site's table that could not be used; it stays with those who hold the table."""

    site: str
    row: int
    image: str
    reason: str
    detail: str


class CaseNote(Config):
    """A held-out image.

    Attributes:
        site: The site that holds it.
        image: Its name in the site's table.
        vendor: Who made the machine.
        dice: Dice of prediction and truth, 0..1.
    """

    site: str
    image: str
    vendor: str
    dice: float


class Interval(Config):
    """A 95 % bootstrap interval over patients of a site's mean Dice in the federated arm."""

    low: float | None
    high: float | None
    patients: int


class DiceDifference(Config):
    """A difference of two mean Dices, with its 95 % bootstrap interval over patients if known."""

    value: float
    low: float | None = None
    high: float | None = None


class SiteGain(Config):
    """What a site gains by taking part, on its own held-out images.

    Attributes:
        site: The site.
        images: Its images with malignancy.
        patients: Their patients; None: not known.
        dice: Mean Dice by model: ``shared``, ``personal``, ``local``.
        minus_local: Of ``shared`` and ``personal``, the paired difference to ``local``.
        other_images: Its images without malignancy.
        other_patients: Their patients.
        marked: Mean share of the breast that a model marks on those, 0..1, by model.
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
    """What a run knows beside its plan, rounds and summary; a simulation knows most.

    Attributes:
        title: Heading of the page.
        command: The command line that ran.
        environment: Versions, device and threads, by name.
        rejected: Every row that could not be used.
        cases: The images of ``figure2.png``, in the order of its columns.
        cases_chosen_by: The rule by which they were chosen.
        worst: The held-out images with the lowest Dice, the worst first.
        intervals: By site.
        promises: What each site gains, as a simulation measured it image by image.
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
    """What a report is made of.

    Attributes:
        plan: The plan.
        summary: What ``summary.json`` holds.
        rounds: Rounds of the federated arm.
        other_rounds: Rounds of other arms, by ``local-NAME`` or ``centralised``.
        notes: What ``report.json`` holds.
        figure2: PNG of ``notes.cases``, as a simulation drew it.
        events: How often which event was logged.
        absent: Approved sites that no round has asked, each with the reason.
        kept: The checkpoint that is in the folder; None: there is none.
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
        """How the run stands."""
        return RunState(self.summary["status"])

    @property
    def ended_well(self) -> bool:
        """Whether the run came to its end, and so to its test on held-out patients."""
        return self.state is RunState.FINISHED

    @property
    def threshold(self) -> float:
        """Probability from which the federated arm marks a pixel on test images."""
        chosen: float | None = self.summary.get("threshold")
        return self.plan.evaluation.threshold if chosen is None else chosen


def environment() -> dict[str, str]:
    """Return what this process runs on, by name."""
    return {
        "mamfed": __version__,
        "Python": platform.python_version(),
        "torch": version("torch"),
        "Flower": version("flwr"),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def write_notes(folder: Path, notes: RunNotes, figure2: bytes | None = None) -> None:
    """Keep in a run folder what its report needs beside the run's own files."""
    write_atomic(folder / NOTES, notes.model_dump_json(indent=2) + "\n")
    if figure2 is not None:
        write_atomic(folder / FIGURE2, figure2)


def read_notes(folder: Path) -> RunNotes:
    """Read what a run folder has noted, nothing where it has not.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / NOTES
    if not path.exists():
        return RunNotes(title=f"Run {folder.resolve().name}")
    try:
        return RunNotes.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise DataError(f"{path}: damaged; remove it, and the report goes without it") from None


def read_run(folder: Path) -> ReportData:
    """Gather what a run folder holds, whether the run has ended or not.

    Raises:
        DataError: The summary or the notes are damaged.
        PlanError: The plan is damaged or missing.
    """
    plan, found = read_plan(folder / PLAN), run_status_of(folder)
    notes, figure2 = read_notes(folder), folder / FIGURE2
    rounds, events = found.rounds, found.events
    summary = _unfinished(found, plan) if found.summary is None else found.summary
    return ReportData(
        plan=plan,
        summary=summary | {"checkpoint": str(found.kept.path.resolve()) if found.kept else None},
        kept=found.kept,
        rounds=rounds,
        other_rounds=_other_rounds(folder),
        notes=notes,
        figure2=figure2.read_bytes() if notes.cases and figure2.exists() else None,
        events=Counter(str(event.get("event")) for event in events),
        absent=never_asked(events, rounds),
    )


def _unfinished(found: RunStatus, plan: TrainingPlan) -> dict[str, Any]:
    """Stand for the summary that a run has not written yet, or never will."""
    stages: dict[str, list[str]] = {}
    for record in found.rounds:
        stages[record.stage] = sorted({*stages.get(record.stage, ()), *record.expected})
    return {
        "status": found.state,
        "reason": "" if found.state is RunState.RUNNING else found.reason,
        "complete": False,
        "arms": {},
        "checkpoint_chosen_by": "the latest round: no validation Dice was measured yet",
        "pooled_validation_dice": None,
        "plan_sha256": plan.sha256(),
        "stages": stages,
        "sites": {},
        "warnings": list(dict.fromkeys(e["warning"] for e in found.events if "warning" in e)),
        "seconds": sum(record.seconds for record in found.rounds),
    }


def _other_rounds(folder: Path) -> dict[str, Sequence[RoundRecord]]:
    """Read the rounds of other arms, local ones first."""
    arms = sorted((folder / ARMS).glob("*"), key=lambda arm: ("-" not in arm.name, arm.name))
    rounds = {arm.name: RunFolder(arm).rounds() for arm in arms if RunFolder(arm).holds_run()}
    return {name: records for name, records in rounds.items() if records}
