"""The models that a site keeps of each run: the shared one, and the personal one adapted from it.

They are in ``models/RUN-PLAN/`` of the site's home, where RUN is the coordinator's name for the run
and PLAN the first digits of the plan's SHA-256; in a simulation, in ``models/SITE/`` of the run
folder:

========================  ====================================================================
``shared.safetensors``    the final shared weights, as tested at this site
``personal.safetensors``  those weights, adapted to this site's patients
``scores.json``           both models' scores on this site's test patients; it stays here
``card.md``               a description of all of this in words
========================  ====================================================================

Both are ordinary checkpoints (``mamfed_common.checkpoint``), each with its facts in a JSON file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.models.known_scores import ByImage, KnownScores
from mamfed_client.models.model_card import CARD, card
from mamfed_common.checkpoint import (
    Checkpoint,
    CheckpointFacts,
    load_checkpoint,
    load_model,
    require_finetuned,
    save_checkpoint,
    with_hashes,
)
from mamfed_common.config import SITE_NAME
from mamfed_common.errors import CheckpointError, OutputError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.plan import TrainingPlan
from mamfed_common.protocol.tasks import ModelKind
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_bytes
from mamfed_common.runtime.files import private_directory, write_atomic

SHARED: ModelKind = "shared"
PERSONAL: ModelKind = "personal"
SCORES = "scores.json"
PREFIX = 12
"""Digits of a plan's SHA-256 in a folder's name."""
MOST_RUNS = 50
"""Maximum runs whose models a site keeps, so that new run names cannot fill its disk."""


class ModelFolder:
    """The models of one run at one site."""

    def __init__(self, path: Path) -> None:
        """Open the folder, which is created when the first model is stored."""
        self.path = path

    def file(self, kind: ModelKind) -> Path:
        """Return the path of a model, whether or not it exists."""
        return self.path / f"{kind}.safetensors"

    def keep_shared(self, shared: Checkpoint, run: str = "", *, from_file: bool = False) -> None:
        """Store the shared model; remove files that belong to another one first."""
        facts, known = with_hashes(shared).facts, self._readable_facts(SHARED)
        if known == facts:
            return
        private_directory(self.path)
        if known is None or _without_threshold(known) != _without_threshold(facts):
            personal = self.file(PERSONAL)
            for path in (personal, personal.with_suffix(".json"), self._scores):
                path.unlink(missing_ok=True)
            self._write_scores(KnownScores(run=run, from_file=from_file))
        save_checkpoint(self.file(SHARED), shared)
        self._write_card(facts)

    def keep_personal(self, checkpoint: Checkpoint) -> None:
        """Store the personal model."""
        private_directory(self.path)
        save_checkpoint(self.file(PERSONAL), checkpoint)

    def personal_like(self, facts: CheckpointFacts) -> Checkpoint | None:
        """Return the personal model if its facts match, apart from threshold and weights."""
        try:
            stored = load_checkpoint(self.file(PERSONAL))
        except CheckpointError:
            return None
        expected = facts.model_copy(update={"weights_sha256": stored.facts.weights_sha256})
        return stored if _without_threshold(expected) == _without_threshold(stored.facts) else None

    def weights_sha256(self) -> str:
        """Return the SHA-256 of the shared model's weights; empty if it cannot be read."""
        facts = self._readable_facts(SHARED)
        return facts.weights_sha256 if facts else ""

    def scores(self) -> KnownScores:
        """Return the stored scores, or empty ones if the file is missing or damaged."""
        try:
            return KnownScores.model_validate_json(read_bytes(self._scores, DOCUMENT_BYTES))
        except (OSError, ValidationError):
            return KnownScores()

    def note_score(
        self, kind: ModelKind, score: SiteScore, run: str = "", images: ByImage = ()
    ) -> None:
        """Store the score of a model, and the Dice of each image behind it."""
        private_directory(self.path)
        known = self.scores()
        changes = {"run": run or known.run, kind: score, f"{kind}_images": images}
        self._write_scores(known.model_copy(update=changes))
        facts = self._readable_facts(SHARED)
        if facts is not None:
            self._write_card(facts)

    @property
    def _scores(self) -> Path:
        return self.path / SCORES

    def _write_scores(self, scores: KnownScores) -> None:
        write_atomic(self._scores, scores.model_dump_json(indent=2) + "\n")

    def _write_card(self, facts: CheckpointFacts) -> None:
        known = self.scores()
        text = card(known.run, facts, known.shared, known.personal, from_file=known.from_file)
        write_atomic(self.path / CARD, text)

    def _readable_facts(self, kind: ModelKind) -> CheckpointFacts | None:
        try:
            return load_checkpoint(self.file(kind)).facts
        except CheckpointError:
            return None


