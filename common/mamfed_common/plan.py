"""The training plan: everything that a run is, in one YAML file.

The server reads one plan and sends it with every task, so sites cannot train by different rules.
Its SHA-256 names it: two runs with the same hash asked for the same thing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from mamfed_common.config import SITE_NAME, Config
from mamfed_common.domain import Purpose
from mamfed_common.errors import PlanError
from mamfed_common.model.losses import LossConfig
from mamfed_common.model.unet import NetworkConfig
from mamfed_common.runtime.documents import parse_yaml, validated
from mamfed_common.runtime.file_kinds import FileKind, expecting
from mamfed_common.runtime.files import reason
from mamfed_common.runtime.text import NotTextError, read_text
from mamfed_common.transforms.augmentation import AugmentationConfig
from mamfed_common.transforms.corruption import CorruptionConfig

MAX_ADAM_STEP = 0.1
ROUND_LENGTHS = frozenset({"local_epochs", "local_steps"})
"""A round's length is one of the two."""

GroupName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
SiteName = Annotated[str, Field(pattern=SITE_NAME)]
Weighing = Literal["examples", "sqrt", "equal"]
Wire = Literal["float32", "compact"]
"""How weights travel, see ``mamfed_common.protocol.quantization``."""


class Stage(StrEnum):
    """The two stages of a run, in their order."""

    PRETRAINING = "pretraining"
    FINETUNING = "finetuning"


TRAINED_ON: dict[Stage, Purpose] = {Stage.PRETRAINING: "benign", Stage.FINETUNING: "malignant"}
"""What each stage is about; stage 2 may have images beside, see :meth:`TrainingPlan.beside`."""


