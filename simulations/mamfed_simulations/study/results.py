"""Summarise the units of a study: the paper's three figures per row, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mamfed_common.metrics.bootstrap import Interval, mean, paired_difference, patient_bootstrap
from mamfed_simulations.reporting.pages import interval_values
from mamfed_simulations.study.rows import OURS, Row
from mamfed_simulations.study.trials import StudyTraining, chosen_epoch, read_epochs

WINDOW = 10
"""Number of first and of last epochs that are averaged ("on 10 eps" in the paper's table 1)."""


class Statistic(NamedTuple):
    """One figure of a row.

    Attributes:
        label: Column heading.
        meaning: Its definition and limits.
    """

    label: str
    meaning: str


STATISTICS = {
    "max": Statistic(
        "Dice, max",
        "highest mean Dice on the test images over all epochs; optimistic, because the epoch is "
        "chosen on the test images, as presumably in the paper",
    ),
    "first_ten": Statistic("first ten", f"mean test Dice of the first {WINDOW} epochs"),
    "last_ten": Statistic("last ten", f"mean test Dice of the last {WINDOW} epochs"),
    "chosen": Statistic(
        "chosen by validation",
        "test Dice at the epoch that the validation images chose; what a user can expect",
    ),
}


class RowScores(NamedTuple):
    """Test Dice of one row.

    Attributes:
        row: The row.
        epochs: ``(seeds, epochs, images)``, the images of all folds.
        chosen: ``(seeds, images)``, at each unit's chosen epoch.
        patients: Patient of each image.
        validation_epochs: Each unit's chosen epoch, counted from 1.
        cpu_seconds: CPU time of training stage 2, all units together.
    """

    row: Row
    epochs: np.ndarray
    chosen: np.ndarray
    patients: tuple[int, ...]
    validation_epochs: tuple[int, ...]
    cpu_seconds: float

    def values(self, statistic: str) -> np.ndarray:
        """Return the values behind a statistic, with images on the last axis."""
        return {
            "max": self.epochs,
            "first_ten": self.epochs[:, :WINDOW],
            "last_ten": self.epochs[:, -WINDOW:],
            "chosen": self.chosen,
        }[statistic]


def scores_of(row: Row, units: Sequence[StudyTraining]) -> RowScores:
    """Read the finished units of a row, of every seed and fold."""
    seeds = sorted({unit.plan.seed for unit in units})
    test, chosen, best, seconds = [], [], [], 0.0
    for seed in seeds:
        own = [unit for unit in units if unit.plan.seed == seed]
        read = [read_epochs(unit.path) for unit in own]
        picked = [chosen_epoch(epochs) for epochs in read]
        by_fold = [np.array([epoch["test"] for epoch in epochs]) for epochs in read]
        test.append(np.concatenate(by_fold, axis=1))
        chosen.append(np.concatenate([t[e] for t, e in zip(by_fold, picked, strict=True)]))
        best += [epoch + 1 for epoch in picked]
        seconds += sum(epoch["training_cpu_seconds"] for epochs in read for epoch in epochs)
    first = [unit for unit in units if unit.plan.seed == seeds[0]]
    patients = tuple(p for unit in first for p in unit.fold.test_patients)
    return RowScores(row, np.stack(test), np.stack(chosen), patients, tuple(best), seconds)


def mean_of_maxima(values: np.ndarray) -> float:
    """Return the mean over seeds of the highest epoch's mean over images."""
    return float(values.mean(axis=-1).max(axis=-1).mean())


class RowResult(NamedTuple):
    """A row's figures.

    Attributes:
        scores: Scores of the row.
        figures: Each statistic with its interval.
        ours_minus_this: mamfed's own row minus this one, paired by patient; empty for its own row.
    """

    scores: RowScores
    figures: dict[str, Interval]
    ours_minus_this: dict[str, Interval]

    def values(self) -> dict[str, Any]:
        """Return the row for JSON."""
        differences = {name: interval_values(d) for name, d in self.ours_minus_this.items()}
        return {
            "label": self.scores.row.label,
            "seeds": len(self.scores.epochs),
            "epochs": self.scores.epochs.shape[1],
            "chosen_epochs": list(self.scores.validation_epochs),
            "training_cpu_seconds": round(self.scores.cpu_seconds, 1),
            "curve": np.round(self.scores.epochs.mean(axis=-1), 4).tolist(),
            **{name: interval_values(figure) for name, figure in self.figures.items()},
            "ours_minus_this": differences,
        }


def results_of(scores: Sequence[RowScores]) -> list[RowResult]:
    """Return every row's figures with intervals, and its difference from mamfed's own row."""
    ours = next((s for s in scores if s.row.name == OURS), None)
    return [_result(s, ours if ours is not s else None) for s in scores]


def _result(scores: RowScores, ours: RowScores | None) -> RowResult:
    figures, differences = {}, {}
    for name in STATISTICS:
        statistic = mean_of_maxima if name == "max" else mean
        values = scores.values(name)
        figures[name] = patient_bootstrap(scores.patients, values, statistic)
        if ours:
            differences[name] = paired_difference(
                scores.patients, values, ours.values(name), statistic
            )
    return RowResult(scores, figures, differences)
