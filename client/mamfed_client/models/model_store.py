"""The models that a site keeps of a run: the shared one, and its own made of it.

In ``models/RUN-PLAN/`` of the site's home, RUN being what the coordinator calls the run and PLAN
the first digits of the plan's SHA-256; in a simulation in ``models/SITE/`` of the run folder:

========================  ====================================================================
``shared.safetensors``    the final shared weights, as this site was tested with them
``personal.safetensors``  what this site made of them for its own patients
``scores.json``           what both scored on this site's test patients; it stays here
``card.md``               all of this in words, for people
========================  ====================================================================

Both are ordinary checkpoints (``mamfed_common.checkpoint``), the facts as JSON beside each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from mamfed_client.disclosure.plan_store import PlanStore
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
from mamfed_common.config import SITE_NAME, Config
from mamfed_common.errors import CheckpointError, OutputError
from mamfed_common.metrics.scores import SiteScore
from mamfed_common.plan import TrainingPlan
from mamfed_common.protocol.tasks import ModelKind
from mamfed_common.runtime.files import private_directory, write_atomic

SHARED: ModelKind = "shared"
PERSONAL: ModelKind = "personal"
SCORES = "scores.json"
PREFIX = 12
"""Digits of a plan's SHA-256 in a folder's name."""
MOST_RUNS = 50
"""Runs of which a site keeps models: a coordinator must not fill its disk by new names of runs."""


class KnownScores(Config):
    """What the models of a run scored on this site's test patients.

    Attributes:
        run: What the coordinator calls the run; empty in a simulation.
        from_file: Whether a person of this site has added the shared model as a file.
        shared: The shared model's score; None: not known.
        personal: The personal model's.
    """

    run: str = ""
    from_file: bool = False
    shared: SiteScore | None = None
    personal: SiteScore | None = None


class ModelFolder:
    """The models of one run at one site."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is made until something is kept."""
        self.path = path

    def file(self, kind: ModelKind) -> Path:
        """Return where a model lies, or would."""
        return self.path / f"{kind}.safetensors"

    def keep_shared(self, shared: Checkpoint, run: str = "", *, from_file: bool = False) -> None:
        """Keep the shared model. What belongs to another one goes first, so they never mix."""
        whole, known = with_hashes(shared).facts, self._facts_if_whole(SHARED)
        if known == whole:
            return
        private_directory(self.path)
        if known is None or _without_threshold(known) != _without_threshold(whole):
            own = self.file(PERSONAL)
            for path in (own, own.with_suffix(".json"), self._scores):
                path.unlink(missing_ok=True)
            self._write_scores(KnownScores(run=run, from_file=from_file))
        save_checkpoint(self.file(SHARED), shared)
        self._write_card(whole)

    def keep_personal(self, checkpoint: Checkpoint) -> None:
        """Keep what this site has made of the shared weights."""
        private_directory(self.path)
        save_checkpoint(self.file(PERSONAL), checkpoint)

    def personal_like(self, facts: CheckpointFacts) -> Checkpoint | None:
        """Return the personal model where one was made so; threshold and weights may be any."""
        try:
            found = load_checkpoint(self.file(PERSONAL))
        except CheckpointError:
            return None
        asked = facts.model_copy(update={"weights_sha256": found.facts.weights_sha256})
        return found if _without_threshold(asked) == _without_threshold(found.facts) else None

    def weights_sha256(self) -> str:
        """Return the name of the shared model's weights; empty where it cannot be read."""
        facts = self._facts_if_whole(SHARED)
        return facts.weights_sha256 if facts else ""

    def scores(self) -> KnownScores:
        """Return what is known of the models' scores; nothing where the file is damaged."""
        try:
            return KnownScores.model_validate_json(self._scores.read_bytes())
        except (OSError, ValidationError):
            return KnownScores()

    def note_score(self, kind: ModelKind, score: SiteScore, run: str = "") -> None:
        """Keep what a model scored."""
        private_directory(self.path)
        known = self.scores()
        self._write_scores(known.model_copy(update={"run": run or known.run, kind: score}))
        facts = self._facts_if_whole(SHARED)
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

    def _facts_if_whole(self, kind: ModelKind) -> CheckpointFacts | None:
        try:
            return load_checkpoint(self.file(kind)).facts
        except CheckpointError:
            return None