class StagePlan(Config):
    """One stage of the federation.

    Attributes:
        rounds: Rounds of federated averaging; 0 leaves the stage out.
        local_epochs: Passes over a site's own images in each round; 1 where both this and
            ``local_steps`` are null.
        local_steps: Steps of a round instead, the same number at every site: a site's images come
            in seeded orders that run on from round to round, and every batch is full.
        batch_size: Images a step; a site's last batch of an epoch may be smaller.
        optimizer_state: ``fresh``: each round begins with a new AdamW; ``kept``: with the moments
            of the site's last round of the stage, which stay on its own disk.
        learning_rate: AdamW's peak. It warms up over the stage's first tenth and falls along a
            cosine to nearly 0 at the stage's end, across rounds.
        quorum: Accepted replies without which a round, and so the run, fails.
        deadline_seconds: The longest that the server waits for a site's answer in a round.
        min_deadline_seconds: The shortest, however quick the site was before: a site is given
            three times what its slowest of the last rounds took, between the two.
    """

    rounds: int = Field(ge=0)
    local_epochs: int | None = Field(default=None, ge=1)
    local_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=2, ge=1)
    optimizer_state: Literal["fresh", "kept"] = "fresh"
    learning_rate: float = Field(gt=0, le=1)
    quorum: int = Field(default=1, ge=1)
    deadline_seconds: float = Field(default=43200, gt=0)
    min_deadline_seconds: float = Field(default=900, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _one_epoch_where_nothing_is_said(cls, values: Any) -> Any:
        given = isinstance(values, dict) and {
            key for key in ROUND_LENGTHS if values.get(key) is not None
        }
        return values if given or not isinstance(values, dict) else {**values, "local_epochs": 1}

    @model_validator(mode="after")
    def _epochs_or_steps(self) -> Self:
        if self.local_epochs is not None and self.local_steps is not None:
            raise ValueError(
                f"local_epochs is {self.local_epochs} and local_steps is {self.local_steps}: a "
                "round has one of the two, leave the other out"
            )
        return self

    @property
    def beside_size(self) -> int:
        """Return how many images stand beside those of a full batch in stage 2."""
        return max(1, self.batch_size // 2)

    def steps(self, images: int, a_step: int | None = None) -> int:
        """Return the steps of a round at a site.

        Args:
            images: How many images it trains on; 0: it takes no part.
            a_step: How many of them a step has; None: ``batch_size``.
        """
        if self.local_steps is not None:
            return self.local_steps if images else 0
        assert self.local_epochs is not None
        return -(-images // (a_step or self.batch_size)) * self.local_epochs

    def lasting(self, units: int, rounds: int = 1) -> Self:
        """Return a copy with so many epochs, or steps where it counts in those, and rounds."""
        key = "local_epochs" if self.local_steps is None else "local_steps"
        return self.model_copy(update={"rounds": rounds, key: units})

    def in_words(self) -> str:
        """Say how long a round is."""
        if self.local_steps is not None:
            return f"{self.local_steps} step{'s' if self.local_steps > 1 else ''}"
        assert self.local_epochs is not None
        return f"{self.local_epochs} epoch{'s' if self.local_epochs > 1 else ''}"


class FinetuningPlan(StagePlan):
    """Stage 2, in which other images stand beside the malignant ones, half as many in each step.

    Attributes:
        beside: Which: ``benign``, those fit for stage 1, or all images ``without_malignancy``,
            proven benign lesions included.
        benign_only_sites: Whether a site that has no malignant training image takes part with the
            images beside alone.
    """

    beside: Literal["benign", "without_malignancy"] = "benign"
    benign_only_sites: bool = False


class EvaluationPlan(Config):
    """How results are measured.

    Attributes:
        validation_fraction: Share of each site's patients that choose the best round.
        test_fraction: Share of each site's patients that no training or choice ever sees.
        threshold: Probability from which a pixel counts as malignant on validation patients; on
            test patients the one that was best on validation (``CheckpointFacts.threshold``).
        every: Weights are scored on validation patients after so many rounds of stage 2, and after
            the last one. Only a round that was scored can be chosen.
        split_seed: Draws which patients are held out; apart from ``seed``, so that repeated
            trainings are measured on the same patients.
        folds: Cross-validation: every patient is tested in one of so many runs. Each holds out its
            own part of the patients in place of ``test_fraction``; of the others
            ``validation_fraction`` are for validation.
        fold: Which of these runs this one is, from 0.
    """

    validation_fraction: float = Field(default=0.15, ge=0, lt=1)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    every: int = Field(default=1, ge=1)
    split_seed: int = Field(default=0, ge=0, lt=2**63)
    folds: int | None = Field(default=None, ge=2, le=100)
    fold: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_of_the_folds(self) -> Self:
        if self.fold >= (self.folds or 1):
            folds = f"{self.folds} folds" if self.folds else "no folds"
            raise ValueError(f"fold is {self.fold}, but there are {folds}; they count from 0")
        return self

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave nothing to train on")
        return self


class FederationPlan(Config):
    """How sites are waited for and trusted, and how unlike ones are kept together.

    Attributes:
        min_sites: No aggregate is ever made of fewer accepted updates: what is averaged over one
            site is that site's model. A simulation, where all data lies on one machine, ignores it.
        weights: What a site weighs in the average: by the ``examples`` that it used, by their
            square root (``sqrt``), or as much as every other (``equal``). An image that stands
            beside in stage 2 counts a quarter.
        max_share: The most that one site has of the average, 0..1, as far as the number of sites
            allows it: of two sites each has half. What is cut goes to the others in proportion.
        join_seconds: How long the first round waits for approved sites that have not come, once
            enough of them are there.
        offline_seconds: How long a round waits for a site that lost its connection.
        max_update_norm_ratio: An update whose distance from the round's starting weights is more
            than this many times the median of the round's updates is refused (three updates or
            more).
        proximal_mu: FedProx (Li et al., 2020): pulls a site's weights towards the round's
            starting weights; 0 is FedAvg.
        local_norms: FedBN (Li et al., 2021): each site goes on with, and is measured with, the
            instance norms that it trained itself; the average has everyone's.
        norm_groups: Sites that share their instance norms with each other only, by the name of
            the group, such as ``{digital: [north], film: [south, west]}``
            (``mamfed_common.norm_groups``). A site of no group has the average's. Not with
            ``local_norms``, where each site is a group of its own.
        server_optimiser: What the server does with a round's mean update: ``none`` takes it as it
            is (FedAvg); ``momentum`` is FedAvgM (Hsu et al., 2019), ``adam`` FedAdam (Reddi et
            al., 2021). Each stage begins with a fresh one.
        server_learning_rate: Its step. With ``momentum`` 1 is FedAvg with a memory; ``adam`` moves
            every weight by about this much a round, so at most 0.1. ``none`` has no use for it.
        server_momentum: How much of the rounds before it remembers.
        wire: How weights travel. ``float32``: bit for bit. ``compact``: in under 2/5 of the bytes,
            float16 to the sites and int8 changes back, with the bounds on what is lost that
            ``mamfed_common.protocol.quantization`` states. The final test is always of the exact
            weights.
    """

    min_sites: int = Field(default=3, ge=1)
    weights: Weighing = "sqrt"
    max_share: float = Field(default=0.5, gt=0, le=1)
    join_seconds: float = Field(default=600, ge=0)
    offline_seconds: float = Field(default=300, ge=0)
    max_update_norm_ratio: float = Field(default=10, gt=1)
    proximal_mu: float = Field(default=0, ge=0)
    local_norms: bool = False
    norm_groups: dict[GroupName, tuple[SiteName, ...]] = Field(default={}, max_length=16)
    server_optimiser: Literal["none", "momentum", "adam"] = "none"
    server_learning_rate: float = Field(default=1, gt=0)
    server_momentum: float = Field(default=0.9, ge=0, lt=1)
    wire: Wire = "float32"

    @model_validator(mode="after")
    def _one_group_a_site(self) -> Self:
        if self.norm_groups and self.local_norms:
            raise ValueError("local_norms and norm_groups exclude each other; leave one out")
        if "average" in self.norm_groups:
            raise ValueError("norm_groups: average means the norms of all sites; choose a name")
        named = [site for sites in self.norm_groups.values() for site in sites]
        if twice := sorted({site for site in named if named.count(site) > 1}):
            raise ValueError(f"norm_groups: {twice[0]} stands in two places, expected in one")
        if empty := sorted(group for group, sites in self.norm_groups.items() if not sites):
            raise ValueError(f"norm_groups: {empty[0]} has no site; name some, or leave it out")
        return self

    @model_validator(mode="after")
    def _adam_takes_small_steps(self) -> Self:
        if self.server_optimiser == "adam" and self.server_learning_rate > MAX_ADAM_STEP:
            raise ValueError(
                f"server_learning_rate is {self.server_learning_rate:g}, by about which adam moves "
                f"every weight a round; at most {MAX_ADAM_STEP:g}, for example 0.01"
            )
        return self


class PersonalPlan(Config):
    """What each site makes of the final shared model for its own patients.

    After the last round a site trains the shared weights on its own stage-2 images and averages the
    result with them. That model stays at the site; only its scores leave.

    Attributes:
        steps: Training steps, of ``finetuning.batch_size`` images each; 0: no personal models.
        learning_rate: AdamW's peak. It warms up over the first tenth of the steps and falls along a
            cosine to nearly 0.
        share: Weight of the adapted weights in the average with the shared ones; 1: they alone.
    """

    steps: int = Field(default=100, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    share: float = Field(default=0.5, gt=0, le=1)


class TrainingPlan(Config):
    """Everything that a run is.

    Attributes:
        image_size: Side of the square grid that every mammogram is brought to, in pixels.
        seed: Origin of every random choice but the split of patients
            (``mamfed_common.runtime.seeds``).
        precision: ``float32``; ``bfloat16`` runs the network by autocast; ``auto`` takes bfloat16
            on a CUDA device that has it and float32 elsewhere.
        network: The U-Net.
        pretraining: Stage 1, over sites that hold benign cases.
        finetuning: Stage 2, over sites that hold malignant cases with masks, and others if it
            says so.
        corruption: What stage 1 does to its inputs.
        augmentation: How training images are moved, in both stages.
        losses: What the parts of stage 2's loss weigh.
        evaluation: How results are measured.
        federation: How sites are waited for and trusted, and how unlike ones are kept together.
        personal: What each site makes of the final model for its own patients.
    """

    image_size: int = Field(default=1536, ge=32, le=8192)
    seed: int = Field(default=0, ge=0, lt=2**63)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    network: NetworkConfig = NetworkConfig()
    pretraining: StagePlan = StagePlan(rounds=10, local_epochs=2, learning_rate=4e-3)
    finetuning: FinetuningPlan = FinetuningPlan(
        rounds=50, local_steps=8, batch_size=4, learning_rate=2e-3, optimizer_state="kept"
    )
    corruption: CorruptionConfig = CorruptionConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    losses: LossConfig = LossConfig()
    evaluation: EvaluationPlan = EvaluationPlan()
    federation: FederationPlan = FederationPlan()
    personal: PersonalPlan = PersonalPlan()

    @model_validator(mode="after")
    def _train_at_all(self) -> Self:
        if self.rounds == 0:
            raise ValueError("both stages have 0 rounds: nothing would be trained")
        return self

    def stage(self, stage: Stage) -> StagePlan:
        """Return the part of the plan that a stage follows."""
        return self.pretraining if stage is Stage.PRETRAINING else self.finetuning

    @property
    def rounds(self) -> int:
        """Rounds of both stages."""
        return self.pretraining.rounds + self.finetuning.rounds

    def beside(self, stage: Stage) -> Purpose | None:
        """Return what stands beside a stage's images; None where no part of the loss uses it."""
        redrawn = self.losses.benign and self.network.head == "subtraction"
        used = stage is Stage.FINETUNING and (redrawn or self.losses.empty)
        return self.finetuning.beside if used else None

    def validates(self, stage: Stage, server_round: int) -> bool:
        """Tell whether the weights of a round are scored on validation patients."""
        if stage is not Stage.FINETUNING:
            return False
        return not server_round % self.evaluation.every or server_round == self.finetuning.rounds

    def images_used(self, stage: Stage, images: Mapping[str, int]) -> dict[Purpose, int]:
        """Return what a site uses in a stage of the training images that it has, by purpose.

        Nothing where it takes no part.
        """
        own, beside = TRAINED_ON[stage], self.beside(stage)
        if not images.get(own, 0) and not self.finetuning.benign_only_sites:
            beside = None
        used = {kind: images.get(kind, 0) if kind else 0 for kind in (own, beside)}
        return {kind: count for kind, count in used.items() if kind and count}

    def steps(self, stage: Stage, used: Mapping[Purpose, int]) -> int:
        """Return the steps of a round at a site that uses so many images of each kind."""
        part, images = self.stage(stage), cases(stage, used)
        return part.steps(images, None if TRAINED_ON[stage] in used else part.beside_size)

    @property
    def makes_personal_models(self) -> bool:
        """Whether sites adapt the final model: it must have learned to mark something first."""
        return bool(self.personal.steps and self.finetuning.rounds)

    def sha256(self) -> str:
        """Return the plan's name: SHA-256 of its canonical JSON, as 64 hex digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_yaml(self) -> str:
        """Write the whole plan, defaults included, as YAML that :func:`parse_plan` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def changed(self, origin: str = "plan", **values: Any) -> TrainingPlan:
        """Return a checked copy with some top-level values replaced; ``origin`` as in errors.

        Raises:
            PlanError: A new value is not allowed.
        """
        return validate_plan({**self.model_dump(), **values}, origin)


def cases(stage: Stage, used: Mapping[Purpose, int]) -> int:
    """Count of the images used those that a stage is about; where there is none, those beside."""
    return used.get(TRAINED_ON[stage], 0) or sum(used.values())


def with_threshold(plan: TrainingPlan, threshold: float | None) -> TrainingPlan:
    """Return a plan that marks pixels from another probability on; None changes nothing."""
    if threshold is None:
        return plan
    evaluation = plan.evaluation.model_copy(update={"threshold": threshold})
    return plan.model_copy(update={"evaluation": evaluation})


def validate_plan(values: Any, origin: str) -> TrainingPlan:
    """Check a mapping of plan values; ``origin`` names its source in the error.

    Raises:
        PlanError: Some key is unknown or some value is not allowed; all such keys are named.
    """
    return validated(TrainingPlan, values, origin, PlanError)


def parse_plan(text: str, origin: str) -> TrainingPlan:
    """Read a plan from YAML (or JSON, which is YAML); ``origin`` names it in errors.

    A stage that is written in part has the default plan's other values.

    Raises:
        PlanError: The text is not YAML, holds a key twice, or is not a plan.
    """
    values = parse_yaml(text, origin, PlanError)
    if isinstance(values, dict):
        partial = [key for key in map(str, Stage) if isinstance(values.get(key), dict)]
        values = {**values, **{key: _filled(key, values[key]) for key in partial}}
    return validate_plan(values, origin)


def _filled(stage: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage with the default plan's other values; a round has one length."""
    default = TrainingPlan.model_fields[stage].default.model_dump()
    dropped = ROUND_LENGTHS if ROUND_LENGTHS & given.keys() else frozenset()
    return {key: value for key, value in default.items() if key not in dropped} | dict(given)


def read_plan(path: Path) -> TrainingPlan:
    """Read a plan file.

    Raises:
        PlanError: The file cannot be read or is not a plan.
    """
    with expecting(FileKind.PLAN, path):
        try:
            text = read_text(path)
        except (OSError, NotTextError) as error:
            raise PlanError(f"{path}: cannot read the plan: {reason(path, error)}") from None
        return parse_plan(text, str(path))
