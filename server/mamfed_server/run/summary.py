"""Build ``summary.json``, the record of how a run ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.metrics.small_numbers import cautions
from mamfed_server.aggregation.pooled_scores import mean_dice_at_half_of, mean_dice_of
from mamfed_server.run.checkpoint_selection import Selection
from mamfed_server.run.evaluation_round import Scores
from mamfed_server.run.job import Job
from mamfed_server.run.participants import stages_of
from mamfed_server.run.roster import Roster
from mamfed_server.run.state import kept_checkpoint
from mamfed_server.run_folder.attendance import attendance
from mamfed_server.run_folder.folder import RunFolder

PERSONAL = "personal"
"""The arm of the sites' personal models, next to the run's own arm."""


def summarise_run(
    job: Job,
    roster: Roster,
    selection: Selection,
    test_scores: Mapping[str, SiteScore],
    personal: Scores,
    warnings: list[str],
) -> dict[str, Any]:
    """Return who took part, who is missing, the chosen checkpoint and the test results.

    Args:
        job: The run's job.
        roster: The sites that described their data.
        selection: The selection of the best round.
        test_scores: Scores on held-out patients, by site.
        personal: Scores of the personal models, and for each site without one the reason.
        warnings: All warnings of the run.
    """
    folder = RunFolder(job.folder)
    rounds = folder.rounds()
    choice = selection.choice
    chosen = choice.chosen
    arms = {job.arm: _arm(test_scores)}
    if personal.scores or personal.failures:
        arms[PERSONAL] = {**_arm(personal.scores), "not_trained": personal.failures}
    stages = {stage: list(roster.trainers(stage)) for stage in stages_of(job.plan)}
    descriptions = roster.descriptions
    return {
        "complete": not any(line.missed for line in attendance(rounds, stages, descriptions)),
        "arms": arms,
        "checkpoint": str(kept.path.resolve()) if (kept := kept_checkpoint(folder)) else None,
        "checkpoint_chosen_by": choice.why(),
        "chosen_round": chosen and chosen.server_round,
        "mean_validation_dice": chosen and chosen.mean_validation_dice,
        "pooled_validation_dice": chosen and chosen.pooled_validation_dice,
        "validation_images": chosen and chosen.validation_images,
        "threshold": choice.chosen_threshold or job.plan.evaluation.threshold,
        "threshold_from": "validation" if choice.chosen_threshold else "plan",
        "plan_sha256": job.plan.sha256(),
        "stages": stages,
        "sites": {site: d.model_dump() for site, d in descriptions.items()},
        "rounds": len(rounds),
        "warnings": warnings,
        "cautions": cautions({site: score.images or 0 for site, score in test_scores.items()}),
    }


def _arm(scores: Mapping[str, SiteScore]) -> dict[str, Any]:
    sites = {site: score.model_dump() for site, score in scores.items()}
    return {
        "mean_dice": mean_dice_of(scores),
        "mean_dice_at_half": mean_dice_at_half_of(scores),
        "sites": sites,
    }
