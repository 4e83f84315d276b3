"""Checkpoints: one safetensors file that stands alone, and the same facts as JSON beside it.

``NAME.safetensors`` holds the weights and, in its header, a JSON text that says what they are: the
whole plan, stage, round, sites, and a SHA-256 over the weights. It is written atomically, so a kill
leaves the old one or the new one. ``NAME.json`` repeats that text for people and scripts; nothing
reads it back. Neither holds a time or a path: equal runs give equal files.

A checkpoint of stage 2 holds a second set of weights, each name behind :data:`PAINTER`: the
painter, which is the network as stage 1 left it. It alone can draw healthy tissue into a hole
(``mamfed_common.training.repaint``). A run without stage 1 has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mamfed_common import __version__
from mamfed_common.config import Config
from mamfed_common.domain import Splits
from mamfed_common.errors import CheckpointError, WeightsError
from mamfed_common.metrics.scores import SiteScore
from mamfed_common.model.state_dict import State, check_state, state_sha256
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.plan.norm_groups import expected_state, groups_in, select_group
from mamfed_common.runtime.file_kinds import FileKind, expecting
from mamfed_common.runtime.files import reason, write_atomic

HEADER_KEY = "mamfed"
FORMAT = 1
PAINTER = "painter."
"""How the names of the painter's arrays begin; no array of a network's own begins so."""


class PersonalFacts(Config):
    """How a site has adapted the shared weights, see ``plan.PersonalPlan``.

    Attributes:
        site: The site, on whose own patients it trained.
        steps: Training steps.
        learning_rate: Their peak.
        share: Weight of the adapted weights in the average with the shared ones.
        shared_sha256: SHA-256 over the shared weights that it started from.
    """

    site: str
    steps: int = Field(ge=1)
    learning_rate: float
    share: float
    shared_sha256: str


class CheckpointFacts(Config):
    """What the weights of a checkpoint are.

    Attributes:
        format: Version of this layout.
        mamfed_version: The mamfed that wrote it.
        plan: The plan that the run followed.
        plan_sha256: Its name.
        weights_sha256: SHA-256 over the weights (``mamfed_common.model.state_dict``).
        painter_sha256: SHA-256 over the painter; empty where there is none.
        stage: The stage that the last round belonged to.
        server_round: That round, counted from 1 within the stage.
        expected: Sites that the round asked.
        accepted: Sites whose update is in the weights.
        refused: Sites whose update is not, each with the reason.
        validation: Each site's validation result, where there is one.
        mean_validation_dice: Mean over sites of their validation Dice.
        pooled_validation_dice: That at 0.5, over all images of all sites: what chooses a round.
        validation_images: Images behind that.
        threshold: Probability from which a pixel is marked, as validation chose it; None: the
            plan's.
        personal: How a site has adapted them; None: they are the federation's.
        norm_group: Group whose norms are in place in the weights; None: the plan has no groups, the
            arrays hold every group's norms (``mamfed_common.plan.norm_groups``), or the weights
            belong to a site without a group.
        splits: How each site's data sets were divided into train, val and test, as digests; sites
            that let them not leave, and checkpoints of older versions, have none.
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
        """Return the plan with the threshold to use, and where that comes from.

        Args:
            threshold: What a user asked for; None: the checkpoint's, or else its plan's.

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
    """Weights and what they are.

    Attributes:
        state: The weights.
        facts: What they are.
        painter: The same network's weights as stage 1 left them; None: there was no stage 1.
    """

    state: State
    facts: CheckpointFacts
    painter: State | None = None

    def for_group(self, group: str | None) -> Checkpoint:
        """Return the network with the norms of a group in place, None: with the average's."""
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
    """Return a checkpoint whose facts name its weights and its painter's."""
    state, facts, painter = checkpoint
    digests = {
        "weights_sha256": state_sha256(state),
        "painter_sha256": "" if painter is None else state_sha256(painter),
    }
    return Checkpoint(state, facts.model_copy(update=digests), painter)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``path`` (``*.safetensors``) and the JSON beside it, replacing older ones."""
    state, facts, painter = with_hashes(checkpoint)
    text = facts.model_dump_json(indent=2)
    beside = {f"{PAINTER}{name}": tensor for name, tensor in (painter or {}).items()}
    # One header key: safetensors does not keep an order among several.
    write_atomic(path, save(state | beside, metadata={HEADER_KEY: text}))
    write_atomic(path.with_suffix(".json"), text + "\n")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: It is missing, not of mamfed, damaged, or not of the network it names.
    """
    with expecting(FileKind.CHECKPOINT, path):
        return _load(path)


