"""Keep AdamW's moments between rounds, on the site's own disk (``optimizer_state: kept``).

Each round has a file in a folder of its plan and run. A round starts with the moments of the last
earlier round that this site trained in the stage, so a repeated round starts exactly as before. The
moments never leave the site.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from pathlib import Path
from typing import Protocol

from torch.optim import Optimizer

from mamfed_common.model.checked_file import FileFacts, read_checked, write_checked
from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.runtime.files import private_directory, remove_drafts
from mamfed_common.training.round_checkpoint import moments_of, set_moments

logger = logging.getLogger(__name__)

KEPT_ROUNDS = 3
"""Number of rounds kept. If its latest checkpoint is damaged, the server repeats that round, and a
site may already have trained the next one: it then needs the moments from before both."""
KEPT_RUNS = 2
"""Number of runs kept, because an earlier run may be resumed."""
RUN_FOLDER = re.compile(r"[0-9a-f]{16}")
FILE = re.compile(r"(\d)-(\d{4,})\.safetensors")


class OptimizerState(Protocol):
    """AdamW's moments before and after a round."""

    def restore(self, optimizer: Optimizer) -> None:
        """Load the moments that the round starts with, if there are any, into a fresh optimizer."""

    def keep(self, optimizer: Optimizer) -> None:
        """Save the moments at the end of the round."""


class OptimizerStateStore:
    """One site's AdamW moments before and after one round."""

    def __init__(
        self, folder: Path, plan: TrainingPlan, run: str, stage: Stage, server_round: int
    ) -> None:
        """Open the site's folder, creating it if necessary (0700).

        Args:
            folder: Folder of the moments of all the site's runs.
            plan: The run's plan.
            run: The coordinator's name for the run.
            stage: The stage.
            server_round: The round within the stage, from 1.
        """
        self._what = f"{plan.sha256()} {run}"
        name = hashlib.sha256(self._what.encode()).hexdigest()[:16]
        self._folder = private_directory(private_directory(folder) / name)
        self._here = (list(Stage).index(stage), server_round)

    def restore(self, optimizer: Optimizer) -> None:
        """Load the moments that the round starts with, if there are any, into a fresh optimizer."""
        if moments := self.before():
            set_moments(moments, optimizer)

    def keep(self, optimizer: Optimizer) -> None:
        """Save the moments at the end of the round; remove those that no round can need."""
        self.keep_moments(moments_of(optimizer))

    def before(self) -> State | None:
        """Return the moments that the round starts with; None if there are none."""
        stage, server_round = self._here
        before = [here for here in self._kept() if here[0] == stage and here < self._here]
        kept = before and read_checked(self._path(before[-1]), self._of(before[-1]), FileFacts)
        if kept:
            return kept[1]
        if server_round > 1:
            logger.warning("no usable moments of an earlier round: AdamW starts fresh")
        return None

    def keep_moments(self, moments: State) -> None:
        """Save moments as :meth:`keep` does."""
        facts = FileFacts(what=self._of(self._here))
        if not write_checked(self._path(self._here), facts, moments):
            return
        remove_drafts(self._folder)
        kept = self._kept()
        useful = [here for here in kept if here <= self._here][-KEPT_ROUNDS:]
        for here in set(kept) - set(useful):
            self._path(here).unlink(missing_ok=True)
        self._remove_old_runs()

    def _kept(self) -> list[tuple[int, int]]:
        """Return the stages and rounds that have a file, in order."""
        found = map(FILE.fullmatch, (path.name for path in self._folder.glob("*.safetensors")))
        return sorted((int(name[1]), int(name[2])) for name in found if name)

    def _path(self, here: tuple[int, int]) -> Path:
        return self._folder / f"{here[0]}-{here[1]:04}.safetensors"

    def _of(self, here: tuple[int, int]) -> str:
        return f"{self._what} {here[0]} {here[1]}"

    def _remove_old_runs(self) -> None:
        runs = [p for p in self._folder.parent.iterdir() if RUN_FOLDER.fullmatch(p.name)]
        others = sorted(
            (p for p in runs if p != self._folder), key=lambda p: p.stat().st_mtime, reverse=True
        )
        for run in others[KEPT_RUNS - 1 :]:
            shutil.rmtree(run, ignore_errors=True)
