"""A round with differential privacy of each patient, on this site's images and first device."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from mamfed_client.preparation.cohort import StoredSamples
from mamfed_client.site.hardware import Hardware
from mamfed_client.site.policy import PatientPrivacy
from mamfed_common.model.state_dict import State
from mamfed_common.training.batches import Batches
from mamfed_common.training.inference import OnStep, load_network
from mamfed_common.training.optimizer_state import OptimizerState
from mamfed_common.training.private import Patient, PrivateRound, fit_privately, patients_of
from mamfed_common.training.round_checkpoint import RoundCheckpointer, TrainingResult

logger = logging.getLogger(__name__)


class PatientDraw(NamedTuple):
    """The patients of a round, the probability with which a step takes each, and the steps."""

    patients: tuple[Patient, ...]
    rates: tuple[float, ...]
    steps: int


def draw_of(batches: Batches, rule: PatientPrivacy) -> PatientDraw:
    """Return how a round draws its patients; all images of a patient come together.

    A patient is one across all data sets of the site. Patients with images of the stage and those
    with companion images only have probabilities of their own, so that a step holds both.
    """
    images, companions = _patients(batches.samples), _patients(batches.benign)
    patients = patients_of(images, companions)
    wanted = rule.patients_a_step or batches.stage_plan.batch_size
    own = sum(bool(patient.images) for patient in patients)
    own_rate = min(1.0, wanted / own) if own else 0.0
    beside = len(patients) - own
    beside_rate = min(1.0, max(1, wanted // 2) / beside) if beside else 0.0
    rates = tuple(own_rate if patient.images else beside_rate for patient in patients)
    return PatientDraw(patients, rates, batches.epochs * batches.steps_per_epoch)


def train_patients(
    hardware: Hardware,
    state: State,
    batches: Batches,
    draw: PatientDraw,
    rule: PatientPrivacy,
    secret: bytes,
    *,
    on_step: OnStep | None = None,
    checkpointer: RoundCheckpointer | None = None,
    optimizer_state: OptimizerState | None = None,
) -> TrainingResult:
    """Train one round privately.

    Args:
        hardware: The devices; only the first trains.
        state: The initial weights.
        batches: The images of the round.
        draw: Its patients, see :func:`draw_of`.
        rule: The site's rule.
        secret: The secret of the round's draws.
        on_step: Called after each step.
        checkpointer: Saves the round on disk.
        optimizer_state: Restores and saves AdamW's moments.
    """
    devices = hardware.choose()
    if len(devices) > 1:
        logger.info("privacy of patients: the round trains on one device, %s", devices[0])
    network = load_network(state, batches.plan, devices[0])
    network.backbone.activation_checkpointing = hardware.activation_checkpointing
    private = PrivateRound(draw.patients, draw.rates, rule.clip_norm, rule.noise_multiplier, secret)
    return fit_privately(
        network,
        batches,
        private,
        device=devices[0],
        on_step=on_step,
        checkpointer=checkpointer,
        optimizer_state=optimizer_state,
    )


def _patients(samples: Sequence[object]) -> list[str]:
    if not isinstance(samples, StoredSamples):  # an empty tuple: the plan uses no companions
        return []
    return [image.case.row.patient_id for image in samples.images]
