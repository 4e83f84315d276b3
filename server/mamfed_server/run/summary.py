"""How a run ended: what ``summary.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mamfed_common.metrics.scores import SiteScore
from mamfed_common.metrics.small_numbers import cautions
from mamfed_server.run.checkpoint_selection import Selection
from mamfed_server.run.job import Job
from mamfed_server.run.participants import stages_of
from mamfed_server.run.roster import Roster
from mamfed_server.run.state import kept_checkpoint
from mamfed_server.run.training_round import Scores, mean_dice_at_half_of, mean_dice_of
from mamfed_server.run_folder.attendance import attendance
from mamfed_server.run_folder.folder import RunFolder

PERSONAL = "personal"
"""The arm of the sites' own models, beside the run's own."""


def summarise_run(
    job: Job,
    roster: Roster,
    selection: Selection,
    test_scores: Mapping[str, SiteScore],
    personal: Scores,
    warnings: list[str],
) -> dict[str, Any]:
    """Say who took part, what was left out and what came out.

    Args:
        job: What was asked.
        roster: The sites that described themselves.
        selection: The choice of the best round.
        test_scores: Results on held-out patients, by site.
        personal: Those of the sites' own models, and why a site has none.
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
