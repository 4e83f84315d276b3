"""Write a study's ``results.json``, ``results.md``, pictures and ``report.html``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mamfed_common import __version__
from mamfed_common.training.inference import predict
from mamfed_simulations.reporting.figure2 import Case, draw_figure2
from mamfed_simulations.reporting.pages import Account, Picture, Table, interval_text
from mamfed_simulations.study.curves import draw_study_curves
from mamfed_simulations.study.design import Study
from mamfed_simulations.study.results import (
    STATISTICS,
    RowResult,
    RowScores,
    results_of,
    scores_of,
)
from mamfed_simulations.study.trials import chosen_network


def write_report(study: Study, device: torch.device) -> tuple[Account, dict[str, Any]]:
    """Write the results and the report of a finished study.

    Returns:
        The account, and the content of ``results.json``.
    """
    scores = [scores_of(row, study.units(row)) for row in study.rows]
    rows = results_of(scores)
    results = {
        "title": study.title,
        "mamfed_version": __version__,
        "seeds": list(study.seeds),
        "data": study.data.describe(),
        "plan_sha256": study.design.plan.sha256(),
        "rows": {row.scores.row.name: row.values() for row in rows},
    }
    account = Account(
        title=study.title,
        command=study.command,
        plans={"": study.design.plan},
        tables=_tables(rows),
        notes=_notes(study, scores),
        pictures=_pictures(study, scores, device),
    )
    account.write(study.folder, results)
    return account, results


def _tables(rows: Sequence[RowResult]) -> list[Table]:
    heads = [statistic.label for statistic in STATISTICS.values()]
    tables = [
        Table(
            "Dice on test images [95 % over patients]",
            ["row", *heads, "CPU s, stage 2"],
            [
                [
                    row.scores.row.label,
                    *(interval_text(row.figures[name]) for name in STATISTICS),
                    f"{row.scores.cpu_seconds:,.0f}",
                ]
                for row in rows
            ],
        )
    ]
    if compared := [row for row in rows if row.ours_minus_this]:
        tables.append(
            Table(
                "Discriminative, pretrained, minus each other row, patient by patient",
                ["minus", *heads],
                [
                    [
                        row.scores.row.label,
                        *(interval_text(row.ours_minus_this[n], signed=True) for n in STATISTICS),
                    ]
                    for row in compared
                ],
            )
        )
    return tables


def _notes(study: Study, scores: Sequence[RowScores]) -> list[str]:
    counts = [
        ", ".join(f"{name} {count}" for name, count in fold.counts().items())
        for fold in study.data.folds
    ]
    epochs = scores[0].epochs.shape[1]
    notes = [
        f"Images: {'; '.join(counts)}.",
        f"{len(study.seeds)} trainings per row and fold, {epochs} epochs of stage 2 each. "
        "Intervals: 95 %, bootstrap over test patients; they do not include the variation between "
        "seeds.",
        "All rows use the plan's threshold. Supervised rows see no benign image in stage 2.",
        *(f"{s.label}: {s.meaning}." for s in STATISTICS.values()),
        *study.data.left_out,
    ]
    if epochs < 20:
        notes.append(f"With {epochs} epochs, the first and the last ten overlap.")
    return notes


def _pictures(study: Study, scores: Sequence[RowScores], device: torch.device) -> list[Picture]:
    cases = [case for score in scores for case in _cases(study, score, device)]
    return [
        Picture(
            "curves.png",
            "Training",
            "Mean test Dice by epoch, one line per row",
            "Line: mean over seeds. Band: lowest to highest seed.",
            draw_study_curves({s.row.label: s.epochs.mean(axis=-1) for s in scores}),
        ),
        Picture(
            "figure2.png",
            "Figure 2: best, median and worst test image of each row",
            "Input, subtracted image, output, ground truth and contours of three images per row",
            "At the epoch that validation chose, first seed and fold. Supervised rows subtract "
            "nothing. The pictures show the site's own data: store this page only where the images "
            "may be stored.",
            draw_figure2(cases, study.design.plan.evaluation.threshold),
        ),
    ]


def _cases(study: Study, scores: RowScores, device: torch.device) -> list[Case]:
    """Return a row's best, median and worst test image of the first seed and fold."""
    unit = study.units(scores.row)[0]
    dice = scores.chosen[0][: len(unit.fold.test)]
    order = np.argsort(-dice, kind="stable")
    network = chosen_network(unit, device)
    cases = []
    for index in dict.fromkeys((order[0], order[len(order) // 2], order[-1])):
        sample = unit.fold.test[int(index)]
        (prediction,) = predict(network, [sample], unit.row.plan(unit.plan), device)
        cases.append(Case(scores.row.label, "", "", float(dice[index]), sample, prediction))
    return cases
