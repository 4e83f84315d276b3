"""Checkpoints: a self-contained safetensors file, with its facts repeated in a JSON file.

``NAME.safetensors`` holds the weights and, in its header, a JSON text that describes them: the full
plan, stage, round, sites, and a SHA-256 over the weights. It is written atomically, so a crash
leaves either the old file or the new one. ``NAME.json`` repeats the text for people and scripts;
mamfed never reads it. Neither contains a time or a path, so equal runs give equal files.

A checkpoint of stage 2 holds a second set of weights, with the prefix :data:`PAINTER`: the painter,
which is the network at the end of stage 1. Only the painter can fill a hole with healthy tissue
(``mamfed_common.training.repaint``). A run without stage 1 has no painter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from mamfed_common import __version__
from mamfed_common.config import Config
from mamfed_common.domain import Splits
from mamfed_common.errors import CheckpointError, WeightsError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.state_dict import State, check_state, state_sha256
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.plan.norm_groups import expected_state, groups_in, select_group
from mamfed_common.runtime.bounded import CHECKPOINT_BYTES, open_regular
from mamfed_common.runtime.file_kinds import FileKind, expecting
from mamfed_common.runtime.files import reason, write_atomic
from mamfed_common.runtime.seal import sealed, unsealed

HEADER_KEY = "mamfed"
FORMAT = 1
PAINTER = "painter."
"""Prefix of the painter's arrays; no array name of a network starts with it."""


class PersonalFacts(Config):
    """How a site adapted the shared weights to a personal model, see ``plan.PersonalPlan``.

    Attributes:
        site: The site, which trained on its own patients.
        steps: Training steps.
        learning_rate: Peak learning rate.
        share: Weight of the adapted weights in the average with the shared ones.
        shared_sha256: SHA-256 over the shared weights that training started from.
    """

    site: str
    steps: int = Field(ge=1)
    learning_rate: float
    share: float
    shared_sha256: str


class CheckpointFacts(Config):
    """The description of a checkpoint's weights.

    Attributes:
        format: Version of this layout.
        mamfed_version: Version of mamfed that wrote it.
        plan: The run's plan.
        plan_sha256: SHA-256 of the plan.
        weights_sha256: SHA-256 over the weights (``mamfed_common.model.state_dict``).
        painter_sha256: SHA-256 over the painter; empty if there is none.
        stage: Stage of the last round.
        server_round: The last round within the stage, from 1.
        expected: Sites that the round asked.
        accepted: Sites whose update is in the weights.
        refused: Sites whose update is not in the weights, with the reason.
        validation: Each site's validation result, if any.
        mean_validation_dice: Mean over sites of their validation Dice.
        pooled_validation_dice: Mean validation Dice at 0.5 over all images of all sites, by which
            the best round is chosen.
        validation_images: Number of images behind that mean.
        threshold: Minimum probability of a marked pixel, as chosen on validation; None means the
            plan's.
        personal: How a site adapted the weights; None for the shared model.
        norm_group: Group whose norms are in place in the weights; None: the plan has no groups, the
            arrays hold every group's norms (``mamfed_common.plan.norm_groups``), or the weights
            belong to a site without a group.
        splits: Digests of how each site's data sets were split into train, val and test. Missing
            for sites that do not let them leave, and in checkpoints of older versions.
    """

    format: int = FORMAT
    mamfed_version: str = __version__
    plan: TrainingPlan
    plan_sha256: str
    weights_sha256: str = ""
    painter_sha256: str = ""
    stage: Stage
    server_round: int = Field(ge=1)
    expected: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    refused: dict[str, str] = Field(default_factory=dict)
    validation: dict[str, SiteScore] = Field(default_factory=dict)
    mean_validation_dice: float | None = None
    pooled_validation_dice: float | None = None
    validation_images: int | None = None
    threshold: float | None = Field(default=None, gt=0, lt=1)
    personal: PersonalFacts | None = None
    norm_group: str | None = None
    splits: dict[str, Splits] = Field(default_factory=dict)

    def plan_at(self, threshold: float | None) -> tuple[TrainingPlan, str]:
        """Return the plan with the threshold to use, and the source of the threshold.

        Args:
            threshold: The user's choice; None means the checkpoint's, or else its plan's.

        Raises:
            PlanError: It is not between 0 and 1.
        """
        if threshold is None and self.threshold is None:
            return self.plan, "plan"
        chosen = self.threshold if threshold is None else threshold
        evaluation = {**self.plan.evaluation.model_dump(), "threshold": chosen}
        changed = self.plan.changed("--threshold", evaluation=evaluation)
        return changed, "checkpoint" if threshold is None else "--threshold"


class Checkpoint(NamedTuple):
    """Weights and their description.

    Attributes:
        state: The weights.
        facts: Their description.
        painter: Weights of the same network at the end of stage 1; None without a stage 1.
    """

    state: State
    facts: CheckpointFacts
    painter: State | None = None

    def for_group(self, group: str | None) -> Checkpoint:
        """Return the checkpoint with a group's norms in place; None takes the average's."""
        state, facts, painter = self
        if not groups_in(state):
            return self
        return with_hashes(
            Checkpoint(
                select_group(state, group),
                facts.model_copy(update={"norm_group": group}),
                None if painter is None else select_group(painter, group),
            )
        )


