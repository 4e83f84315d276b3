"""Whether a plan may be followed here, by the site's policy and by what a person decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mamfed_client.disclosure.plan_store import Decision
from mamfed_client.site.policy import Policy
from mamfed_common.errors import MamfedError
from mamfed_common.plan import Stage, StagePlan, TrainingPlan
from mamfed_common.protocol.tasks import REFUSAL_CODES, RefusalCode
from mamfed_common.security.signing import is_signed

FLOOR = "min_sites"
"""The one bound from below."""


class PolicyRefusal(MamfedError):
    """This site does not answer. Only the fault's code travels."""

    def __init__(self, fault: RefusalCode, detail: str = "") -> None:
        """Refuse by a code; the detail stays in the site's log."""
        super().__init__(REFUSAL_CODES[fault] + (f": {detail}" if detail else ""))
        self.fault = fault


class PlanStatus(StrEnum):
    """What becomes of a plan at this site."""

    APPROVED = "approved"
    PENDING = "pending"
    REFUSED = "refused"
    OUTSIDE_BOUNDS = "outside bounds"


class BoundCheck(NamedTuple):
    """One bound of the policy: what the plan asks for, what is allowed, whether that fits."""

    name: str
    found: float
    allowed: float
    fits: bool

    @property
    def key(self) -> str:
        """Name the bound as ``site.yaml`` does."""
        return f"policy.bounds.{'required' if self.name == FLOOR else 'max'}_{self.name}"

    @property
    def limit(self) -> str:
        """Say what is allowed."""
        return f"at {'least' if self.name == FLOOR else 'most'} {self.allowed:g}"

    def words(self) -> str:
        """Say what the plan asks for, beside the bound by its name."""
        return f"{self.name} is {self.found:g}, {self.key} allows {self.limit}"


def check_bounds(policy: Policy, plan: TrainingPlan) -> list[BoundCheck]:
    """Hold a plan against each bound; a stage of 0 rounds asks for nothing."""
    stages = [plan.stage(stage) for stage in Stage if plan.stage(stage).rounds]
    bounds, sites = policy.bounds, plan.federation.min_sites
    return [
        _at_most("image_size", plan.image_size, bounds.max_image_size),
        _at_most("rounds", sum(stage.rounds for stage in stages), bounds.max_rounds),
        _at_most("local_epochs", _most(stages, "local_epochs"), bounds.max_local_epochs),
        _at_most("local_steps", _local_steps(plan, stages), bounds.max_local_steps),
        _at_most("learning_rate", _learning_rate(plan, stages), bounds.max_learning_rate),
        _at_most("batch_size", _most(stages, "batch_size"), bounds.max_batch_size),
        BoundCheck(FLOOR, sites, bounds.required_min_sites, sites >= bounds.required_min_sites),
    ]


def out_of_bounds(policy: Policy, plan: TrainingPlan) -> str:
    """Say which bounds a plan is outside of, and how to change that; empty where it fits all.

    What a preflight, ``plan`` and ``status`` say is what a message is refused with.
    """
    outside = [check for check in check_bounds(policy, plan) if not check.fits]
    if not outside:
        return ""
    change = ", ".join(f"{check.key}: {check.found:g}" for check in outside)
    return (
        f"{'; '.join(check.words() for check in outside)}. Ask the coordinator for another plan, "
        f"or set {change} in site.yaml"
    )


def plan_status(
    policy: Policy, plan: TrainingPlan, decisions: Mapping[str, Decision]
) -> PlanStatus:
    """Return what becomes of a plan. A refusal counts most, the bounds next, approval last."""
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
    """Refuse a plan that may not be followed here now.

    Args:
        policy: The site's policy.
        plan: The plan.
        signature: Over it, base64.
        trusted_keys: Keys one of which must have signed it.
        decisions: What persons of this site decided, by the plan's SHA-256.
        now: Local time; None where the hour does not matter.

    Raises:
        Refused: With the code that says why.
    """
    if not is_signed(plan, signature, trusted_keys):
        raise PolicyRefusal(RefusalCode.PLAN_NOT_SIGNED)
    found = plan_status(policy, plan, decisions)
    if found is PlanStatus.PENDING:
        raise PolicyRefusal(
            RefusalCode.PLAN_NOT_APPROVED,
            f"mamfed-client plan approve {plan.sha256()[:12]} shows it and asks",
        )
    if found is PlanStatus.REFUSED:
        raise PolicyRefusal(RefusalCode.PLAN_REFUSED, refused_by_person(plan))
    if found is PlanStatus.OUTSIDE_BOUNDS:
        raise PolicyRefusal(RefusalCode.PLAN_OUTSIDE_POLICY, out_of_bounds(policy, plan))
    if now is not None and not policy.bounds.open_at(now):
        raise PolicyRefusal(RefusalCode.NOT_AT_THIS_HOUR, f"bounds.hours is {policy.bounds.hours}")


def refused_by_person(plan: TrainingPlan) -> str:
    """Say that somebody here refused a plan, and how to take that back."""
    name = plan.sha256()[:12]
    return f"this site refused plan {name}; mamfed-client plan approve {name} takes that back"


def _at_most(name: str, found: float, allowed: float) -> BoundCheck:
    return BoundCheck(name, found, allowed, found <= allowed)


def _local_steps(plan: TrainingPlan, stages: Iterable[StagePlan]) -> float:
    """Return the most steps of a round, the adapting after them being one."""
    personal = plan.personal.steps if plan.makes_personal_models else 0
    return max(_most(stages, "local_steps"), personal)


def _learning_rate(plan: TrainingPlan, stages: Iterable[StagePlan]) -> float:
    """Return the highest peak, of the stages or of the adapting after them."""
    personal = plan.personal.learning_rate if plan.makes_personal_models else 0.0
    return max(_most(stages, "learning_rate"), personal)


def _most(stages: Iterable[StagePlan], key: str) -> float:
    return max(float(getattr(stage, key) or 0) for stage in stages)
