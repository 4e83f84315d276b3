"""What a study leaves behind: ``results.json``, ``results.md``, pictures and ``report.html``."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import jinja2
import numpy as np
import torch
from rich.table import Table

from mamfed_common import __version__
from mamfed_common.files import write_atomic
from mamfed_common.training import predict
from mamfed_simulations.figure2 import Case, draw_figure2
from mamfed_simulations.study.curves import draw_study_curves
from mamfed_simulations.study.design import Study
from mamfed_simulations.study.results import STATISTICS, RowScores, results_of, scores_of
from mamfed_simulations.study.trials import chosen_network

Results = dict[str, Any]


def write_report(study: Study, device: torch.device) -> Results:
    """Write everything a finished study has to say; return what ``results.json`` holds."""
    scores = [scores_of(row, study.units(row)) for row in study.rows]
    results: Results = {
        "title": study.title,
        "mamfed_version": __version__,
        "seeds": list(study.seeds),
        "data": study.data.describe(),
        "plan_sha256": study.design.plan.sha256(),
        "rows": results_of(scores),
    }
    cases = [case for score in scores for case in _cases(study, score, device)]
    pictures = {
        "curves.png": draw_study_curves({s.row.label: s.epochs.mean(axis=-1) for s in scores}),
        "figure2.png": draw_figure2(cases, study.design.plan.evaluation.threshold),
    }
    for name, png in pictures.items():
        write_atomic(study.folder / name, png)
    write_atomic(study.folder / "results.json", json.dumps(results, indent=2))
    write_atomic(study.folder / "results.md", _markdown(study, results))
    write_atomic(study.folder / "report.html", _page(study, results, pictures))
    return results


def result_table(results: Mapping[str, Any]) -> Table:
    """Lay out the rows' figures for a terminal."""
    table = Table(title=f"{results['title']}: Dice on test images [95 % over patients]")
    table.add_column("row")
    for statistic in STATISTICS.values():
        table.add_column(statistic.label, justify="right")
    for row in results["rows"].values():
        table.add_row(row["label"], *(interval_text(row[name]) for name in STATISTICS))
    return table


def interval_text(interval: Mapping[str, Any], *, signed: bool = False) -> str:
    """Write ``0.512 [0.430, 0.590]``; one patient has no interval."""
    form = "+.3f" if signed else ".3f"
    if interval["low"] is None:
        return f"{interval['value']:{form}} [n/a]"
    ends = f"{interval['low']:{form}}, {interval['high']:{form}}"
    return f"{interval['value']:{form}} [{ends}]"


def _cases(study: Study, scores: RowScores, device: torch.device) -> list[Case]:
    """Return a row's best, median and worst test image of the first seed and fold."""
    unit = study.units(scores.row)[0]
    dice = scores.chosen[0][: len(unit.fold.test)]
    order = np.argsort(-dice, kind="stable")
    network = chosen_network(unit, device)
    cases = []
    for index in dict.fromkeys((order[0], order[len(order) // 2], order[-1])):
        sample = unit.fold.test[int(index)]
        prediction = predict(network, sample, unit.row.plan(unit.plan), device)
        cases.append(Case(scores.row.label, "", "", float(dice[index]), sample, prediction))
    return cases


def _markdown(study: Study, results: Results) -> str:
    heads = [s.label for s in STATISTICS.values()]
    lines = [
        f"# {results['title']}",
        "",
        f"`{study.command}`",
        "",
        "| row | " + " | ".join(heads) + " | CPU s, stage 2 |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for row in results["rows"].values():
        cells = [interval_text(row[name]) for name in STATISTICS]
        seconds = f"{row['training_cpu_seconds']:,.0f}"
        lines.append("| " + " | ".join([row["label"], *cells, seconds]) + " |")
    lines += ["", *_differences(results), "", *(f"- {line}" for line in _notes(study, results))]
    return "\n".join(lines) + "\n"


def _differences(results: Results) -> list[str]:
    """Return our row minus each other, paired by patient, as a Markdown table."""
    others = [row for row in results["rows"].values() if "ours_minus_this" in row["max"]]
    if not others:
        return []
    heads = [s.label for s in STATISTICS.values()]
    rows = [
        "| "
        + " | ".join(
            [
                f"minus {row['label']}",
                *(interval_text(row[n]["ours_minus_this"], signed=True) for n in STATISTICS),
            ]
        )
        + " |"
        for row in others
    ]
    return [
        "| discriminative, pretrained | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 1) + "|",
        *rows,
    ]


def _notes(study: Study, results: Results) -> list[str]:
    folds = results["data"]["folds"]
    counts = "; ".join(", ".join(f"{n} {name}" for name, n in fold.items()) for fold in folds)
    epochs = next(iter(results["rows"].values()))["epochs"]
    notes = [
        f"Images: {counts}.",
        f"{len(study.seeds)} trainings a row and fold, {epochs} epochs of stage 2 each. Intervals: "
        "95 %, bootstrap over test patients; they do not hold the seeds' own scatter.",
        *(f"{s.label}: {s.meaning}." for s in STATISTICS.values()),
        *study.data.left_out,
    ]
    if epochs < 20:
        notes.append(f"With {epochs} epochs the first and the last ten overlap.")
    return notes


def _page(study: Study, results: Results, pictures: Mapping[str, bytes]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mamfed_simulations"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["interval"] = interval_text
    return environment.get_template("study.html.j2").render(
        results=results,
        statistics=STATISTICS,
        notes=_notes(study, results),
        command=study.command,
        plan=study.design.plan.to_yaml(),
        pictures={name: base64.b64encode(png).decode() for name, png in pictures.items()},
    )
