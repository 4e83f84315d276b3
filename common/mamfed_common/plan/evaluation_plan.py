"""What a training plan says about the split into parts and the measurement of results."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from mamfed_common.config import Config


class EvaluationPlan(Config):
    """Split of the patients into parts, and measurement of results.

    Attributes:
        validation_fraction: Fraction of each site's patients that are used to choose the best
            round.
        test_fraction: Fraction of each site's patients that are never used for training or choices.
        threshold: Minimum probability of a malignant pixel on validation patients. Test patients
            use the threshold that was best on validation (``CheckpointFacts.threshold``).
        every: Interval, in rounds of stage 2, at which weights are scored on validation patients;
            the last round is always scored. Only scored rounds can be chosen.
        split_seed: Seed of the split of patients; separate from ``seed``, so that repeated
            trainings are measured on the same patients.
        folds: Number of runs of a cross-validation, in which every patient is tested once. Each run
            holds out its own patients instead of ``test_fraction``; of the others
            ``validation_fraction`` are for validation.
        fold: Index of this run among them, from 0.
    """

    validation_fraction: float = Field(default=0.15, ge=0, lt=1)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    every: int = Field(default=1, ge=1)
    split_seed: int = Field(default=0, ge=0, lt=2**63)
    folds: int | None = Field(default=None, ge=2, le=100)
    fold: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_fold(self) -> Self:
        if self.fold >= (self.folds or 1):
            folds = f"{self.folds} folds" if self.folds else "no folds"
            raise ValueError(f"fold is {self.fold}, but there are {folds}; folds count from 0")
        return self

    @model_validator(mode="after")
    def _check_training_fraction(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave nothing to train on")
        return self
