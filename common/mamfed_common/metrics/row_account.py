"""What a plan does with each row of a site's table; every row is in exactly one count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mamfed_common.domain import Part
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.wording import counted

HELD_OUT: tuple[Part, ...] = ("val", "test")
NEITHER = "other"
"""Images without malignancy that are excluded from stage 1: ``without_malignancy`` minus
``benign``."""


class RowAccount(NamedTuple):
    """Counts of a table's rows; ``rows`` is the sum of the others.

    Attributes:
        rows: All rows.
        train: Rows trained on, in either stage.
        validation: Rows that choose the round and the threshold.
        test: Rows that measure the result.
        unused: Readable rows that the plan does not use.
        rejected: Unreadable rows.
    """

    rows: int
    train: int
    validation: int
    test: int
    unused: int
    rejected: int

    def in_words(self) -> str:
        """Return the counts as text: ``160 rows: 22 trained on, 0 validation, ...``."""
        return (
            f"{counted(self.rows, 'row')}: {self.train:,} trained on, "
            f"{self.validation:,} validation, {self.test:,} test, {self.unused:,} not used, "
            f"{self.rejected:,} rejected"
        )


def account_of(description: SiteDescription, plan: TrainingPlan) -> RowAccount:
    """Return what a plan does with the rows of a site."""
    kinds = _trained(description, plan)
    train = sum(_kind(description, kind, "train") for kind in kinds)
    measured = plan.finetuning.rounds > 0
    validation, test = (
        sum(_kind(description, k, part) for k in ("malignant", "benign", NEITHER)) * measured
        for part in HELD_OUT
    )
    rejected = sum(description.rejected.values())
    unused = description.rows - train - validation - test - rejected
    return RowAccount(description.rows, train, validation, test, unused, rejected)


def total_of(accounts: Sequence[RowAccount]) -> RowAccount:
    """Return the sum of accounts, such as those of all sites."""
    return RowAccount(*map(sum, zip(*accounts or [RowAccount(0, 0, 0, 0, 0, 0)], strict=True)))


def reason_lines(descriptions: Mapping[str, SiteDescription], plan: TrainingPlan) -> list[str]:
    """Return lines that explain, with counts, why rows of a site are rejected or not used.

    The excluded rows, minus those that are used after all, plus those without a use add up to
    ``RowAccount.unused``.
    """
    return [line for site, d in descriptions.items() for line in _reasons(site, d, plan)]


def _reasons(site: str, description: SiteDescription, plan: TrainingPlan) -> Iterator[str]:
    for reason, count in description.rejected.items():
        yield f"{site}: {count} rejected: {reason}"
    for reason, count in description.left_out.items():
        yield f"{site}: {count} excluded from the stages: {reason}"
    used = _used_though_excluded(description, plan)
    if used:
        yield f"{site}: {used} of the excluded rows are still used, as images without malignancy"
    excluded = sum(description.left_out.values()) - used
    if idle := account_of(description, plan).unused - excluded:
        yield f"{site}: {idle} usable in a stage, but not needed by this plan"


def _used_though_excluded(description: SiteDescription, plan: TrainingPlan) -> int:
    """Count the rows that are excluded from stage 1 but used elsewhere.

    They show no malignancy, so any marked region on them is a false alarm, and stage 2 may use them
    as companion images (``finetuning.beside``).
    """
    trained = _kind(description, NEITHER, "train") * (NEITHER in _trained(description, plan))
    held_out = sum(_kind(description, NEITHER, part) for part in HELD_OUT)
    return trained + held_out * (plan.finetuning.rounds > 0)


def _trained(description: SiteDescription, plan: TrainingPlan) -> set[str]:
    """Return the kinds (``malignant``, ``benign``, :data:`NEITHER`) that a site trains on."""
    stages = [stage for stage in Stage if plan.stage(stage).rounds]
    kinds: set[str] = {k for stage in stages for k in description.images_used(plan, stage)}
    if "without_malignancy" in kinds:
        kinds = kinds - {"without_malignancy"} | {"benign", NEITHER}
    return kinds


def _kind(description: SiteDescription, kind: str, part: Part) -> int:
    """Count the images of one of the three disjoint kinds in one part."""

    def count(purpose: str) -> int:
        return description.images.get(purpose, {}).get(part, 0)

    if kind == NEITHER:
        return max(0, count("without_malignancy") - count("benign"))
    return count(kind)
