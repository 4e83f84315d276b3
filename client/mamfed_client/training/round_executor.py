"""What computes a site's rounds: this process, or jobs on other machines."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mamfed_client.preparation.cohort import StoredSamples
from mamfed_client.site.hardware import Hardware
from mamfed_client.site.policy import PatientPrivacy
from mamfed_client.training.devices import train_on
from mamfed_client.training.private import PatientDraw, train_patients
from mamfed_common.metrics.scores import ImageScore
from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.training.batches import Batches, RoundContext
from mamfed_common.training.device import choose_device
from mamfed_common.training.inference import OnStep, evaluate
from mamfed_common.training.optimizer_state import OptimizerStateStore
from mamfed_common.training.round_checkpoint import RoundCheckpointer, TrainingResult


class RoundExecutor(Protocol):
    """Computes with a site's images; the gate, the audit log and the keys are not its business."""

    def allow(self, seconds: float | None) -> None:
        """Say within which time the next result is of use; None: whenever it comes."""

    def train(
        self,
        stage: Stage,
        state: State,
        samples: StoredSamples,
        plan: TrainingPlan,
        round_context: RoundContext,
        *,
        benign: StoredSamples,
        on_step: OnStep | None = None,
        checkpointer: RoundCheckpointer | None = None,
        optimizer_state: OptimizerStateStore | None = None,
    ) -> TrainingResult:
        """Train one round, see :func:`mamfed_common.training.stages.train`.

        Raises:
            JobError: It was a job, and brought no result.
        """

    def train_patients(
        self,
        state: State,
        batches: Batches,
        draw: PatientDraw,
        rule: PatientPrivacy,
        secret: bytes,
        *,
        on_step: OnStep | None = None,
        checkpointer: RoundCheckpointer | None = None,
        optimizer_state: OptimizerStateStore | None = None,
    ) -> TrainingResult:
        """Train one round privately, see :func:`mamfed_client.training.private.train_patients`."""

    def evaluate(
        self,
        state: State,
        samples: StoredSamples,
        plan: TrainingPlan,
        *,
        painter: State | None = None,
    ) -> list[ImageScore]:
        """Score images, see :func:`mamfed_common.training.inference.evaluate`."""


class LocalExecutor(NamedTuple):
    """Computes in this process, and in one more for each further device."""

    hardware: Hardware

    def allow(self, seconds: float | None) -> None:
        """Do nothing: what runs here ends with this process."""

    def train(
        self,
        stage: Stage,
        state: State,
        samples: StoredSamples,
        plan: TrainingPlan,
        round_context: RoundContext,
        *,
        benign: StoredSamples,
        on_step: OnStep | None = None,
        checkpointer: RoundCheckpointer | None = None,
        optimizer_state: OptimizerStateStore | None = None,
    ) -> TrainingResult:
        """Train one round on this machine's devices."""
        return train_on(
            self.hardware,
            stage,
            state,
            samples,
            plan,
            round_context,
            benign=benign,
            on_step=on_step,
            checkpointer=checkpointer,
            optimizer_state=optimizer_state,
        )

    def train_patients(
        self,
        state: State,
        batches: Batches,
        draw: PatientDraw,
        rule: PatientPrivacy,
        secret: bytes,
        *,
        on_step: OnStep | None = None,
        checkpointer: RoundCheckpointer | None = None,
        optimizer_state: OptimizerStateStore | None = None,
    ) -> TrainingResult:
        """Train one round privately on this machine's first device."""
        return train_patients(
            self.hardware,
            state,
            batches,
            draw,
            rule,
            secret,
            on_step=on_step,
            checkpointer=checkpointer,
            optimizer_state=optimizer_state,
        )

    def evaluate(
        self,
        state: State,
        samples: StoredSamples,
        plan: TrainingPlan,
        *,
        painter: State | None = None,
    ) -> list[ImageScore]:
        """Score images on this machine's first device."""
        device = choose_device(self.hardware.device)
        return evaluate(state, samples, plan, device=device, painter=painter)
