"""A site's policy: what may come in and what may leave. What is not allowed is denied.

Nothing here imports torch or Flower, so that a site's settings are read at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, time
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from mamfed_common.config import HEX_DIGITS, Config
from mamfed_common.errors import SetupError
from mamfed_common.security.keys import parse_openssh

if TYPE_CHECKING:  # the plan brings torch, which a site's settings can do without
    from mamfed_common.plan import TrainingPlan

logger = logging.getLogger(__name__)

COUNTS = "counts"
"""What a site has for a plan: all of a ``SiteDescription`` but its splits."""
SPLIT = "split"
"""How its data sets are divided: digests (``SiteDescription.splits``)."""
NUM_EXAMPLES = "num_examples"
NEEDED: tuple[str, ...] = (COUNTS, NUM_EXAMPLES)
"""Without these the server can neither plan a round nor weigh an update."""

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
"""Everything but arrays that can leave, named as in ``TrainReport`` and ``SiteScore``."""

OLD_MIN_SITES = "min_min_sites"

PlanPrefix = Annotated[str, StringConstraints(pattern=HEX_DIGITS)]
"""A plan's SHA-256, or its first 12 hex digits or more."""


def _check_hours(text: str) -> str:
    """Refuse hours that are none, or an empty span."""
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", text)
    if not found or text[:5] == text[6:]:
        raise ValueError("expected a span of local time such as '19:00-07:00', two times of day")
    return text


def _check_key(text: str) -> str:
    try:
        parse_openssh(text, Ed25519PublicKey, "coordinator key")
    except SetupError as error:  # pydantic adds the place to a ValueError only
        raise ValueError(str(error)) from None
    return text


Hours = Annotated[str, AfterValidator(_check_hours)]
CoordinatorKey = Annotated[str, AfterValidator(_check_key)]


@cache
def _warn_about_old_key() -> None:
    """Warn once per process: the policy is read again at every change."""
    logger.warning(
        "site.yaml: policy.bounds.%s is deprecated; rename it to policy.bounds.required_min_sites",
        OLD_MIN_SITES,
    )


class PlanPolicy(Config):
    """Which plans this site takes.

    Attributes:
        approval: ``manual``: each plan waits for ``mamfed-client plan approve``;
            ``within-bounds``: a signed plan within the bounds needs nobody.
        allowed: Plans approved in advance, by SHA-256 or its first 12 hex digits or more.
    """

    approval: Literal["manual", "within-bounds"] = "manual"
    allowed: tuple[PlanPrefix, ...] = ()


class Bounds(Config):
    """What no plan may exceed, approved or not.

    Attributes:
        max_image_size: Side of the square grid, in pixels.
        max_rounds: Rounds of both stages together.
        max_local_epochs: Passes over this site's images in a round.
        max_local_steps: Steps of a round, where a plan counts those.
        max_learning_rate: AdamW's peak.
        max_batch_size: Images a step.
        required_min_sites: Lowest ``federation.min_sites`` that a plan may set: the server averages
            no fewer sites' updates than that.
        hours: When this site answers, local time, e.g. ``19:00-07:00``; None: always. A round
            that began in time is finished.
    """

    max_image_size: int = Field(default=2048, ge=32)
    max_rounds: int = Field(default=100, ge=1)
    max_local_epochs: int = Field(default=10, ge=1)
    max_local_steps: int = Field(default=1000, ge=1)
    max_learning_rate: float = Field(default=0.01, gt=0)
    max_batch_size: int = Field(default=16, ge=1)
    required_min_sites: int = Field(default=3, ge=1)
    hours: Hours | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept_old_key(cls, values: Any) -> Any:
        """Read ``min_min_sites``, the former name of ``required_min_sites``."""
        if not isinstance(values, Mapping) or OLD_MIN_SITES not in values:
            return values
        if "required_min_sites" in values:
            raise ValueError(f"found {OLD_MIN_SITES} and required_min_sites; remove the former")
        _warn_about_old_key()
        renamed = {"required_min_sites": values[OLD_MIN_SITES], **values}
        del renamed[OLD_MIN_SITES]
        return renamed

    def open_at(self, now: datetime) -> bool:
        """Tell whether this site answers at a moment of local time; the span's end is outside."""
        if self.hours is None:
            return True
        start, end = (time.fromisoformat(text) for text in self.hours.split("-"))
        clock = now.time()
        return start <= clock < end if start < end else clock >= start or clock < end


class Release(Config):
    """What may leave. Empty lists let nothing leave.

    Attributes:
        arrays: Patterns of array names, e.g. ``*`` or ``backbone.*``.
        metrics: Names of values.
    """

    arrays: tuple[str, ...] = ()
    metrics: tuple[MetricName, ...] = ()

    def withheld(self, arrays: Iterable[str]) -> list[str]:
        """Return the arrays that no pattern lets leave."""
        return [name for name in arrays if not any(fnmatchcase(name, p) for p in self.arrays)]


class Privacy(Config):
    """What is done to an update before it leaves.

    Attributes:
        clip_norm: The most that an update may differ from the round's starting weights (L2 norm
            over all floating arrays); None: as much as it does.
        noise_multiplier: Standard deviation of the Gaussian noise added to each value, in clip
            norms.
    """

    clip_norm: float | None = Field(default=None, gt=0)
    noise_multiplier: float = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _noise_needs_a_clip(self) -> Self:
        if self.noise_multiplier and self.clip_norm is None:
            raise ValueError("noise_multiplier needs a clip_norm: it is given in clip norms")
        return self


class Policy(Config):
    """What a site allows.

    Attributes:
        plans: Which plans this site takes.
        coordinator_keys: OpenSSH Ed25519 keys that may sign plans, besides the welcome's.
        bounds: What no plan may exceed.
        release: What may leave.
        min_training_cases: Images without which this site does not train in a stage.
        min_cases_to_report: Images without which a mean or a count of lesions over them is
            withheld.
        privacy: What is done to an update before it leaves.
        personal: Whether this site adapts a run's final model to its own patients. That model stays
            here; how well it scores leaves as ``release`` says.
        pages_name_patients: Whether the pages of ``mamfed-client predict`` show patient numbers.
            They stay at the site, as the images do.
    """

    plans: PlanPolicy = PlanPolicy()
    coordinator_keys: tuple[CoordinatorKey, ...] = ()
    bounds: Bounds = Bounds()
    release: Release = Release()
    min_training_cases: int = Field(default=1, ge=1)
    min_cases_to_report: int = Field(default=1, ge=1)
    privacy: Privacy = Privacy()
    personal: bool = True
    pages_name_patients: bool = False

    def sha256(self) -> str:
        """Return the policy's name: SHA-256 of its canonical JSON, as 64 hex digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def missing_for_training(policy: Policy, plan: TrainingPlan) -> list[str]:
    """Say what this site's policy would have to release for it to train by a plan.

    Returns:
        One sentence for each thing that ``site.yaml`` withholds; none where it can train.
    """
    from mamfed_common.model.malignancy_net import MalignancyNetwork

    withheld = policy.release.withheld(MalignancyNetwork(plan.network).state_dict())
    missing = [
        f"policy.release.metrics lacks {name!r}, without which the server cannot use this site"
        for name in NEEDED
        if name not in policy.release.metrics
    ]
    if withheld:
        missing.append(
            f"policy.release.arrays lets {len(withheld)} of the network's arrays not leave, "
            f"the first {withheld[0]!r}; '*' allows them all"
        )
    return missing