def _load(path: Path) -> Checkpoint:
    with _opened(path) as handle:
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
    """Read what a checkpoint says of itself, quickly: its weights are not looked at.

    Raises:
        CheckpointError: It is missing, not of mamfed, or its header is damaged.
    """
    with _opened(path) as handle:
        text = (handle.metadata() or {}).get(HEADER_KEY)
    return _read_facts(path, text)


AVERAGE = "average"
"""What a user calls the norms that are the average over all sites."""


def load_model(path: Path, norms: str | None = None) -> Checkpoint:
    """Read a checkpoint as one network, ready to be used.

    Args:
        path: The checkpoint.
        norms: The group of sites whose norms to take, where it holds those of groups;
            :data:`AVERAGE` takes the average over all sites.

    Raises:
        CheckpointError: As :func:`load_checkpoint` says, or the group is not named or unknown.
    """
    checkpoint = load_checkpoint(path)
    groups = groups_in(checkpoint.state)
    if not groups:
        if norms is not None and norms != checkpoint.facts.norm_group:
            raise CheckpointError(f"{path}: has no norms by group; leave --norms out")
        return checkpoint
    choices = ", ".join([*groups, AVERAGE])
    if norms is None:
        raise CheckpointError(
            f"{path}: holds norms by group; say with --norms whose fit these images: {choices}"
        )
    if norms not in (*groups, AVERAGE):
        raise CheckpointError(f"{path}: --norms {norms}: expected one of {choices}")
    return checkpoint.for_group(None if norms == AVERAGE else norms)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; what goes wrong with it while the block runs is named."""
    try:
        path.open("rb").close()  # safe_open says of every trouble that there is no such file
        with safe_open(path, framework="pt", device="cpu") as handle:
            yield handle
    except OSError as error:
        why = reason(path, error)
        raise CheckpointError(f"{path}: cannot read the checkpoint: {why}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error})") from None


def _check(path: Path, facts: CheckpointFacts, state: State, sha256: str, what: str) -> None:
    if state_sha256(state) != sha256:
        raise CheckpointError(f"{path}: damaged: its {what} do not match their SHA-256")
    try:
        expected = expected_state(facts.plan)
        check_state(state, expected if groups_in(state) else select_group(expected, None))
    except WeightsError as error:
        raise CheckpointError(
            f"{path}: its {what} are not of the network it names: {error}"
        ) from None


def require_finetuned(path: Path, facts: CheckpointFacts) -> None:
    """Refuse a model of stage 1, which draws healthy tissue and has not learned to mark any.

    Raises:
        CheckpointError: It is one.
    """
    if facts.stage is not Stage.FINETUNING:
        raise CheckpointError(
            f"{path}: of {facts.stage}, round {facts.server_round}: it marks nothing yet; "
            f"name a checkpoint of {Stage.FINETUNING}"
        )


def _read_facts(path: Path, text: str | None) -> CheckpointFacts:
    if text is None:
        raise CheckpointError(f"{path}: a safetensors file, but not a mamfed checkpoint")
    try:
        facts = CheckpointFacts.model_validate_json(text)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise CheckpointError(
            f"{path}: written by another mamfed? {key} is not as expected"
        ) from None
    if facts.format != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {facts.format}, expected {FORMAT}")
    return facts
