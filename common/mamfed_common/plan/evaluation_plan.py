"""What a training plan says about the split into parts and the measurement of results."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from mamfed_common.config import Config


class EvaluationPlan(Config):
    """How results are measured.

    Attributes:
        validation_fraction: Share of each site's patients that choose the best round.
        test_fraction: Share of each site's patients that no training or choice ever sees.
        threshold: Probability from which a pixel counts as malignant on validation patients; on
            test patients the one that was best on validation (``CheckpointFacts.threshold``).
        every: Weights are scored on validation patients after so many rounds of stage 2, and after
            the last one. Only a round that was scored can be chosen.
        split_seed: Draws which patients are held out; apart from ``seed``, so that repeated
            trainings are measured on the same patients.
        folds: Cross-validation: every patient is tested in one of so many runs. Each holds out its
            own part of the patients in place of ``test_fraction``; of the others
            ``validation_fraction`` are for validation.
        fold: Which of these runs this one is, from 0.
    """

    validation_fraction: float = Field(default=0.15, ge=0, lt=1)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    every: int = Field(default=1, ge=1)
    split_seed: int = Field(default=0, ge=0, lt=2**63)
    folds: int | None = Field(default=None, ge=2, le=100)
    fold: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_of_the_folds(self) -> Self:
        if self.fold >= (self.folds or 1):
            folds = f"{self.folds} folds" if self.folds else "no folds"
            raise ValueError(f"fold is {self.fold}, but there are {folds}; they count from 0")
        return self

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave nothing to train on")
        return self
