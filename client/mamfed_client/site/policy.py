"""A site's policy: which plans it follows and what may leave. Anything not allowed is denied.

This module imports neither torch nor Flower, so that reading a site's settings is fast.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from mamfed_client.site.hours import Hours, is_open
from mamfed_common.config import HEX_DIGITS, Config
from mamfed_common.errors import SetupError
from mamfed_common.security.keys import parse_openssh

if TYPE_CHECKING:  # reading settings must not load torch
    from mamfed_common.plan import TrainingPlan

COUNTS = "counts"
"""All of a ``SiteDescription`` except its splits: counts of the site's data for a plan."""
SPLIT = "split"
"""Digests of how its data sets are divided (``SiteDescription.splits``)."""
NUM_EXAMPLES = "num_examples"
NEEDED: tuple[str, ...] = (COUNTS, NUM_EXAMPLES)
"""Values without which the server can neither plan a round nor weight an update."""

MetricName = Literal[
    "counts",
    "num_examples",
    "loss",
    "images",
    "dice",
    "lesions",
    "lesions_found",
    "images_without_malignancy",
    "false_positive_pixels",
    "iou",
    "auroc",
    "sensitivity_at_1",
    "dice_at",
    "lesions_redrawn",
    "redrawn_as_tissue",
    "redrawn_minus_ring",
    "split",
]
"""All values that can leave besides arrays, named as in ``TrainReport`` and ``SiteScore``."""

PlanPrefix = Annotated[str, StringConstraints(pattern=HEX_DIGITS)]
"""A plan's SHA-256, or its first 12 hex digits or more."""


def _check_key(text: str) -> str:
    try:
        parse_openssh(text, Ed25519PublicKey, "coordinator key")
    except SetupError as error:  # pydantic names the key of a ValueError only
        raise ValueError(str(error)) from None
    return text


CoordinatorKey = Annotated[str, AfterValidator(_check_key)]


class PlanPolicy(Config):
    """Which plans this site follows.

    Attributes:
        approval: ``manual``: each plan waits for ``mamfed-client plan approve``;
            ``within-bounds``: a signed plan within the bounds needs no approval.
        allowed: Plans approved in advance, by SHA-256 or its first 12 hex digits or more.
    """

    approval: Literal["manual", "within-bounds"] = "manual"
    allowed: tuple[PlanPrefix, ...] = ()


class Bounds(Config):
    """Limits that apply to every plan, approved or not.

    Attributes:
        max_image_size: Side of the square grid, in pixels.
        max_rounds: Rounds of both stages together.
        max_local_epochs: Epochs per round on this site's images.
        max_local_steps: Steps per round, for plans that set steps.
        max_learning_rate: AdamW's peak learning rate.
        max_batch_size: Images per step.
        min_min_sites: Lowest ``federation.min_sites`` that a plan may set: the server averages
            the updates of no fewer sites than that.
        max_parameters: Parameters of the network.
        max_memory_gib: Estimated memory of a training step, see ``plan_size.py``.
        min_held_out_part: Lowest fraction of the patients that a plan may use for validation
            (unless it uses none) or for testing: a part of few patients would show each of them.
        max_held_out: Highest fraction of validation and testing together, for the same reason.
        max_rounds_a_year: Rounds that this site trains in 365 days, over all plans.
        max_scores_a_year: Scores that it sends in 365 days.
        max_splits_a_year: Different splits of its patients that are scored in 365 days.
        hours: Hours when this site answers, local time, e.g. ``19:00-07:00``; None: always. A round
            that began in time is finished.
    """

    max_image_size: int = Field(default=2048, ge=32)
    max_rounds: int = Field(default=100, ge=1)
    max_local_epochs: int = Field(default=10, ge=1)
    max_local_steps: int = Field(default=1000, ge=1)
    max_learning_rate: float = Field(default=0.01, gt=0)
    max_batch_size: int = Field(default=16, ge=1)
    min_min_sites: int = Field(default=3, ge=1)
    max_parameters: int = Field(default=50_000_000, ge=1)
    max_memory_gib: float = Field(default=128, gt=0)
    min_held_out_part: float = Field(default=0.05, ge=0, lt=1)
    max_held_out: float = Field(default=0.6, gt=0, le=1)
    max_rounds_a_year: int = Field(default=1000, ge=1)
    max_scores_a_year: int = Field(default=1000, ge=1)
    max_splits_a_year: int = Field(default=20, ge=1)
    hours: Hours | None = None

    def open_at(self, now: datetime) -> bool:
        """Return whether this site answers at a local time; the end of ``hours`` is excluded."""
        return is_open(self.hours, now)


