"""What a training plan says about one stage: its rounds, their length and the optimizer."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from mamfed_common.config import Config

ROUND_LENGTHS = frozenset({"local_epochs", "local_steps"})
"""The two keys that give the length of a round; a stage uses exactly one of them."""


class StagePlan(Config):
    """One stage of a run.

    Attributes:
        rounds: Rounds of federated averaging; 0 skips the stage.
        local_epochs: Passes over a site's own images in each round; 1 if both this and
            ``local_steps`` are null.
        local_steps: Steps of each round instead, the same number at every site. A site's images
            then come in seeded orders that continue from round to round, and every batch is full.
        batch_size: Images per step; a site's last batch of an epoch may be smaller.
        optimizer_state: ``fresh`` starts each round with a new AdamW; ``kept`` starts with the
            moments of the site's last round of the stage, which stay on its own disk.
        learning_rate: AdamW's peak learning rate. It rises over the first tenth of the stage and
            falls along a cosine to nearly 0 at the end of the stage, across rounds.
        quorum: Number of accepted updates below which a round is done again (in a simulation: the
            run fails).
        deadline_seconds: Maximum time that the server waits for a site's answer in a round.
        min_deadline_seconds: Minimum of that time. Between the two, a site gets three times as long
            as its slowest recent round took.
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
    def _default_to_one_epoch(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        has_length = any(values.get(key) is not None for key in ROUND_LENGTHS)
        return values if has_length else {**values, "local_epochs": 1}

    @model_validator(mode="after")
    def _epochs_or_steps(self) -> Self:
        if self.local_epochs is not None and self.local_steps is not None:
            raise ValueError(
                f"local_epochs is {self.local_epochs} and local_steps is {self.local_steps}: a "
                "round has one of the two, omit the other"
            )
        return self

    @property
    def beside_size(self) -> int:
        """Number of companion images in a full batch of stage 2."""
        return max(1, self.batch_size // 2)

    def steps(self, images: int, a_step: int | None = None) -> int:
        """Return the number of steps of a round at a site.

        Args:
            images: Number of images that the site trains on; 0 if it does not take part.
            a_step: Images per step; None means ``batch_size``.
        """
        if self.local_steps is not None:
            return self.local_steps if images else 0
        assert self.local_epochs is not None
        return -(-images // (a_step or self.batch_size)) * self.local_epochs

    def lasting(self, units: int, rounds: int = 1) -> Self:
        """Return a copy with other lengths of round and stage.

        Args:
            units: Epochs of a round, or steps if the stage counts steps.
            rounds: Rounds of the stage.
        """
        key = "local_epochs" if self.local_steps is None else "local_steps"
        return self.model_copy(update={"rounds": rounds, key: units})

    def in_words(self) -> str:
        """Return the length of a round, such as ``8 steps``."""
        if self.local_steps is not None:
            return f"{self.local_steps} step{'s' if self.local_steps > 1 else ''}"
        assert self.local_epochs is not None
        return f"{self.local_epochs} epoch{'s' if self.local_epochs > 1 else ''}"


class FinetuningPlan(StagePlan):
    """Stage 2, which adds companion images to the malignant ones, half as many in each step.

    Attributes:
        beside: Companion images: ``benign`` takes those of stage 1, ``without_malignancy`` all
            images without malignancy, proven benign lesions included.
        benign_only_sites: Whether a site without a malignant training image takes part with
            companion images alone.
    """

    beside: Literal["benign", "without_malignancy"] = "benign"
    benign_only_sites: bool = False
