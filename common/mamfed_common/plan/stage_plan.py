"""What a training plan says about one stage: its rounds, their length and the optimizer."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from mamfed_common.config import Config

ROUND_LENGTHS = frozenset({"local_epochs", "local_steps"})
"""The two keys that give the length of a round; a stage uses exactly one of them."""


class StagePlan(Config):
    """One stage of the federation.

    Attributes:
        rounds: Rounds of federated averaging; 0 leaves the stage out.
        local_epochs: Passes over a site's own images in each round; 1 where both this and
            ``local_steps`` are null.
        local_steps: Steps of a round instead, the same number at every site: a site's images come
            in seeded orders that run on from round to round, and every batch is full.
        batch_size: Images a step; a site's last batch of an epoch may be smaller.
        optimizer_state: ``fresh``: each round begins with a new AdamW; ``kept``: with the moments
            of the site's last round of the stage, which stay on its own disk.
        learning_rate: AdamW's peak. It warms up over the stage's first tenth and falls along a
            cosine to nearly 0 at the stage's end, across rounds.
        quorum: Accepted replies without which a round, and so the run, fails.
        deadline_seconds: The longest that the server waits for a site's answer in a round.
        min_deadline_seconds: The shortest, however quick the site was before: a site is given
            three times what its slowest of the last rounds took, between the two.
    """

    rounds: int = Field(ge=0)
    local_epochs: int | None = Field(default=None, ge=1)
    local_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=2, ge=1)
    optimizer_state: Literal["fresh", "kept"] = "fresh"
    learning_rate: float = Field(gt=0, le=1)
    quorum: int = Field(default=1, ge=1)
    deadline_seconds: float = Field(default=43200, gt=0)
    min_deadline_seconds: float = Field(default=900, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _one_epoch_where_nothing_is_said(cls, values: Any) -> Any:
        given = isinstance(values, dict) and {
            key for key in ROUND_LENGTHS if values.get(key) is not None
        }
        return values if given or not isinstance(values, dict) else {**values, "local_epochs": 1}

    @model_validator(mode="after")
    def _epochs_or_steps(self) -> Self:
        if self.local_epochs is not None and self.local_steps is not None:
            raise ValueError(
                f"local_epochs is {self.local_epochs} and local_steps is {self.local_steps}: a "
                "round has one of the two, leave the other out"
            )
        return self

    @property
    def beside_size(self) -> int:
        """Return how many images stand beside those of a full batch in stage 2."""
        return max(1, self.batch_size // 2)

    def steps(self, images: int, a_step: int | None = None) -> int:
        """Return the steps of a round at a site.

        Args:
            images: How many images it trains on; 0: it takes no part.
            a_step: How many of them a step has; None: ``batch_size``.
        """
        if self.local_steps is not None:
            return self.local_steps if images else 0
        assert self.local_epochs is not None
        return -(-images // (a_step or self.batch_size)) * self.local_epochs

    def lasting(self, units: int, rounds: int = 1) -> Self:
        """Return a copy with so many epochs, or steps where it counts in those, and rounds."""
        key = "local_epochs" if self.local_steps is None else "local_steps"
        return self.model_copy(update={"rounds": rounds, key: units})

    def in_words(self) -> str:
        """Say how long a round is."""
        if self.local_steps is not None:
            return f"{self.local_steps} step{'s' if self.local_steps > 1 else ''}"
        assert self.local_epochs is not None
        return f"{self.local_epochs} epoch{'s' if self.local_epochs > 1 else ''}"


class FinetuningPlan(StagePlan):
    """Stage 2, in which other images stand beside the malignant ones, half as many in each step.

    Attributes:
        beside: Which: ``benign``, those fit for stage 1, or all images ``without_malignancy``,
            proven benign lesions included.
        benign_only_sites: Whether a site that has no malignant training image takes part with the
            images beside alone.
    """

    beside: Literal["benign", "without_malignancy"] = "benign"
    benign_only_sites: bool = False
