"""Decide whether a site follows a plan, by its policy and the decisions of its people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mamfed_client.disclosure.plan_size import memory_gib, parameters_of
from mamfed_client.disclosure.plan_store import Decision
from mamfed_client.site.policy import Policy
from mamfed_common.errors import MamfedError, PlanError
from mamfed_common.plan import EvaluationPlan, Stage, StagePlan, TrainingPlan
from mamfed_common.protocol.tasks import REFUSAL_CODES, RefusalCode
from mamfed_common.security.signing import is_signed

FLOOR = "min_sites"


class PolicyRefusal(MamfedError):
    """This site refuses to answer. Only the code leaves the site."""

    def __init__(self, fault: RefusalCode, detail: str = "") -> None:
        """Refuse with a code; the detail stays in the site's log."""
        super().__init__(REFUSAL_CODES[fault] + (f": {detail}" if detail else ""))
        self.fault = fault


class PlanStatus(StrEnum):
    """The status of a plan at this site."""

    APPROVED = "approved"
    PENDING = "pending"
    REFUSED = "refused"
    OUTSIDE_BOUNDS = "outside bounds"


class BoundCheck(NamedTuple):
    """One bound of the policy: the plan's value, the limit, and whether it is a lower limit."""

    name: str
    found: float
    allowed: float
    is_lower: bool = False

    @property
    def fits(self) -> bool:
        """Return whether the plan's value is within the limit."""
        return self.found >= self.allowed if self.is_lower else self.found <= self.allowed

    @property
    def key(self) -> str:
        """Return the bound's key in ``site.yaml``."""
        return f"policy.bounds.{'min' if self.is_lower else 'max'}_{self.name}"

    @property
    def limit(self) -> str:
        """Return the limit in words."""
        return f"at {'least' if self.is_lower else 'most'} {self.allowed:g}"

    def words(self) -> str:
        """Return the plan's value and the limit in words."""
        return f"{self.name} is {self.found:g}, {self.key} allows {self.limit}"


def check_bounds(policy: Policy, plan: TrainingPlan) -> list[BoundCheck]:
    """Check a plan against each bound; a stage of 0 rounds is ignored."""
    stages = [plan.stage(stage) for stage in Stage if plan.stage(stage).rounds]
    bounds, sites = policy.bounds, plan.federation.min_sites
    held_out = held_out_fractions(plan.evaluation)
    return [
        BoundCheck("image_size", plan.image_size, bounds.max_image_size),
        BoundCheck("rounds", sum(stage.rounds for stage in stages), bounds.max_rounds),
        BoundCheck("local_epochs", _most(stages, "local_epochs"), bounds.max_local_epochs),
        BoundCheck("local_steps", _local_steps(plan, stages), bounds.max_local_steps),
        BoundCheck("learning_rate", _learning_rate(plan, stages), bounds.max_learning_rate),
        BoundCheck("batch_size", _most(stages, "batch_size"), bounds.max_batch_size),
        BoundCheck(FLOOR, sites, bounds.min_min_sites, is_lower=True),
        BoundCheck("parameters", parameters_of(plan.network), bounds.max_parameters),
        BoundCheck("memory_gib", memory_gib(plan), bounds.max_memory_gib),
        BoundCheck("held_out_part", min(held_out), bounds.min_held_out_part, is_lower=True),
        BoundCheck("held_out", sum(held_out), bounds.max_held_out),
    ]


def held_out_fractions(evaluation: EvaluationPlan) -> list[float]:
    """Return the fractions of the patients for testing and, if there are any, for validation."""
    tested = 1 / evaluation.folds if evaluation.folds else evaluation.test_fraction
    others = 1 - tested if evaluation.folds else 1.0
    validated = round(evaluation.validation_fraction * others, 9)
    return [tested, validated] if validated else [tested]


def out_of_bounds(policy: Policy, plan: TrainingPlan) -> str:
    """Return which bounds a plan exceeds and how to change that; empty if it is within all.

    ``preflight``, ``plan`` and ``status`` use the same words as the refusal of a message.
    """
    outside = [check for check in check_bounds(policy, plan) if not check.fits]
    if not outside:
        return ""
    changes = ", ".join(f"{check.key}: {check.found:g}" for check in outside)
    return (
        f"{'; '.join(check.words() for check in outside)}. Ask the coordinator for another plan, "
        f"or set {changes} in site.yaml"
    )


