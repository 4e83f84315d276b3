"""Where every row of a site's table goes under a plan: each is in one count, and they add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mamfed_common.domain import Part
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.wording import counted

HELD_OUT: tuple[Part, ...] = ("val", "test")
NEITHER = "other"
"""Images without malignancy that stage 1 must not see; ``without_malignancy`` less ``benign``."""


class RowAccount(NamedTuple):
    """Rows of a table; those behind the first add up to it.

    Attributes:
        rows: All.
        train: Trained on, in either stage.
        validation: They choose the round and the threshold.
        test: They measure the result.
        unused: Readable, but the plan makes no use of them.
        rejected: Unreadable.
    """

    rows: int
    train: int
    validation: int
    test: int
    unused: int
    rejected: int

    def in_words(self) -> str:
        """Say it: ``160 rows: 22 trained on, 0 validation, ...``."""
        return (
            f"{counted(self.rows, 'row')}: {self.train:,} trained on, "
            f"{self.validation:,} validation, {self.test:,} test, {self.unused:,} not used, "
            f"{self.rejected:,} rejected"
        )


def account_of(description: SiteDescription, plan: TrainingPlan) -> RowAccount:
    """Return where the rows of a site go under a plan."""
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
    """Add accounts up, such as those of all sites."""
    return RowAccount(*map(sum, zip(*accounts or [RowAccount(0, 0, 0, 0, 0, 0)], strict=True)))


def reason_lines(descriptions: Mapping[str, SiteDescription], plan: TrainingPlan) -> list[str]:
    """Say, a line each, why rows of a site are rejected or not used, with counts.

    Lines that say why, less those that serve all the same, add up to what is not used.
    """
    return [line for site, d in descriptions.items() for line in _reasons(site, d, plan)]


def _reasons(site: str, description: SiteDescription, plan: TrainingPlan) -> Iterator[str]:
    for reason, count in description.rejected.items():
        yield f"{site}: {count} rejected: {reason}"
    for reason, count in description.left_out.items():
        yield f"{site}: {count} left out of the stages: {reason}"
    used = _used_though_left_out(description, plan)
    if used:
        yield f"{site}: {used} of those left out are used all the same, as without malignancy"
    left_out = sum(description.left_out.values()) - used
    if idle := account_of(description, plan).unused - left_out:
        yield f"{site}: {idle} fit for a stage, but this plan has no use for them"


def _used_though_left_out(description: SiteDescription, plan: TrainingPlan) -> int:
    """Count the rows that a rule keeps out of stage 1 and that serve all the same.

    They show no malignancy: what is marked on them is a false alarm, and stage 2 may have them
    beside its own (``finetuning.beside``).
    """
    trained = _kind(description, NEITHER, "train") * (NEITHER in _trained(description, plan))
    held_out = sum(_kind(description, NEITHER, part) for part in HELD_OUT)
    return trained + held_out * (plan.finetuning.rounds > 0)


def _trained(description: SiteDescription, plan: TrainingPlan) -> set[str]:
    """Return which of ``malignant``, ``benign`` and :data:`NEITHER` a site trains on."""
    stages = [stage for stage in Stage if plan.stage(stage).rounds]
    kinds: set[str] = {k for stage in stages for k in description.images_used(plan, stage)}
    if "without_malignancy" in kinds:
        kinds = kinds - {"without_malignancy"} | {"benign", NEITHER}
    return kinds


def _kind(description: SiteDescription, kind: str, part: Part) -> int:
    """Count the images of one of three kinds that have none in common, in one part."""

    def count(purpose: str) -> int:
        return description.images.get(purpose, {}).get(part, 0)

    if kind == NEITHER:
        return max(0, count("without_malignancy") - count("benign"))
    return count(kind)
