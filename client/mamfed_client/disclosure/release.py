"""The part of an answer that a site's policy allows to leave."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from mamfed_client.disclosure.patients_behind import GROUPS
from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.imaging.dicom_attributes import MAKERS
from mamfed_client.site.policy import COUNTS, SPLIT, Policy, missing_for_training
from mamfed_common.config import Config
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.plan import cases
from mamfed_common.protocol.tasks import (
    EvaluateTask,
    PlanRequest,
    RefusalCode,
    SiteDescription,
    TrainReport,
    TrainTask,
)

NOTHING: Mapping[str, str] = MappingProxyType({})
KNOWN_VENDORS = frozenset([*MAKERS, "unknown"])
OTHER_VENDOR = "other"


class RequiredCounts(NamedTuple):
    """The counts behind a value of a ``SiteScore``.

    Attributes:
        images: Counts of images, each of which must be large enough.
        other: Further values that must be allowed to leave as well.
    """

    images: tuple[str, ...]
    other: tuple[str, ...] = ()


REQUIRED_COUNTS = {
    "dice": RequiredCounts(("images",)),
    "iou": RequiredCounts(("images",)),
    "dice_at": RequiredCounts(("images",)),
    "lesions": RequiredCounts(("images",)),
    "lesions_found": RequiredCounts(("images",), ("lesions",)),
    "lesions_redrawn": RequiredCounts(("images",)),
    "redrawn_as_tissue": RequiredCounts(("images",), ("lesions_redrawn",)),
    "redrawn_minus_ring": RequiredCounts(("images",), ("lesions_redrawn",)),
    "false_positive_pixels": RequiredCounts(("images_without_malignancy",)),
    "auroc": RequiredCounts(("images", "images_without_malignancy")),
    "sensitivity_at_1": RequiredCounts(("images", "images_without_malignancy"), ("lesions",)),
}


def check_personal(policy: Policy, request: PlanRequest) -> None:
    """Refuse to make or score a personal model if the policy forbids it.

    Raises:
        PolicyRefusal: The request is for a personal model, and the policy forbids one.
    """
    if isinstance(request, EvaluateTask) and request.model == "personal" and not policy.personal:
        raise PolicyRefusal(RefusalCode.NO_PERSONAL_MODEL, "policy.personal is false")


def why_withheld(policy: Policy, request: PlanRequest) -> str:
    """Return why no answer to a request could leave; empty if one can."""
    allowed = set(policy.release.metrics)
    if isinstance(request, TrainTask):
        return "; ".join(missing_for_training(policy, request.plan))
    if isinstance(request, EvaluateTask):
        if request.model == "personal" and policy.privacy.patients:
            return (
                "policy.privacy.patients: a personal model trains without noise, so its scores stay"
            )
        return "" if allowed & SiteScore.model_fields.keys() else "no value of a score may leave"
    return "" if COUNTS in allowed else f"policy.release.metrics lacks {COUNTS!r}"


def allowed_of(
    policy: Policy, request: PlanRequest, answer: Config, few: Mapping[str, str] = NOTHING
) -> Config:
    """Return an answer with only the values that may leave.

    Args:
        policy: The policy.
        request: The request.
        answer: The full answer.
        few: Counts over too few patients, which stay with all that rests on them, and why.

    Raises:
        PolicyRefusal: What may leave is not a usable answer.
    """
    check_personal(policy, request)
    if withheld := why_withheld(policy, request):
        raise PolicyRefusal(RefusalCode.MAY_NOT_LEAVE, withheld)
    if isinstance(answer, SiteDescription):
        splits = () if _denied(policy, SPLIT) else answer.splits
        known = answer.model_copy(
            update={"vendors": _known_vendors(answer.vendors), "splits": splits}
        )
        return rounded(known, policy.min_patients_to_report)
    if isinstance(answer, TrainReport):
        assert isinstance(request, TrainTask)
        _check_privacy(policy, answer)
        cases_few = cases(request.stage, answer.num_examples) < policy.min_cases_to_report
        stays = cases_few or few or _denied(policy, "loss")
        return answer.model_copy(update={"loss": None} if stays else {})
    assert isinstance(answer, SiteScore)
    if few and all(name in few or not getattr(answer, name) for name in GROUPS.values()):
        raise PolicyRefusal(RefusalCode.TOO_FEW_PATIENTS, "; ".join(few.values()))
    return answer.model_copy(update=dict.fromkeys(_withheld_of_score(policy, answer, few)))


def _check_privacy(policy: Policy, report: TrainReport) -> None:
    """Refuse weights that were not trained with the privacy that the policy now requires.

    Raises:
        PolicyRefusal: They were trained without it, or have spent more than it allows.
    """
    rule, spent = policy.privacy.patients, report.privacy
    if rule is None:
        return
    if spent is None or spent.delta != rule.delta:
        raise PolicyRefusal(
            RefusalCode.MAY_NOT_LEAVE,
            "policy.privacy.patients changed while this round was in training",
        )
    if spent.epsilon > rule.max_epsilon:
        raise PolicyRefusal(
            RefusalCode.PRIVACY_SPENT,
            f"epsilon is {spent.epsilon:g}, policy.privacy.patients.max_epsilon allows at most "
            f"{rule.max_epsilon:g}",
        )


def rounded(description: SiteDescription, minimum: int) -> SiteDescription:
    """Return a description without small counts: one below the minimum becomes the minimum.

    Images of fewer patients are counted in multiples of it. Only the images to train on stay exact,
    because an update's weight is checked against them.
    """
    patients = {
        purpose: {part: _at_least(count, minimum) for part, count in parts.items()}
        for purpose, parts in description.patients.items()
    }
    images = {
        purpose: {
            part: count
            if part == "train" or description.patients.get(purpose, {}).get(part, 0) >= minimum
            else -(-count // minimum) * minimum
            for part, count in parts.items()
        }
        for purpose, parts in description.images.items()
    }
    reasons = {
        name: {key: _at_least(count, minimum) for key, count in getattr(description, name).items()}
        for name in ("rejected", "left_out", "vendors")
    }
    return description.model_copy(update={"patients": patients, "images": images, **reasons})


def _at_least(count: int, minimum: int) -> int:
    return minimum if 0 < count < minimum else count


def _withheld_of_score(policy: Policy, score: SiteScore, few: Collection[str]) -> Iterator[str]:
    """Yield the values to withhold: not allowed, of too few, or of withheld counts."""
    for name in SiteScore.model_fields:
        required = REQUIRED_COUNTS.get(name, RequiredCounts(()))
        counts = [getattr(score, count) or 0 for count in required.images]
        small = any(0 < count < policy.min_cases_to_report for count in counts)
        small = small or not {name, *required.images}.isdisjoint(few)
        if small or any(_denied(policy, n) for n in (name, *required.images, *required.other)):
            yield name


def _denied(policy: Policy, name: str) -> bool:
    return name not in policy.release.metrics


def known_vendor(name: str) -> str:
    """Return a maker's name if it is of the fixed list, else ``other``."""
    return name if name in KNOWN_VENDORS else OTHER_VENDOR


def _known_vendors(vendors: Mapping[str, int]) -> dict[str, int]:
    """Count unknown makers together: their names are free text, which may contain anything."""
    counts: dict[str, int] = {}
    for name, count in vendors.items():
        key = known_vendor(name)
        counts[key] = counts.get(key, 0) + count
    return counts