class Release(Config):
    """What may leave; with empty lists, nothing.

    Attributes:
        arrays: Patterns of array names, e.g. ``*`` or ``backbone.*``.
        metrics: Names of values.
    """

    arrays: tuple[str, ...] = ()
    metrics: tuple[MetricName, ...] = ()

    def withheld(self, arrays: Iterable[str]) -> list[str]:
        """Return the arrays that no pattern allows to leave."""
        return [name for name in arrays if not any(fnmatchcase(name, p) for p in self.arrays)]


class PatientPrivacy(Config):
    """Differential privacy of each training patient (DP-SGD), all images of a patient one unit.

    Attributes:
        noise_multiplier: Standard deviation of the noise on the sum of the patients' gradients, as
            a multiple of ``clip_norm``.
        max_epsilon: Epsilon at which this site stops training, over all rounds of all plans.
        delta: Delta for which epsilon is stated; below one divided by the number of patients.
        clip_norm: Largest L2 norm of a patient's gradient.
        patients_a_step: Expected number of patients in a step; None: the plan's ``batch_size``.
    """

    noise_multiplier: float = Field(ge=0.3, le=1000)
    max_epsilon: float = Field(gt=0, le=1000)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    patients_a_step: int | None = Field(default=None, ge=1)


class Privacy(Config):
    """Clipping and noise applied to an update before it leaves, and privacy of each patient.

    ``clip_norm`` and ``noise_multiplier`` alone guarantee nothing about a patient.

    Attributes:
        clip_norm: Largest L2 norm, over all floating-point arrays, of the difference between an
            update and the round's starting weights; None: no limit.
        noise_multiplier: Standard deviation of the Gaussian noise added to each value, as a
            multiple of ``clip_norm``.
        patients: Differential privacy of each training patient; None: none.
    """

    clip_norm: float | None = Field(default=None, gt=0)
    noise_multiplier: float = Field(default=0, ge=0)
    patients: PatientPrivacy | None = None

    @model_validator(mode="after")
    def _noise_needs_a_clip(self) -> Self:
        if self.noise_multiplier and self.clip_norm is None:
            raise ValueError("noise_multiplier needs a clip_norm, of which it is a multiple")
        return self


class Policy(Config):
    """What a site allows.

    Attributes:
        plans: Which plans this site follows.
        coordinator_keys: OpenSSH Ed25519 keys that may sign plans, besides the welcome's.
        bounds: Limits that apply to every plan.
        release: What may leave.
        min_training_cases: Fewest images with which this site trains in a stage.
        min_patients_a_round: Fewest patients whose images a round trains on, or half of the site's
            patients where this is less: from the update of a round on one image, that image can be
            drawn (decision 0056).
        min_cases_to_report: Fewest images for which a mean or a count of lesions is released.
        min_patients_to_report: Fewest patients for which a result or a count of a part is released,
            and fewest by which the patients behind two results may differ. A smaller site trains,
            and its scores stay here.
        privacy: Clipping and noise applied to an update before it leaves.
        personal: Whether this site adapts a run's final model to its own patients. That model stays
            here; its scores leave only if ``release`` allows it.
        pages_name_patients: Whether the pages of ``mamfed-client predict`` show patient numbers.
            The pages stay at the site, as the images do.
    """

    plans: PlanPolicy = PlanPolicy()
    coordinator_keys: tuple[CoordinatorKey, ...] = ()
    bounds: Bounds = Bounds()
    release: Release = Release()
    min_training_cases: int = Field(default=1, ge=1)
    min_patients_a_round: int = Field(default=10, ge=1)
    min_cases_to_report: int = Field(default=1, ge=1)
    min_patients_to_report: int = Field(default=10, ge=1)
    privacy: Privacy = Privacy()
    personal: bool = True
    pages_name_patients: bool = False

    def sha256(self) -> str:
        """Return the policy's identity: the SHA-256 of its canonical JSON, as 64 hex digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def missing_for_training(policy: Policy, plan: TrainingPlan) -> list[str]:
    """Return what this site's policy withholds that a plan's training needs.

    Returns:
        One clause for each missing permission; empty if the site can train.
    """
    withheld = policy.release.withheld(_array_names(plan))
    missing = [
        f"policy.release.metrics lacks {name!r}, without which the server cannot use this site"
        for name in NEEDED
        if name not in policy.release.metrics
    ]
    if withheld:
        missing.append(
            f"policy.release.arrays withholds {len(withheld)} of the network's arrays, "
            f"the first being {withheld[0]!r}; '*' allows them all"
        )
    return missing


def _array_names(plan: TrainingPlan) -> list[str]:
    """Return the names of a network's arrays, without the memory that a plan may ask for."""
    import torch

    from mamfed_common.model.malignancy_net import MalignancyNetwork

    try:
        with torch.device("meta"):
            return list(MalignancyNetwork(plan.network).state_dict())
    except Exception:  # an extension that needs real values to be built
        return list(MalignancyNetwork(plan.network).state_dict())
