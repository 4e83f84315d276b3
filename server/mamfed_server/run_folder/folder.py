"""The run folder: what was asked, what happened in every round, and what came out.

=======================================  ======================================================
``mamfed-run.json``                      that this folder is a run's, and of which format
``plan.yaml``                            the resolved plan
``rounds.jsonl``                         one line a round, see :class:`RoundRecord`
``events.jsonl``                         what happened when, see ``event_log.py``
``updates/``                             updates of the round under way
``checkpoints/latest.safetensors``       after every round (``.json`` beside each)
``checkpoints/previous.safetensors``     the round before it
``checkpoints/pretrained.safetensors``   after the last round of stage 1
``checkpoints/best.safetensors``         the chosen round (``round_choice.py``), and the painter
``checkpoints/final.safetensors``        after the last round, and the painter
``summary.json``                         who took part, how it ended, test results; there is
                                         none while the run goes on
=======================================  ======================================================
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from mamfed_common import __version__
from mamfed_common.checkpoint import Checkpoint, save_checkpoint
from mamfed_common.config import Config
from mamfed_common.domain import Examples
from mamfed_common.errors import DataError, OutputError, RunError
from mamfed_common.metrics.scores import SiteScore
from mamfed_common.plan import TRAINED_ON, Stage, TrainingPlan
from mamfed_common.plan.norm_groups import expected_state
from mamfed_common.runtime.files import (
    DRAFT,
    private_directory,
    reason,
    remove_drafts,
    sync_folder,
    write_atomic,
)
from mamfed_common.runtime.lock import exclusive_lock, holder
from mamfed_common.runtime.output_checks import check_room
from mamfed_server.run_folder.jsonl import append_line, read_lines

PLAN, ROUNDS, SUMMARY, CHECKPOINTS = "plan.yaml", "rounds.jsonl", "summary.json", "checkpoints"
UPDATES = "updates"
MARK, FORMAT = "mamfed-run.json", 1
ENDED = ("finished", "failed", "stopped")
"""The ``status`` of a summary."""
PRETRAINED = "pretrained"
KEPT = 5
"""Checkpoints that lie side by side: latest, previous, pretrained, best, final."""
NEXT, LATEST, PREVIOUS, DAMAGED = "next", "latest", "previous", "damaged"
"""``next`` is whole and on disk before ``latest`` becomes ``previous``, and lasts a moment."""


class Contribution(Config):
    """One accepted update: its examples by kind, share of the mean, and training loss."""

    num_examples: Examples
    share: float
    loss: float | None


class RoundRecord(Config):
    """One line of ``rounds.jsonl``.

    Attributes:
        stage: The round's stage.
        server_round: The round, counted from 1 within its stage.
        expected: Sites that were asked.
        answered: Sites that sent anything back before the deadline.
        accepted: Sites whose update is in the new weights.
        refused: Sites whose update is not, each with the reason.
        absent: Approved sites that were not there to be asked, each with the reason.
        validation: Each validating site's result with the new weights (stage 2).
        mean_validation_dice: Mean over sites of their validation Dice.
        pooled_validation_dice: That at 0.5, over all images of all sites: what chooses a round.
        validation_images: Images behind that.
        bytes_sent: Bytes of weights sent to sites for training.
        bytes_received: Bytes of weights received in updates, refused ones too.
        seconds: How long the round took, validation included.
        started_at: When it started, UTC, ISO 8601.
        deadlines: How long each site was waited for, in seconds.
        durations: Seconds until each site answered, its whole deadline where it let that pass.
        validation_durations: Likewise for the validation.
    """

    stage: Stage
    server_round: int
    expected: tuple[str, ...]
    answered: tuple[str, ...]
    accepted: dict[str, Contribution]
    refused: dict[str, str]
    absent: dict[str, str] = Field(default_factory=dict)
    validation: dict[str, SiteScore] = Field(default_factory=dict)
    mean_validation_dice: float | None = None
    pooled_validation_dice: float | None = None
    validation_images: int | None = None
    bytes_sent: int = Field(default=0, ge=0)
    bytes_received: int = Field(default=0, ge=0)
    seconds: float = 0.0
    started_at: str = ""
    deadlines: dict[str, float] = Field(default_factory=dict)
    durations: dict[str, float] = Field(default_factory=dict)
    validation_durations: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _as_0_1_0_wrote_it(cls, values: Any) -> Any:
        """Take a number of examples without its kind for what the stage is about."""
        try:
            kind = TRAINED_ON[Stage(values["stage"])]
            accepted = {
                site: {**one, "num_examples": {kind: one["num_examples"]}}
                if isinstance(one["num_examples"], int)
                else one
                for site, one in values["accepted"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError):  # not a record, or one in memory
            return values
        return {**values, "accepted": accepted}


class RunFolder:
    """One run's folder on disk. Every file in it is readable by its owner only."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is made until :meth:`create`."""
        self.path = path

    def create(self, plan: TrainingPlan) -> None:
        """Make the folder and write the resolved plan. An earlier run there is moved aside.

        Raises:
            OutputError: The path is a file, holds something else than a run, or cannot be made.
        """
        try:
            above = private_directory(Path(os.path.abspath(self.path)).parent)
            check_room(above, _bytes_of(plan))  # before anything is moved or made
            self._keep_earlier_run()
            private_directory(self.path)
            mark = {"format": FORMAT, "made_by": f"mamfed {__version__}"}
            write_atomic(self.path / MARK, json.dumps(mark) + "\n")  # the first: it is ours now
            write_atomic(self.path / PLAN, plan.to_yaml())
            private_directory(self.path / CHECKPOINTS)
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot make the run folder: {reason(self.path, error)}"
            ) from None

    def reopen(self) -> None:
        """Remove what a kill has left half done, and the account of how the run last ended.

        Raises:
            OutputError: The folder cannot be written.
        """
        try:
            private_directory(self.path / CHECKPOINTS)
            remove_drafts(self.path)
            (self.path / SUMMARY).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot go on here: {reason(self.path, error)}"
            ) from None

    def holds_run(self) -> bool:
        """Tell whether there is a run in the folder.

        A ``plan.yaml`` alone is somebody's file: our own mark says that we made the folder. Runs
        of mamfed 0.1.0 have none, but checkpoints beside their plan.

        Raises:
            OutputError: It is of a later version of mamfed.
        """
        if not (self.path / PLAN).is_file():
            return False
        if not (self.path / MARK).is_file():
            return (self.path / CHECKPOINTS).is_dir()
        self._check_mark()
        return True

    def _check_mark(self) -> None:
        try:
            found = json.loads((self.path / MARK).read_text())["format"]
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        if found != FORMAT:
            raise OutputError(
                f"{self.path / MARK}: found format {found}, expected {FORMAT}: written by another "
                "mamfed, or damaged; choose another folder"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second run out while the block runs; the lock lies beside the folder, hidden.

        Raises:
            SetupError: Another run works in the folder.
            OutputError: The folder holds something else, or the place cannot be written.
        """
        self.check_ours()
        lock = self.lock()
        try:
            private_directory(lock.parent)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be made: {reason(self.path, error)}") from None
        with exclusive_lock(lock, "another run", self.path, leaves_file=False):
            yield

    def is_worked_on(self) -> bool:
        """Tell whether another process is inside :meth:`alone`; a kill ends that with it."""
        found = holder(self.lock())
        return found is not None and found.pid != os.getpid()

    def lock(self) -> Path:
        """Return where the lock of the folder lies: beside it, hidden."""
        place = Path(os.path.abspath(self.path))
        return place.parent / f".{place.name}.lock"

    def check_ours(self) -> bool:
        """Refuse somebody's folder; return whether there is an earlier run.

        Raises:
            OutputError: It holds something else, or a run of another version of mamfed.
        """
        if not self.path.exists():
            return False
        if self.path.is_dir() and all(_is_unfinished(path) for path in self.path.iterdir()):
            return False
        if not self.holds_run():
            raise OutputError(f"{self.path}: exists and is not a run folder; choose another")
        return True

    def is_finished(self) -> bool:
        """Tell whether the run has come to its end."""
        try:
            return bool(self.read_summary()["status"] == "finished")
        except DataError:
            return False

    def _keep_earlier_run(self) -> None:
        """Rename an earlier run to ``NAME.1``, ``NAME.2`` ...: no result is ever overwritten."""
        if self.check_movable():
            Path(os.path.abspath(self.path)).rename(self.next_place())

    def check_movable(self) -> bool:
        """Refuse what cannot be moved aside; return whether there is an earlier run.

        Raises:
            OutputError: The folder holds something else, or the run that this process is in.
        """
        if not self.check_ours():
            return False
        if Path.cwd().is_relative_to(Path(os.path.abspath(self.path)).resolve()):
            raise OutputError(
                f"{self.path}: holds an earlier run, and you are in it; choose another folder"
            )
        return True

    def next_place(self) -> Path:
        """Return what an earlier run in the folder is renamed to: NAME.1, NAME.2 ..."""
        place = Path(os.path.abspath(self.path))
        names = (place.with_name(f"{place.name}.{n}") for n in itertools.count(1))
        return next(name for name in names if not name.exists())

    def checkpoint_path(self, name: str) -> Path:
        """Return where the ``latest``, ``best`` or ``final`` checkpoint lies."""
        return self.path / CHECKPOINTS / f"{name}.safetensors"

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        """Write the ``pretrained``, ``best`` or ``final`` checkpoint."""
        save_checkpoint(self.checkpoint_path(name), checkpoint)

    def save_latest(self, checkpoint: Checkpoint) -> None:
        """Write ``latest``; what it was becomes ``previous``."""
        self.save(NEXT, checkpoint)
        self.promote_next()

    def promote_next(self) -> None:
        """Make ``next`` the latest checkpoint; nothing where there is none."""
        if self.checkpoint_path(NEXT).exists() and self.checkpoint_path(LATEST).exists():
            self._move(LATEST, PREVIOUS)
        self._move(NEXT, LATEST)
        self._sync_names()

    def set_aside(self, name: str) -> None:
        """Keep a damaged checkpoint as ``damaged``, out of the way of those to come."""
        self._move(name, DAMAGED)

    def _move(self, name: str, new_name: str) -> None:
        for suffix in (".safetensors", ".json"):
            path = self.checkpoint_path(name).with_suffix(suffix)
            if path.exists():
                path.replace(self.checkpoint_path(new_name).with_suffix(suffix))

    def _sync_names(self) -> None:
        sync_folder(self.path / CHECKPOINTS)

    def append_round(self, record: RoundRecord) -> None:
        """Add a line to ``rounds.jsonl`` and make sure that it is on disk."""
        append_line(self.path / ROUNDS, record.model_dump_json())

    def rounds(self) -> list[RoundRecord]:
        """Read ``rounds.jsonl``; empty where no round has ended.

        A line that cannot be read ends it: what a power cut has left behind is done again.
        """
        records = []
        for line in read_lines(self.path / ROUNDS):
            try:
                records.append(RoundRecord.model_validate_json(line))
            except ValidationError:
                break
        return records

    def keep_rounds(self, records: Sequence[RoundRecord]) -> None:
        """Write ``rounds.jsonl`` anew."""
        text = "".join(record.model_dump_json() + "\n" for record in records)
        write_atomic(self.path / ROUNDS, text)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_atomic(self.path / SUMMARY, json.dumps(summary, indent=2) + "\n")

    def read_summary(self) -> dict[str, Any]:
        """Read ``summary.json``.

        Raises:
            DataError: The folder is not one of a run that has ended.
        """
        path = self.path / SUMMARY
        try:
            summary = json.loads(path.read_text())
        except FileNotFoundError:
            raise DataError(f"{path}: no summary of a run that has ended") from None
        except (OSError, ValueError):
            summary = None
        if not isinstance(summary, dict) or summary.get("status") not in ENDED:
            raise DataError(f"{path}: damaged: it does not say how the run ended")
        return {"reason": "", **summary}


def find_run(run: str, runs: Path) -> Path:
    """Return the folder of a run: ``run`` is its path, or its name in ``runs``.

    Raises:
        RunError: There is none.
    """
    for folder in (Path(run), runs / run):
        if RunFolder(folder).holds_run():
            return folder
    raise RunError(f"{run}: no run folder, for it has no {PLAN}; nor is it a run in {runs}")


def _bytes_of(plan: TrainingPlan) -> int:
    """Return what a run's checkpoints take in the end, each with a painter beside."""
    weights = sum(tensor.nbytes for tensor in expected_state(plan).values())
    return KEPT * weights * (2 if plan.pretraining.rounds else 1)


def _is_unfinished(path: Path) -> bool:
    """Tell whether a file is what a kill has left of making a run folder."""
    return path.name.endswith(DRAFT) or path.name == MARK
