"""Compare finished or unfinished runs: their plans, results and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from mamfed_common import __version__
from mamfed_common.errors import DataError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.metrics.small_numbers import MARK, cautions, few_patients
from mamfed_common.plan import Stage
from mamfed_common.runtime.files import DRAFT
from mamfed_common.runtime.fingerprint import flattened, formatted
from mamfed_common.runtime.lock import LOCK
from mamfed_server.report.data import ReportData, read_run
from mamfed_server.report.figures import (
    DASHES,
    SITE_COLOURS,
    SITE_MARKERS,
    frame,
    to_png,
)
from mamfed_server.report.results import ArmResult, dice_text, read_arms, read_sites
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_simulations.reporting.pages import Account, Picture, Table

CURVES = "curves.png"
NO_FIGURE = "n/a"


class Run(NamedTuple):
    """One run.

    Attributes:
        name: Name of the run in this comparison.
        folder: The run folder.
        report: Content of the folder.
        arms: Results by arm, the federated one first.
    """

    name: str
    folder: Path
    report: ReportData
    arms: tuple[ArmResult, ...]

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Hashes of each site's images and their split; sites that withhold them are omitted."""
        sites = read_sites(self.report.summary)
        return {name: site.splits for name, site in sites.items() if site.splits}


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read runs; each is named after its folder, or by its path if two names are equal.

    Raises:
        DataError: A folder is not a run folder, or is damaged.
        PlanError: A plan is damaged.
    """
    folders = list(dict.fromkeys(folders))
    names = [folder.resolve().name for folder in folders]
    runs = []
    for folder, name in zip(folders, names, strict=True):
        if not RunFolder(folder).holds_run():
            raise DataError(
                f"{folder}: no run folder; expected the output of run, demo or mamfed-server start"
            )
        report = read_run(folder)
        unique_name = name if names.count(name) == 1 else str(folder)
        runs.append(Run(unique_name, folder, report, tuple(reversed(read_arms(report.summary)))))
    return runs


def account_of(runs: Sequence[Run], command: str) -> Account:
    """Return the tables, curves and warnings for runs."""
    return Account(
        title=f"mamfed runs: {', '.join(run.name for run in runs)}",
        command=command,
        plans={run.name: run.report.plan for run in runs},
        tables=[_ends(runs), _dice(runs), *_differences(runs)],
        notes=[
            "Dice of held-out images with malignancy at the threshold that validation chose, with "
            "95 % intervals over patients where a simulation scored image by image.",
            "Differences between runs have no intervals here; mamfed-simulate experiment "
            "federation compares arms image by image.",
        ],
        verdicts=unlike(runs),
        pictures=[
            Picture(
                CURVES,
                "Validation Dice and loss by round",
                "One line per run: mean validation Dice of stage 2, and mean training loss of each "
                "stage",
                "Mean over each run's sites. Curves of runs with different validation patients "
                "are not comparable.",
                draw_runs({run.name: run.report.rounds for run in runs}),
            )
        ],
    )


def is_ours(folder: Path) -> bool:
    """Return whether an earlier call wrote ``folder``: it has our lock and only our files."""
    names = {path.name for path in folder.iterdir() if not path.name.endswith(DRAFT)}
    return LOCK in names <= {LOCK, "results.json", "results.md", "report.html", CURVES}


def unlike(runs: Sequence[Run]) -> list[str]:
    """Return warnings about figures that may not be comparable.

    Reasons are different test patients, few images, and unfinished runs.
    """
    lines = [
        f"{run.name} {run.report.state.clause}{_because(run)}."
        for run in runs
        if not run.report.ended_well
    ]
    first, *others = runs
    for run in others:
        for site in sorted(first.splits.keys() & run.splits.keys()):
            if first.splits[site] != run.splits[site]:
                lines.append(
                    f"{site} is split differently in {run.name} than in {first.name}: the test "
                    "patients differ, so figures are not comparable."
                )
        if only := sorted(_sites(first) ^ _sites(run)):
            lines.append(
                f"{', '.join(only)}: in only one of {first.name} and {run.name}; means over sites "
                "cover different sites."
            )
    small_numbers = [line for run in runs for line in cautions(_image_counts(run))]
    return lines + list(dict.fromkeys(small_numbers))


def results_of(runs: Sequence[Run], verdicts: Sequence[str]) -> dict[str, Any]:
    """Return the content of ``results.json``."""
    return {
        "mamfed_version": __version__,
        "verdicts": list(verdicts),
        "plan_differences": {row[0]: list(row[1:]) for t in _differences(runs) for row in t.rows},
        "runs": {
            run.name: {
                "folder": str(run.folder),
                "status": str(run.report.state),
                "plan_sha256": run.report.plan.sha256(),
                "rounds": len(run.report.rounds),
                "seconds": run.report.summary["seconds"],
                "arms": run.report.summary["arms"],
                "intervals": {
                    site: {**i.model_dump(), "few_patients": few_patients(i.patients)}
                    for site, i in run.report.notes.intervals.items()
                },
                "validation": [
                    {"stage": r.stage, "round": r.server_round, "dice": r.mean_validation_dice}
                    for r in run.report.rounds
                    if r.mean_validation_dice is not None
                ],
            }
            for run in runs
        },
    }


def draw_runs(rounds: Mapping[str, Sequence[RoundRecord]]) -> bytes:
    """Return a PNG with one line per run: mean validation Dice and the losses of both stages."""
    figure = Figure(figsize=(9, 7.4), layout="constrained")
    panels = figure.subplot_mosaic(
        [[Stage.PRETRAINING, Stage.FINETUNING], ["dice", "dice"]], height_ratios=(1, 1.25)
    )
    for number, stage in enumerate(Stage, start=1):
        frame(panels[stage], f"Stage {number}, {stage}: training loss")
    frame(panels["dice"], "Stage 2, finetuning: mean Dice on validation patients")
    panels["dice"].set_ylim(-0.02, 1.02)
    for index, (name, records) in enumerate(rounds.items()):
        look: dict[str, Any] = {
            "label": name.replace("$", r"\$"),
            "color": SITE_COLOURS[index % len(SITE_COLOURS)],
            "marker": SITE_MARKERS[index % len(SITE_MARKERS)],
            "markersize": 4,
            "dashes": ((), *DASHES)[index % (1 + len(DASHES))],
        }
        for stage in Stage:
            points = [(r.server_round, _loss(r)) for r in records if r.stage is stage]
            panels[stage].plot(*_columns(points), **look)
        scored = [
            (r.server_round, r.mean_validation_dice)
            for r in records
            if r.mean_validation_dice is not None
        ]
        panels["dice"].plot(*_columns(scored), **look)
    handles, labels = panels["dice"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return to_png(figure)


def _because(run: Run) -> str:
    reason = run.report.summary["reason"]
    return f": {reason}" if reason else ""


def _columns(points: Sequence[tuple[int, float | None]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [math.nan if y is None else y for _, y in points]


def _loss(record: RoundRecord) -> float | None:
    """Return a round's mean loss, weighted like its updates; None if a site withholds its loss."""
    losses = [(c.share, c.loss) for c in record.accepted.values()]
    known = [share * loss for share, loss in losses if loss is not None]
    return sum(known) if known and len(known) == len(losses) else None