def plan_status(
    policy: Policy, plan: TrainingPlan, decisions: Mapping[str, Decision]
) -> PlanStatus:
    """Return the status of a plan: a refusal comes first, then the bounds, then approval."""
    name = plan.sha256()
    if decisions.get(name) is Decision.REFUSED:
        return PlanStatus.REFUSED
    if not all(check.fits for check in check_bounds(policy, plan)):
        return PlanStatus.OUTSIDE_BOUNDS
    approved = (
        policy.plans.approval == "within-bounds"
        or decisions.get(name) is Decision.APPROVED
        or any(name.startswith(prefix) for prefix in policy.plans.allowed)
    )
    return PlanStatus.APPROVED if approved else PlanStatus.PENDING


def check_plan(
    policy: Policy,
    plan: TrainingPlan,
    signature: str,
    trusted_keys: Iterable[Ed25519PublicKey],
    decisions: Mapping[str, Decision],
    now: datetime | None,
) -> None:
    """Refuse a plan that this site may not follow now.

    Args:
        policy: The site's policy.
        plan: The plan.
        signature: Its signature, base64.
        trusted_keys: Keys of which one must have signed it.
        decisions: Decisions of the site's people, by the plan's SHA-256.
        now: Local time; None if the hour does not matter.

    Raises:
        PolicyRefusal: With the code of the reason.
    """
    if not is_signed(plan, signature, trusted_keys):
        raise PolicyRefusal(RefusalCode.PLAN_NOT_SIGNED)
    status = plan_status(policy, plan, decisions)
    if status is PlanStatus.PENDING:
        raise PolicyRefusal(
            RefusalCode.PLAN_NOT_APPROVED,
            f"run mamfed-client plan approve {plan.sha256()[:12]} to read and approve it",
        )
    if status is PlanStatus.REFUSED:
        raise PolicyRefusal(RefusalCode.PLAN_REFUSED, refused_by_person(plan))
    if status is PlanStatus.OUTSIDE_BOUNDS:
        raise PolicyRefusal(RefusalCode.PLAN_OUTSIDE_POLICY, out_of_bounds(policy, plan))
    if now is not None and not policy.bounds.open_at(now):
        raise PolicyRefusal(RefusalCode.NOT_AT_THIS_HOUR, f"bounds.hours is {policy.bounds.hours}")


def refused_by_person(plan: TrainingPlan) -> str:
    """Return a sentence saying that somebody here refused a plan, and how to reverse that."""
    name = plan.sha256()[:12]
    return f"this site refused plan {name}; mamfed-client plan approve {name} reverses that"


def _local_steps(plan: TrainingPlan, stages: Iterable[StagePlan]) -> float:
    """Return the most steps of any round, including the adaptation after the last one."""
    personal = plan.personal.steps if plan.makes_personal_models else 0
    return max(_most(stages, "local_steps"), personal)


def _learning_rate(plan: TrainingPlan, stages: Iterable[StagePlan]) -> float:
    """Return the highest peak learning rate, including that of the adaptation."""
    personal = plan.personal.learning_rate if plan.makes_personal_models else 0.0
    return max(_most(stages, "learning_rate"), personal)


def _most(stages: Iterable[StagePlan], key: str) -> float:
    return max(float(getattr(stage, key) or 0) for stage in stages)


def check_extensions(plan: TrainingPlan) -> None:
    """Refuse a plan whose network or loss cannot be used at this site, before it trains.

    Nothing is ever fetched: installing the package is up to the site.

    Raises:
        PolicyRefusal: One is missing or fails; it is named.
    """
    from mamfed_common.model.losses import check_loss
    from mamfed_common.model.malignancy_net import backbone_of

    try:
        backbone_of(plan.network.name)
        check_loss(plan.losses)
    except PlanError as error:
        raise PolicyRefusal(RefusalCode.EXTENSION_UNUSABLE, str(error)) from None
