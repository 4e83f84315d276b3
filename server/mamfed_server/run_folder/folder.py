"""The run folder: the plan, a record of every round, the checkpoints and the summary.

=======================================  ======================================================
``mamfed-run.json``                      marks the folder as a run's and gives its format
``plan.yaml``                            the resolved plan
``rounds.jsonl``                         one line per round, see :class:`RoundRecord`
``events.jsonl``                         the event log, see ``event_log.py``
``tensorboard/``                         the curves, as TensorBoard event files
``mlflow.json``                          which run of MLflow it is, where one is told
``updates/``                             updates of the round under way
``checkpoints/latest.safetensors``       after every round (each with a ``.json`` beside it)
``checkpoints/previous.safetensors``     the round before ``latest``
``checkpoints/pretrained.safetensors``   after the last round of stage 1
``checkpoints/best.safetensors``         the chosen round (``round_choice.py``), with the painter
``checkpoints/final.safetensors``        after the last round, with the painter
``summary.json``                         who took part, how the run ended, test results; absent
                                         while the run is running
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

from pydantic import ValidationError

from mamfed_common import __version__
from mamfed_common.checkpoint import Checkpoint, save_checkpoint
from mamfed_common.errors import DataError, OutputError
from mamfed_common.plan import TrainingPlan
from mamfed_common.plan.weights_size import weights_bytes
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, STATE_BYTES, read_values
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
from mamfed_server.run_folder.room import Again, once
from mamfed_server.run_folder.round_record import RoundRecord

PLAN, ROUNDS, SUMMARY, CHECKPOINTS = "plan.yaml", "rounds.jsonl", "summary.json", "checkpoints"
UPDATES = "updates"
MARK, FORMAT = "mamfed-run.json", 1
ENDED = ("finished", "failed", "stopped")
"""Valid values of a summary's ``status``."""
PRETRAINED = "pretrained"
KEPT = 5
"""Number of checkpoints kept at once: latest, previous, pretrained, best, final."""
NEXT, LATEST, PREVIOUS, DAMAGED = "next", "latest", "previous", "damaged"
"""``next`` exists only briefly: it is complete on disk before ``latest`` becomes ``previous``."""


