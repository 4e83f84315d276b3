"""How a run ended: what ``summary.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mamfed_common.metrics import SiteScore
from mamfed_server.job import Job
from mamfed_server.participants import stages_of
from mamfed_server.roster import Roster
from mamfed_server.rounds import mean_dice_at_half_of, mean_dice_of
from mamfed_server.runs import LATEST, PREVIOUS, RunFolder
from mamfed_server.selection import Selection


def summarise_run(
    job: Job,
    roster: Roster,
    selection: Selection,
    test_scores: Mapping[str, SiteScore],
    warnings: list[str],
) -> dict[str, Any]:
    """Say who took part, what was left out and what came out.

    Args:
        job: What was asked.
        roster: The sites that described themselves.
        selection: The choice of the best round.
        test_scores: Results on held-out patients, by site.
        warnings: All warnings of the run.
    """
    folder = RunFolder(job.folder)
    rounds = folder.rounds()
    sites = {site: score.model_dump() for site, score in test_scores.items()}
    choice = selection.choice
    chosen = choice.chosen
    return {
        "complete": not any(record.refused for record in rounds),
        "arms": {
            job.arm: {
                "mean_dice": mean_dice_of(test_scores),
                "mean_dice_at_half": mean_dice_at_half_of(test_scores),
                "sites": sites,
            }
        },
        "checkpoint": _result_path(folder),
        "checkpoint_chosen_by": choice.why(),
        "chosen_round": chosen and chosen.server_round,
        "mean_validation_dice": chosen and chosen.mean_validation_dice,
        "pooled_validation_dice": chosen and chosen.pooled_validation_dice,
        "validation_images": chosen and chosen.validation_images,
        "threshold": choice.chosen_threshold or job.plan.evaluation.threshold,
        "threshold_from": "validation" if choice.chosen_threshold else "plan",
        "plan_sha256": job.plan.sha256(),
        "stages": {stage: list(roster.trainers(stage)) for stage in stages_of(job.plan)},
        "sites": {site: d.model_dump() for site, d in roster.descriptions.items()},
        "rounds": len(rounds),
        "warnings": warnings,
    }


def _result_path(folder: RunFolder) -> str | None:
    """Return the best checkpoint, or in a run that failed before it the latest one."""
    paths = [folder.checkpoint_path(name) for name in ("best", LATEST, PREVIOUS)]
    return next((str(path.resolve()) for path in paths if path.exists()), None)