def _ends(runs: Sequence[Run]) -> Table:
    rows = [
        [
            run.name,
            str(run.report.state),
            f"{len(run.report.rounds)} of {run.report.plan.rounds}",
            dice_text(run.report.summary["pooled_validation_dice"]),
            f"{run.report.threshold:g}",
            f"{run.report.summary['seconds']:,.0f}",
        ]
        for run in runs
    ]
    heads = ["run", "status", "rounds", "validation Dice, all images", "threshold", "seconds"]
    return Table("Runs", heads, rows)


def _dice(runs: Sequence[Run]) -> Table:
    """Return one line per run and arm, with one column per site."""
    sites = sorted({site for run in runs for arm in run.arms for site in arm.rated})
    rows = []
    for run in runs:
        for arm in run.arms:
            name = run.name if len(run.arms) == 1 else f"{run.name}: {arm.label}"
            cells = [_cell(run, arm, site) for site in sites]
            rows.append([name, *cells, dice_text(arm.mean_dice)])
    return Table("Held-out Dice (images)", ["run", *sites, "mean over sites"], rows)


def _cell(run: Run, arm: ArmResult, site: str) -> str:
    score: SiteScore | None = arm.scores.get(site)
    if score is None or score.dice is None:
        return NO_FIGURE
    ends, interval = "", run.report.notes.intervals.get(site)
    if arm.name == "federated" and interval and interval.low is not None:
        mark = MARK * few_patients(interval.patients)
        ends = f" [{interval.low:.2f}, {interval.high:.2f}]{mark}"
    return f"{dice_text(score.dice)}{ends} ({score.images})"


def _differences(runs: Sequence[Run]) -> list[Table]:
    """Return a table of the keys in which the plans differ; no table if all are equal."""
    plans = [dict(flattened(run.report.plan.model_dump(mode="json"))) for run in runs]
    keys = dict.fromkeys(key for plan in plans for key in plan)
    rows = [
        [key, *(formatted(plan.get(key)) for plan in plans)]
        for key in keys
        if any(plan.get(key) != plans[0].get(key) for plan in plans)
    ]
    heads = ["key", *(run.name for run in runs)]
    return [Table("Differences between the plans", heads, rows)] if rows else []


def _sites(run: Run) -> set[str]:
    return {site for arm in run.arms for site in arm.rated}


def _image_counts(run: Run) -> dict[str, int]:
    first = run.arms[0].scores if run.arms else {}
    return {site: score.images or 0 for site, score in first.items() if score.dice is not None}