def with_hashes(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose facts hold the hashes of its weights and its painter."""
    state, facts, painter = checkpoint
    digests = {
        "weights_sha256": state_sha256(state),
        "painter_sha256": "" if painter is None else state_sha256(painter),
    }
    return Checkpoint(state, facts.model_copy(update=digests), painter)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``path`` (``*.safetensors``) and its JSON file, replacing older ones."""
    from safetensors.torch import save  # which imports torch

    state, facts, painter = with_hashes(checkpoint)
    text = facts.model_dump_json(indent=2)
    painter_arrays = {f"{PAINTER}{name}": tensor for name, tensor in (painter or {}).items()}
    # A single header key, because safetensors does not preserve the order of several.
    write_atomic(path, save(state | painter_arrays, metadata={HEADER_KEY: sealed(text)}))
    write_atomic(path.with_suffix(".json"), text + "\n")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: It is missing, damaged, not from mamfed, or does not fit its own plan.
    """
    with expecting(FileKind.CHECKPOINT, path):
        return _load(path)


def _load(path: Path) -> Checkpoint:
    with _opened(path, "pt") as handle:
        text = (handle.metadata() or {}).get(HEADER_KEY)
        arrays = {name: handle.get_tensor(name) for name in handle.keys()}
    facts = _read_facts(path, text)
    state = {name: tensor for name, tensor in arrays.items() if not name.startswith(PAINTER)}
    painter = {
        name.removeprefix(PAINTER): tensor
        for name, tensor in arrays.items()
        if name.startswith(PAINTER)
    }
    _check(path, facts, state, facts.weights_sha256, "weights")
    if painter or facts.painter_sha256:
        _check(path, facts, painter, facts.painter_sha256, "painter's weights")
    return Checkpoint(state, facts, painter or None)


def read_facts(path: Path) -> CheckpointFacts:
    """Read a checkpoint's facts quickly, without its weights.

    Raises:
        CheckpointError: It is missing, not from mamfed, or its header is damaged.
    """
    with _opened(path, "np") as handle:
        text = (handle.metadata() or {}).get(HEADER_KEY)
    return _read_facts(path, text)


AVERAGE = "average"
"""The user's name for the norms averaged over all sites."""


def load_model(path: Path, norms: str | None = None) -> Checkpoint:
    """Read a checkpoint as a single network, ready for use.

    Args:
        path: The checkpoint.
        norms: Group whose norms to use, if the checkpoint has norms by group; :data:`AVERAGE` uses
            the average over all sites.

    Raises:
        CheckpointError: As in :func:`load_checkpoint`, or the group is missing or unknown.
    """
    checkpoint = load_checkpoint(path)
    groups = groups_in(checkpoint.state)
    if not groups:
        if norms is not None and norms != checkpoint.facts.norm_group:
            raise CheckpointError(f"{path}: has no norms by group; omit --norms")
        return checkpoint
    choices = ", ".join([*groups, AVERAGE])
    if norms is None:
        raise CheckpointError(
            f"{path}: has norms by group; choose those for these images with --norms: {choices}"
        )
    if norms not in (*groups, AVERAGE):
        raise CheckpointError(f"{path}: --norms {norms}: expected one of {choices}")
    return checkpoint.for_group(None if norms == AVERAGE else norms)


@contextmanager
def _opened(path: Path, framework: Literal["pt", "np"]) -> Iterator[Any]:
    """Open a safetensors file, with ``np`` without torch; raise CheckpointError if unreadable."""
    try:
        open_regular(path, CHECKPOINT_BYTES).close()  # safe_open calls every error a missing file
        with safe_open(path, framework=framework, device="cpu") as handle:
            yield handle
    except OSError as error:
        why = reason(path, error)
        raise CheckpointError(f"{path}: cannot read the checkpoint: {why}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error})") from None


def _check(path: Path, facts: CheckpointFacts, state: State, sha256: str, what: str) -> None:
    if state_sha256(state) != sha256:
        raise CheckpointError(f"{path}: damaged: the {what} do not match their SHA-256")
    try:
        expected = expected_state(facts.plan)
        check_state(state, expected if groups_in(state) else select_group(expected, None))
    except WeightsError as error:
        raise CheckpointError(f"{path}: the {what} do not fit its own plan: {error}") from None


def require_finetuned(path: Path, facts: CheckpointFacts) -> None:
    """Refuse a checkpoint of stage 1, whose network cannot mark anything yet.

    Raises:
        CheckpointError: The checkpoint is of stage 1.
    """
    if facts.stage is not Stage.FINETUNING:
        raise CheckpointError(
            f"{path}: a checkpoint of {facts.stage}, round {facts.server_round}, which marks "
            f"nothing yet; choose a checkpoint of {Stage.FINETUNING}"
        )


def _whole(path: Path, text: str) -> str:
    try:
        return unsealed(text)
    except ValueError:
        raise CheckpointError(
            f"{path}: damaged: its description does not match its SHA-256"
        ) from None


def _read_facts(path: Path, text: str | None) -> CheckpointFacts:
    if text is None:
        raise CheckpointError(f"{path}: a safetensors file, but not a mamfed checkpoint")
    try:
        facts = CheckpointFacts.model_validate_json(_whole(path, text))
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise CheckpointError(
            f"{path}: {key} is not as expected; was it written by another version of mamfed?"
        ) from None
    if facts.format != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {facts.format}, expected {FORMAT}")
    return facts