def add_model(
    models: Path, checkpoint: Path, run: str, norms: str | None, plans: PlanStore
) -> ModelFolder:
    """Store a checkpoint file, supplied by a person, as a run's final model.

    Args:
        models: The site's ``models/``.
        checkpoint: The file.
        run: The coordinator's name for the run.
        norms: The group whose norms to use, for a checkpoint with norms by group.
        plans: The plans that this site received.

    Raises:
        CheckpointError: It is damaged, from stage 1, adapted by a site, or of a plan that this site
            never received with a valid signature.
        OutputError: The site already keeps the maximum number of runs.
    """
    model = load_model(checkpoint, norms)
    facts = model.facts
    require_finetuned(checkpoint, facts)
    if facts.personal is not None:
        raise CheckpointError(
            f"{checkpoint}: found a model adapted by site {facts.personal.site}, expected the "
            "shared model"
        )
    if facts.plan_sha256 not in {stored.sha256 for stored in plans.plans()}:
        raise CheckpointError(
            f"{checkpoint}: of plan {facts.plan_sha256[:PREFIX]}, which never arrived at this "
            "site; run mamfed-client plan list to see those that did"
        )
    folder = ModelFolder(folder_for(models, run, facts.plan))
    folder.keep_shared(model, run, from_file=True)
    return folder


class KeptRun(NamedTuple):
    """The models of one run in a site's home.

    Attributes:
        name: The name of the run's folder.
        run: The coordinator's name for the run.
        folder: The folder of its models.
    """

    name: str
    run: str
    folder: ModelFolder


def folder_for(models: Path, run: str, plan: TrainingPlan) -> Path:
    """Return the folder for a run's models in a site's ``models/``.

    Raises:
        OutputError: It would be new, and the site already keeps the maximum number of runs.
    """
    name = plan.sha256()[:PREFIX]
    if re.fullmatch(SITE_NAME, run):  # it comes from the coordinator and may be anything
        name = f"{run}-{name}"
    if not (models / name).is_dir() and len(list(_folders(models))) >= MOST_RUNS:
        raise OutputError(
            f"{models}: holds models of {MOST_RUNS} runs, which is the maximum; remove the folders "
            "of old runs"
        )
    return models / name


def kept_runs(models: Path) -> list[KeptRun]:
    """Return the runs whose models a site keeps, latest last."""
    paths = sorted(_folders(models), key=lambda path: (_modified_at(path), path.name))
    folders = [ModelFolder(path) for path in paths]
    return [KeptRun(f.path.name, f.scores().run or f.path.name, f) for f in folders]


def find_model(models: Path, kind: ModelKind, run: str = "") -> Path:
    """Return the file of a model in a site's ``models/``.

    Args:
        models: The site's ``models/``.
        kind: Which model.
        run: The coordinator's name for the run, or the folder's name; empty: the latest run.

    Raises:
        CheckpointError: There is none, or the personal model does not match the shared one.
    """
    runs = kept_runs(models)
    if not runs:
        raise CheckpointError(f"{models}: no model yet; one arrives when a run has ended")
    chosen = [kept for kept in runs if not run or run in (kept.name, kept.run)]
    if not chosen:
        raise CheckpointError(
            f"{models}: no run {run!r}, expected one of {', '.join(kept.name for kept in runs)}"
        )
    folder = chosen[-1].folder
    path = folder.file(kind)
    if not path.exists():
        remedy = "; use --model shared" if kind == PERSONAL else ""
        raise CheckpointError(f"{path}: this run left no {kind} model here{remedy}")
    if kind == PERSONAL:
        _check_pair(folder)
    return path


def _check_pair(folder: ModelFolder) -> None:
    """Refuse a personal model that was adapted from another shared model than the one beside it."""
    path, shared_path = folder.file(PERSONAL), folder.file(SHARED)
    facts = load_checkpoint(path).facts
    if facts.personal is None:
        raise CheckpointError(f"{path}: found a shared model, expected one adapted by this site")
    if not shared_path.exists():
        return
    shared = load_checkpoint(shared_path).facts
    if facts.plan_sha256 != shared.plan_sha256:
        raise CheckpointError(
            f"{path}: of plan {facts.plan_sha256[:PREFIX]}, but the shared model beside it is of "
            f"plan {shared.plan_sha256[:PREFIX]}; remove it, or use --model shared"
        )
    if facts.personal.shared_sha256 != shared.weights_sha256:
        raise CheckpointError(
            f"{path}: adapted from other weights than those of {shared_path.name} beside it; "
            "remove it, or use --model shared"
        )


def _without_threshold(facts: CheckpointFacts) -> CheckpointFacts:
    return facts.model_copy(update={"threshold": None})


def _folders(models: Path) -> Iterator[Path]:
    """Yield the folders that hold a run's models."""
    if models.is_dir():
        yield from (path for path in models.iterdir() if any(path.glob("*.safetensors")))


def _modified_at(folder: Path) -> int:
    return max(path.stat().st_mtime_ns for path in folder.glob("*.safetensors"))
