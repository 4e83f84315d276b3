"""The training plan: every setting of a run, in one YAML file.

The server reads one plan and sends it with every task, so sites cannot train by different rules.
Its SHA-256 identifies it: two runs with the same hash asked for the same thing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from mamfed_common.config import Config
from mamfed_common.domain import TRAINED_ON, Purpose, Stage
from mamfed_common.errors import PlanError
from mamfed_common.model.config import LossConfig, NetworkConfig
from mamfed_common.plan.evaluation_plan import EvaluationPlan
from mamfed_common.plan.federation_plan import FederationPlan
from mamfed_common.plan.stage_plan import FinetuningPlan, StagePlan
from mamfed_common.runtime.documents import validated
from mamfed_common.transforms.config import AugmentationConfig, CorruptionConfig


class PersonalPlan(Config):
    """How each site adapts the final shared model to its own patients.

    After the last round a site trains the shared weights on its own stage-2 images and averages the
    result with them. The personal model stays at the site; only its scores leave.

    Attributes:
        steps: Training steps, of ``finetuning.batch_size`` images each; 0 means no personal models.
        learning_rate: AdamW's peak learning rate. It rises over the first tenth of the steps and
            falls along a cosine to nearly 0.
        share: Weight of the adapted weights in the average with the shared ones; 1 uses them alone.
    """

    steps: int = Field(default=100, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    share: float = Field(default=0.5, gt=0, le=1)


class TrainingPlan(Config):
    """Every setting of a run.

    Attributes:
        image_size: Side in pixels of the square grid to which every mammogram is resampled.
        seed: Seed of every random choice except the split of patients
            (``mamfed_common.runtime.seeds``).
        precision: ``float32``; ``bfloat16`` runs the network with autocast; ``auto`` uses bfloat16
            on CUDA devices that support it and float32 elsewhere.
        network: The U-Net.
        pretraining: Stage 1, at sites with benign cases.
        finetuning: Stage 2, at sites with malignant cases and masks, and at others if it allows
            them.
        corruption: Corruption of the inputs in stage 1.
        augmentation: Augmentation of training images in both stages.
        losses: Weights of the terms of stage 2's loss.
        evaluation: Split of the patients and measurement of results.
        federation: Waiting for sites, checking their updates, and combining them.
        personal: Adaptation of the final model at each site.
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
    def _check_rounds(self) -> Self:
        if self.rounds == 0:
            raise ValueError("both stages have 0 rounds: nothing would be trained")
        return self

    def stage(self, stage: Stage) -> StagePlan:
        """Return the settings of a stage."""
        return self.pretraining if stage is Stage.PRETRAINING else self.finetuning

    @property
    def rounds(self) -> int:
        """Rounds of both stages."""
        return self.pretraining.rounds + self.finetuning.rounds

    def beside(self, stage: Stage) -> Purpose | None:
        """Return the purpose of a stage's companion images; None if the loss does not need any."""
        reconstructs = self.losses.benign and self.network.head == "subtraction"
        used = stage is Stage.FINETUNING and (reconstructs or self.losses.empty)
        return self.finetuning.beside if used else None

    def validates(self, stage: Stage, server_round: int) -> bool:
        """Return whether the weights of a round are scored on validation patients."""
        if stage is not Stage.FINETUNING:
            return False
        return not server_round % self.evaluation.every or server_round == self.finetuning.rounds

    def images_used(self, stage: Stage, images: Mapping[str, int]) -> dict[Purpose, int]:
        """Return how many of its training images a site uses in a stage, by purpose.

        The result is empty if the site does not take part.
        """
        own, beside = TRAINED_ON[stage], self.beside(stage)
        if not images.get(own, 0) and not self.finetuning.benign_only_sites:
            beside = None
        used = {kind: images.get(kind, 0) if kind else 0 for kind in (own, beside)}
        return {kind: count for kind, count in used.items() if kind and count}

    def steps(self, stage: Stage, used: Mapping[Purpose, int]) -> int:
        """Return the steps of a round at a site, given the images that it uses by purpose."""
        part, images = self.stage(stage), cases(stage, used)
        return part.steps(images, None if TRAINED_ON[stage] in used else part.beside_size)

    @property
    def makes_personal_models(self) -> bool:
        """Whether sites adapt the final model, which requires rounds of stage 2."""
        return bool(self.personal.steps and self.finetuning.rounds)

    def sha256(self) -> str:
        """Return the SHA-256 of the plan's canonical JSON, as 64 hex digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_yaml(self) -> str:
        """Return the plan, defaults included, as YAML for :func:`parse_plan`."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def changed(self, origin: str = "plan", **values: Any) -> TrainingPlan:
        """Return a validated copy with some top-level values replaced; errors name ``origin``.

        Raises:
            PlanError: A new value is not allowed.
        """
        return validate_plan({**self.model_dump(), **values}, origin)


def cases(stage: Stage, used: Mapping[Purpose, int]) -> int:
    """Return the number of a stage's own images, or of companion images if it has none."""
    return used.get(TRAINED_ON[stage], 0) or sum(used.values())


def with_threshold(plan: TrainingPlan, threshold: float | None) -> TrainingPlan:
    """Return a plan with another threshold; None changes nothing."""
    if threshold is None:
        return plan
    evaluation = plan.evaluation.model_copy(update={"threshold": threshold})
    return plan.model_copy(update={"evaluation": evaluation})


def validate_plan(values: Any, origin: str) -> TrainingPlan:
    """Validate a mapping of plan values; ``origin`` names its source in errors.

    Raises:
        PlanError: A key is unknown or a value is not allowed; the message names all such keys.
    """
    return validated(TrainingPlan, values, origin, PlanError)
