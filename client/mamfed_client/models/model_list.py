"""The list of models in a site's home, with the facts and scores of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mamfed_client.models.model_card import CARD
from mamfed_client.models.model_store import PERSONAL, PREFIX, SHARED, KeptRun, kept_runs
from mamfed_common.checkpoint import CheckpointFacts, load_checkpoint
from mamfed_common.config import Config
from mamfed_common.errors import CheckpointError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.protocol.tasks import ModelKind
from mamfed_common.runtime.wording import counted


class KeptModel(Config):
    """One model of a run.

    Attributes:
        file: Its file.
        error: Why it cannot be used; empty if it can.
        plan_sha256: The plan of the run.
        server_round: The round of stage 2 from which the shared weights come.
        threshold: Lowest probability at which it marks a pixel; None: the plan's.
        weights_sha256: SHA-256 of its weights.
        steps: Steps of adaptation, for a personal model.
        share: Share of the adapted weights, for a personal model.
        score: Its score on this site's test patients; None if unknown.
    """

    file: Path
    error: str = ""
    plan_sha256: str = ""
    server_round: int | None = None
    threshold: float | None = None
    weights_sha256: str = ""
    steps: int | None = None
    share: float | None = None
    score: SiteScore | None = None


class KeptModels(Config):
    """The models of one run.

    Attributes:
        folder: The name of the run's folder in ``models/``.
        run: The coordinator's name for the run.
        shared: The shared model; None if there is none.
        personal: The personal model; None if there is none.
    """

    folder: str
    run: str
    shared: KeptModel | None
    personal: KeptModel | None

    @property
    def plan_sha256(self) -> str:
        """The plan of the first model that can be read."""
        return next((m.plan_sha256 for m in self._readable()), "")

    @property
    def server_round(self) -> int | None:
        """The round of the first model that can be read."""
        return next((m.server_round for m in self._readable()), None)

    def _readable(self) -> Iterator[KeptModel]:
        yield from (m for m in (self.shared, self.personal) if m and not m.error)


def list_models(models: Path) -> list[KeptModels]:
    """Return the runs whose models a site keeps, latest last; each file is verified."""
    return [_of_run(kept) for kept in kept_runs(models)]


def sentences(runs: list[KeptModels]) -> Iterator[str]:
    """Yield the runs as lines of text, followed by the errors of unusable models."""
    if not runs:
        yield "no model yet; one arrives when a run has ended"
        return
    rows = [("run", "plan", "round", "shared, test Dice", "personal, test Dice")]
    rows += [
        (
            kept.run,
            kept.plan_sha256[:PREFIX] or "unknown",
            str(kept.server_round or "unknown"),
            _in_words(kept.shared),
            _in_words(kept.personal),
        )
        for kept in runs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
    for kept in runs:
        yield from (m.error for m in (kept.shared, kept.personal) if m and m.error)
    for kept in runs:
        cards = {m.file.parent / CARD for m in (kept.shared, kept.personal) if m}
        yield from (f"card: {path}" for path in cards if path.exists())


def _of_run(kept: KeptRun) -> KeptModels:
    return KeptModels(
        folder=kept.name,
        run=kept.run,
        shared=_model(kept, SHARED),
        personal=_model(kept, PERSONAL),
    )


def _model(kept: KeptRun, kind: ModelKind) -> KeptModel | None:
    path = kept.folder.file(kind)
    if not path.exists():
        return None
    try:
        facts = load_checkpoint(path).facts
    except CheckpointError as error:
        return KeptModel(file=path, error=str(error))
    return _described(path, facts, getattr(kept.folder.scores(), kind))


def _described(path: Path, facts: CheckpointFacts, score: SiteScore | None) -> KeptModel:
    return KeptModel(
        file=path,
        plan_sha256=facts.plan_sha256,
        server_round=facts.server_round,
        threshold=facts.threshold,
        weights_sha256=facts.weights_sha256,
        steps=facts.personal.steps if facts.personal else None,
        share=facts.personal.share if facts.personal else None,
        score=score,
    )


def _in_words(model: KeptModel | None) -> str:
    if model is None:
        return "none"
    if model.error:
        return "damaged"
    if model.score is None or model.score.dice is None:
        return "not scored"
    return f"{model.score.dice:.3f} ({counted(model.score.images or 0, 'image')})"