def add_model(
    models: Path, checkpoint: Path, run: str, norms: str | None, plans: PlanStore
) -> ModelFolder:
    """Keep a checkpoint that a person brought as a run's final model.

    Args:
        models: The site's ``models/``.
        checkpoint: The file.
        run: What the coordinator calls the run.
        norms: Whose norms to take, of a checkpoint with norms by group.
        plans: The plans that came to this site.

    Raises:
        CheckpointError: It is damaged, of stage 1, adapted by a site, or of a plan that never
            came here with a good signature.
        OutputError: There are as many runs as a site keeps.
    """
    found = load_model(checkpoint, norms)
    require_finetuned(checkpoint, found.facts)
    if found.facts.personal is not None:
        raise CheckpointError(
            f"{checkpoint}: adapted by site {found.facts.personal.site}, expected the shared model"
        )
    if found.facts.plan_sha256 not in {kept.sha256 for kept in plans.plans()}:
        raise CheckpointError(
            f"{checkpoint}: of plan {found.facts.plan_sha256[:PREFIX]}, which never came to this "
            "site; mamfed-client plan list names those that did"
        )
    folder = ModelFolder(folder_for(models, run, found.facts.plan))
    folder.keep_shared(found, run, from_file=True)
    return folder


class KeptRun(NamedTuple):
    """The models of one run in a site's home.

    Attributes:
        name: The name of the run's folder.
        run: What the coordinator calls the run.
        folder: Where its models lie.
    """

    name: str
    run: str
    folder: ModelFolder


def folder_for(models: Path, run: str, plan: TrainingPlan) -> Path:
    """Return the folder for a run's models in a site's ``models/``.

    Raises:
        OutputError: It would be a new one, and there are as many as a site keeps.
    """
    name = plan.sha256()[:PREFIX]
    if re.fullmatch(SITE_NAME, run):  # it came from the coordinator, and may be anything
        name = f"{run}-{name}"
    if not (models / name).is_dir() and len(list(_folders(models))) >= MOST_RUNS:
        raise OutputError(
            f"{models}: holds the models of {MOST_RUNS} runs, as many as are kept; remove folders "
            "of old runs to make room"
        )
    return models / name


def kept_runs(models: Path) -> list[KeptRun]:
    """Return the runs that a site has models of, the latest last."""
    found = sorted(_folders(models), key=lambda path: (_when(path), path.name))
    folders = [ModelFolder(path) for path in found]
    return [KeptRun(f.path.name, f.scores().run or f.path.name, f) for f in folders]


def find_model(models: Path, kind: ModelKind, run: str = "") -> Path:
    """Return the file of a model in a site's ``models/``.

    Args:
        models: The site's ``models/``.
        kind: Which model.
        run: What the coordinator calls the run, or the folder's name; empty: the latest run.

    Raises:
        CheckpointError: There is none, or the personal one is not of the shared one beside it.
    """
    runs = kept_runs(models)
    if not runs:
        raise CheckpointError(f"{models}: no model yet; one comes when a run has ended")
    chosen = [kept for kept in runs if not run or run in (kept.name, kept.run)]
    if not chosen:
        raise CheckpointError(
            f"{models}: no run {run!r}, expected one of {', '.join(kept.name for kept in runs)}"
        )
    folder = chosen[-1].folder
    path = folder.file(kind)
    if not path.exists():
        other = "; --model shared takes the shared one" if kind == PERSONAL else ""
        raise CheckpointError(f"{path}: this run left no {kind} model here{other}")
    if kind == PERSONAL:
        _check_pair(folder)
    return path


def _check_pair(folder: ModelFolder) -> None:
    """Refuse a personal model that was made of another shared model than the one beside it."""
    path, shared_path = folder.file(PERSONAL), folder.file(SHARED)
    facts = load_checkpoint(path).facts
    if facts.personal is None:
        raise CheckpointError(f"{path}: a shared model, expected one that this site has adapted")
    if not shared_path.exists():
        return
    shared = load_checkpoint(shared_path).facts
    if facts.plan_sha256 != shared.plan_sha256:
        raise CheckpointError(
            f"{path}: of plan {facts.plan_sha256[:PREFIX]}, but the shared model beside it is of "
            f"plan {shared.plan_sha256[:PREFIX]}; remove it, or take --model shared"
        )
    if facts.personal.shared_sha256 != shared.weights_sha256:
        raise CheckpointError(
            f"{path}: made of other weights than those of {shared_path.name} beside it; remove it, "
            "or take --model shared"
        )


def _without_threshold(facts: CheckpointFacts) -> CheckpointFacts:
    return facts.model_copy(update={"threshold": None})


def _folders(models: Path) -> Iterator[Path]:
    """Yield the folders that hold a run's models."""
    if models.is_dir():
        yield from (path for path in models.iterdir() if any(path.glob("*.safetensors")))


def _when(folder: Path) -> int:
    return max(path.stat().st_mtime_ns for path in folder.glob("*.safetensors"))
