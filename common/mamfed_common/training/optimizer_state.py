"""AdamW's moments from round to round, on the site's own disk (``optimizer_state: kept``).

A file a round in a folder of the plan and the run: a round begins with the moments of the last one
before it that this site trained in the stage, so one that is asked again begins as it did before.
They never leave the site.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from pathlib import Path

from torch.optim import Optimizer

from mamfed_common.model.checked_file import FileFacts, read_checked, write_checked
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.runtime.files import private_directory, remove_drafts
from mamfed_common.training.round_checkpoint import moments_of, set_moments

logger = logging.getLogger(__name__)

KEPT_ROUNDS = 3
"""A server whose latest checkpoint is damaged asks for that round again, while a site may have
trained the next one: it then needs the moments from before both."""
KEPT_RUNS = 2
"""Of a run before this one the moments stay, for it may be resumed."""
RUN_FOLDER = re.compile(r"[0-9a-f]{16}")
FILE = re.compile(r"(\d)-(\d{4,})\.safetensors")


class OptimizerStateStore:
    """One site's moments before and after one round."""

    def __init__(
        self, folder: Path, plan: TrainingPlan, run: str, stage: Stage, server_round: int
    ) -> None:
        """Open the site's folder, which is made if missing (0700).

        Args:
            folder: Where the site keeps the moments of all its runs.
            plan: The plan that the run follows.
            run: What the coordinator calls the run.
            stage: The stage.
            server_round: The round, counted from 1 within the stage.
        """
        self._what = f"{plan.sha256()} {run}"
        name = hashlib.sha256(self._what.encode()).hexdigest()[:16]
        self._folder = private_directory(private_directory(folder) / name)
        self._here = (list(Stage).index(stage), server_round)

    def restore(self, optimizer: Optimizer) -> None:
        """Give a fresh optimizer the moments that the round begins with, if there are any."""
        stage, server_round = self._here
        before = [here for here in self._kept() if here[0] == stage and here < self._here]
        kept = before and read_checked(self._path(before[-1]), self._of(before[-1]), FileFacts)
        if kept:
            set_moments(kept[1], optimizer)
        elif server_round > 1:
            logger.warning("no moments of an earlier round can be used: AdamW starts afresh")

    def keep(self, optimizer: Optimizer) -> None:
        """Keep the moments that the round ends with; remove what no round can ask for any more."""
        facts = FileFacts(what=self._of(self._here))
        if not write_checked(self._path(self._here), facts, moments_of(optimizer)):
            return
        remove_drafts(self._folder)
        kept = self._kept()
        useful = [here for here in kept if here <= self._here][-KEPT_ROUNDS:]
        for here in set(kept) - set(useful):
            self._path(here).unlink(missing_ok=True)
        self._remove_old_runs()

    def _kept(self) -> list[tuple[int, int]]:
        """Return the stages and rounds of which there is a file, in their order."""
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
