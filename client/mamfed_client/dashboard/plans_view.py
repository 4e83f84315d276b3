"""The plans that arrived, in words beside the policy's bounds, and what was decided about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mamfed_client.dashboard.value_words import value_words
from mamfed_client.disclosure.plan_admission import (
    BoundCheck,
    PlanStatus,
    check_bounds,
    out_of_bounds,
    plan_status,
)
from mamfed_client.disclosure.plan_store import Decision, DecisionRecord, PlanStore, StoredPlan
from mamfed_client.disclosure.plan_words import in_words
from mamfed_client.site.policy import Policy, missing_for_training
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.runtime.wording import counted

BOUND_WORDS = {
    "image_size": "Side of an image, in pixels",
    "rounds": "Rounds, both stages",
    "local_epochs": "Epochs a round",
    "local_steps": "Steps a round",
    "learning_rate": "Peak learning rate",
    "batch_size": "Images a step",
    "min_sites": "Sites averaged, at least",
    "parameters": "Parameters of the network",
    "memory_gib": "Memory of a step, GiB (estimate)",
    "held_out_part": "Smallest part held out",
    "held_out": "Held out in all",
}
"""The names of bounds, for readers of the page."""

STANDINGS = {
    PlanStatus.PENDING: "waits for you",
    PlanStatus.APPROVED: "approved",
    PlanStatus.REFUSED: "refused",
    PlanStatus.OUTSIDE_BOUNDS: "blocked: outside your bounds",
}


class BoundView(NamedTuple):
    """One bound: its name in words, the plan's value, the limit, the key, whether it fits."""

    name: str
    found: str
    limit: str
    key: str
    fits: bool


class PlanView(NamedTuple):
    """One plan.

    Attributes:
        sha256: Its SHA-256.
        came: When it arrived with a valid signature, UTC.
        status: Its status here.
        standing: The status in words.
        sentences: What it makes this site do.
        bounds: Each bound of the policy with the plan's value.
        blocked: Which bounds it exceeds and what to do; empty if none.
        missing: What the policy withholds that its training needs.
        decided: The last decision about it: what, by whom, when; empty if none.
    """

    sha256: str
    came: str
    status: PlanStatus
    standing: str
    sentences: tuple[str, ...]
    bounds: tuple[BoundView, ...]
    blocked: str
    missing: tuple[str, ...]
    decided: str

    @property
    def waits(self) -> bool:
        """Whether a person has to decide."""
        return self.status is PlanStatus.PENDING


class PlansView(NamedTuple):
    """All plans, those that wait first, then the newest first.

    Attributes:
        plans: The plans.
        warnings: Plan files that cannot be used.
        dropped: Plans that went undecided because too many came.
        by_hand: Whether each plan waits for a person (``policy.plans.approval: manual``).
        hours: When this site answers, local time; empty: always.
        release: What the policy lets leave, in sentences.
    """

    plans: tuple[PlanView, ...] = ()
    warnings: tuple[str, ...] = ()
    dropped: int = 0
    by_hand: bool = True
    hours: str = ""
    release: tuple[str, ...] = ()


def plans_view(home: SiteHome) -> PlansView:
    """Read the plans and the decisions about them.

    Raises:
        SetupError: ``site.yaml`` or a decision cannot be read.
    """
    policy, store = load_site_settings(home).policy, PlanStore(home.plans)
    history = store.history()
    plans = [_view(policy, stored, history) for stored in reversed(store.plans())]
    return PlansView(
        plans=tuple(sorted(plans, key=lambda plan: not plan.waits)),
        warnings=tuple(store.unusable()),
        dropped=store.dropped(),
        by_hand=policy.plans.approval == "manual",
        hours=policy.bounds.hours or "",
        release=tuple(_release(policy)),
    )


def _release(policy: Policy) -> Iterator[str]:
    """Yield sentences that say what may leave, whatever a plan asks."""
    arrays, metrics = policy.release.arrays, policy.release.metrics
    if not arrays and not metrics:
        yield "Nothing may leave: policy.release is empty."
        return
    whole = "every array" if "*" in arrays else f"the arrays {', '.join(arrays) or 'none'}"
    yield f"Of the network's weights, {whole} may leave. These are numbers; none is an image."
    yield f"Of other values: {', '.join(map(value_words, metrics)) or 'none'}."
    yield (
        f"No result rests on fewer than {counted(policy.min_patients_to_report, 'patient')}, and "
        f"no round trains on fewer than {policy.min_patients_a_round} (or half of this site's)."
    )
    if policy.privacy.patients:
        most = policy.privacy.patients.max_epsilon
        yield f"Training is differentially private for each patient, with epsilon up to {most:g}."


def decide(home: SiteHome, sha256: str, decision: Decision, by: str = "") -> DecisionRecord:
    """Approve or refuse a plan that arrived, as ``mamfed-client plan`` does.

    Args:
        home: The site's home.
        sha256: The plan.
        decision: What was decided.
        by: Who decided; empty: the operating system's user.

    Raises:
        SetupError: No such plan arrived, or the decisions cannot be read.
    """
    store = PlanStore(home.plans)
    return store.decide(store.find(sha256).sha256, decision, by)


def _view(policy: Policy, stored: StoredPlan, history: list[DecisionRecord]) -> PlanView:
    mine = [record for record in history if record.plan_sha256 == stored.sha256]
    decisions = {record.plan_sha256: record.decision for record in mine}
    status = plan_status(policy, stored.plan, decisions)
    return PlanView(
        sha256=stored.sha256,
        came=f"{stored.came:%Y-%m-%d %H:%M} UTC" if stored.came else "",
        status=status,
        standing=STANDINGS[status],
        sentences=tuple(in_words(stored.plan)),
        bounds=tuple(_bound(check) for check in check_bounds(policy, stored.plan)),
        blocked=out_of_bounds(policy, stored.plan) if status is PlanStatus.OUTSIDE_BOUNDS else "",
        missing=tuple(missing_for_training(policy, stored.plan)),
        decided=f"{mine[-1].decision.value} by {mine[-1].by}, {mine[-1].time}" if mine else "",
    )


def _bound(check: BoundCheck) -> BoundView:
    return BoundView(
        BOUND_WORDS.get(check.name, check.name.replace("_", " ")),
        _number(check.found) if check.found else "not used",
        f"at {'least' if check.is_lower else 'most'} {_number(check.allowed)}",
        check.key,
        check.fits,
    )


def _number(value: float) -> str:
    whole = float(value).is_integer()
    return f"{int(value):,}" if whole else f"{value:.3g}"