class RunFolder:
    """One run's folder on disk. All its files are readable by their owner only."""

    def __init__(self, path: Path, again: Again = once) -> None:
        """Refer to the folder at ``path``; only :meth:`create` creates it.

        Args:
            path: The folder.
            again: Repeats what a round reads and writes where the machine has no room for it.
        """
        self.path, self._again = path, again

    def create(self, plan: TrainingPlan) -> None:
        """Create the folder and write the resolved plan. An earlier run in it is renamed.

        Raises:
            OutputError: The path is not a run folder, or the folder cannot be created.
        """
        try:
            parent = private_directory(Path(os.path.abspath(self.path)).parent)
            check_room(parent, _checkpoint_bytes(plan))  # before anything is changed
            self._rename_earlier_run()
            private_directory(self.path)
            mark = {"format": FORMAT, "made_by": f"mamfed {__version__}"}
            # First, so that a folder left by a crash is recognised as ours.
            write_atomic(self.path / MARK, json.dumps(mark) + "\n")
            write_atomic(self.path / PLAN, plan.to_yaml())
            private_directory(self.path / CHECKPOINTS)
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot create the run folder: {reason(self.path, error)}"
            ) from None

    def reopen(self) -> None:
        """Remove incomplete files left by a crash, and the summary of the run's earlier end.

        Raises:
            OutputError: The folder cannot be written.
        """
        try:
            private_directory(self.path / CHECKPOINTS)
            remove_drafts(self.path)
            (self.path / SUMMARY).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot resume here: {reason(self.path, error)}"
            ) from None

    def holds_run(self) -> bool:
        """Return whether there is a run in the folder.

        A ``plan.yaml`` alone may be a user's file: a run folder also has our mark, or, if it is of
        mamfed 0.1.0, a folder of checkpoints.

        Raises:
            OutputError: The run is of a later version of mamfed.
        """
        if not (self.path / PLAN).is_file():
            return False
        if not (self.path / MARK).is_file():
            return (self.path / CHECKPOINTS).is_dir()
        self._check_mark()
        return True

    def _check_mark(self) -> None:
        try:
            version = read_values(self.path / MARK, DOCUMENT_BYTES)["format"]
        except (OSError, ValueError, KeyError, TypeError):
            version = None
        if version != FORMAT:
            raise OutputError(
                f"{self.path / MARK}: found format {version}, expected {FORMAT}; damaged or of "
                "another version of mamfed: choose another folder"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder against other processes; the hidden lock file lies next to it.

        Raises:
            SetupError: Another process is working on the run.
            OutputError: The folder holds something else, or its parent cannot be written.
        """
        self.check_ours()
        lock = self.lock()
        try:
            private_directory(lock.parent)
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be created: {reason(self.path, error)}"
            ) from None
        with exclusive_lock(lock, "another run", self.path, leaves_file=False):
            yield

    def is_worked_on(self) -> bool:
        """Return whether another process is inside :meth:`alone`; a lock ends with its process."""
        owner = holder(self.lock())
        return owner is not None and owner.pid != os.getpid()

    def lock(self) -> Path:
        """Return the path of the lock file, hidden next to the folder."""
        path = Path(os.path.abspath(self.path))
        return path.parent / f".{path.name}.lock"

    def check_ours(self) -> bool:
        """Refuse a folder that is not a run's; return whether there is an earlier run.

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
        """Return whether the run has finished."""
        try:
            return bool(self.read_summary()["status"] == "finished")
        except DataError:
            return False

    def _rename_earlier_run(self) -> None:
        """Rename an earlier run to ``NAME.1``, ``NAME.2`` ..., so that no result is overwritten."""
        if self.check_movable():
            Path(os.path.abspath(self.path)).rename(self.next_place())

    def check_movable(self) -> bool:
        """Refuse a folder that cannot be renamed; return whether there is an earlier run.

        Raises:
            OutputError: The folder holds something else, or is the current working directory.
        """
        if not self.check_ours():
            return False
        if Path.cwd().is_relative_to(Path(os.path.abspath(self.path)).resolve()):
            raise OutputError(
                f"{self.path}: holds an earlier run and is your current folder; choose another one"
            )
        return True

    def next_place(self) -> Path:
        """Return the path that an earlier run is renamed to: NAME.1, NAME.2 ..."""
        path = Path(os.path.abspath(self.path))
        candidates = (path.with_name(f"{path.name}.{n}") for n in itertools.count(1))
        return next(candidate for candidate in candidates if not candidate.exists())

    def checkpoint_path(self, name: str) -> Path:
        """Return the path of the checkpoint ``name``, such as ``latest`` or ``best``."""
        return self.path / CHECKPOINTS / f"{name}.safetensors"

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        """Write the ``pretrained``, ``best`` or ``final`` checkpoint."""
        self._again(lambda: save_checkpoint(self.checkpoint_path(name), checkpoint))

    def save_latest(self, checkpoint: Checkpoint) -> None:
        """Write ``latest``; the former ``latest`` becomes ``previous``."""
        self.save(NEXT, checkpoint)
        self._again(self.promote_next)

    def promote_next(self) -> None:
        """Rename ``next``, if it exists, to ``latest``."""
        if self.checkpoint_path(NEXT).exists() and self.checkpoint_path(LATEST).exists():
            self._move(LATEST, PREVIOUS)
        self._move(NEXT, LATEST)
        sync_folder(self.path / CHECKPOINTS)

    def set_aside(self, name: str) -> None:
        """Rename a damaged checkpoint to ``damaged``, so that its name is free."""
        self._move(name, DAMAGED)

    def _move(self, name: str, new_name: str) -> None:
        for suffix in (".safetensors", ".json"):
            path = self.checkpoint_path(name).with_suffix(suffix)
            if path.exists():
                path.replace(self.checkpoint_path(new_name).with_suffix(suffix))

    def append_round(self, record: RoundRecord) -> None:
        """Append a line to ``rounds.jsonl`` and flush it to disk."""
        self._again(lambda: append_line(self.path / ROUNDS, record.model_dump_json()))

    def rounds(self) -> list[RoundRecord]:
        """Read ``rounds.jsonl``; empty if no round has been completed.

        Reading stops at an unreadable line, as after a power cut: that round is repeated.
        """
        records = []
        for line in self._again(lambda: read_lines(self.path / ROUNDS)):
            try:
                records.append(RoundRecord.model_validate_json(line))
            except ValidationError:
                break
        return records

    def keep_rounds(self, records: Sequence[RoundRecord]) -> None:
        """Replace ``rounds.jsonl``."""
        text = "".join(record.model_dump_json() + "\n" for record in records)
        write_atomic(self.path / ROUNDS, text)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        text = json.dumps(summary, indent=2) + "\n"
        self._again(lambda: write_atomic(self.path / SUMMARY, text))

    def read_summary(self) -> dict[str, Any]:
        """Read ``summary.json``.

        Raises:
            DataError: The run has not ended, or the summary is damaged.
        """
        path = self.path / SUMMARY
        try:
            summary = read_values(path, STATE_BYTES)
        except FileNotFoundError:
            raise DataError(f"{path}: not found; the run has not ended") from None
        except (OSError, ValueError):
            summary = None
        if not isinstance(summary, dict) or summary.get("status") not in ENDED:
            raise DataError(f"{path}: damaged: it does not say how the run ended")
        return {"reason": "", **summary}


def _checkpoint_bytes(plan: TrainingPlan) -> int:
    """Return the total size of a run's checkpoints, each with a painter if there is a stage 1."""
    return KEPT * weights_bytes(plan) * (2 if plan.pretraining.rounds else 1)


def _is_unfinished(path: Path) -> bool:
    """Return whether a file can be left by a crash while a run folder is created."""
    return path.name.endswith(DRAFT) or path.name == MARK
