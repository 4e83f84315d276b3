"""Compare ways to train over several sites, tested on every site's test patients.

Each arm, seed and fold is a federation with its own folder, so the same command resumes after a
kill. A failed arm is reported and does not affect the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mamfed_common.errors import MamfedError, PlanError
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.comparison.design import PERSONAL, Comparison, Repeat
from mamfed_simulations.comparison.federations import Federation, arms_of, planned
from mamfed_simulations.comparison.scores import (
    SiteResult,
    SiteScores,
    result_of,
    score_models,
)
from mamfed_simulations.federation.arm_pool import train_arms
from mamfed_simulations.federation.fingerprints import check_fingerprints
from mamfed_simulations.federation.hardware import set_threads
from mamfed_simulations.reporting.progress import Progress

Measured = Mapping[str, SiteScores] | MamfedError


class ArmOutcome(NamedTuple):
    """The results of an arm.

    Attributes:
        sites: Its result at each tested site.
        missing: The reason for each site, or site and repetition, without a result.
        failed: Whether any of its federations failed.
    """

    sites: dict[str, SiteResult]
    missing: dict[str, str]
    failed: bool = False


def compare(comparison: Comparison, progress: Progress) -> dict[str, ArmOutcome]:
    """Train every unfinished arm and repetition in parallel, and score all of them.

    Returns:
        Outcomes by arm.

    Raises:
        OutputError: The folder holds a comparison of other data, plan or options.
    """
    planned_federations, missing = planned(comparison)
    errors = _train(comparison, planned_federations, progress)
    measured = _measure(comparison, planned_federations, errors, progress)
    return {
        name: _outcome(comparison, {f: m for f, m in measured.items() if f.name == name}, reasons)
        for name, reasons in missing.items()
    }


def _train(
    comparison: Comparison, planned_federations: Sequence[Federation], progress: Progress
) -> dict[Path, MamfedError | None]:
    """Run or resume federations; return the error of each, or None, by folder."""
    arms = arms_of(planned_federations)
    repeats = {f.arm.job.folder: f.repeat for f in planned_federations}
    check_fingerprints(comparison.out, arms, comparison.machine).write(comparison.out)
    trained = train_arms(
        arms,
        comparison.machine,
        progress,
        keep_going=True,
        title=lambda arm: f"{arm.name} {repeats[arm.job.folder].folder}",
    )
    for result in trained:
        if isinstance(result.error, PlanError):  # the folder holds another plan's comparison
            raise result.error
    return {result.arm.job.folder: result.error for result in trained}


def _measure(
    comparison: Comparison,
    planned_federations: Sequence[Federation],
    errors: Mapping[Path, MamfedError | None],
    progress: Progress,
) -> dict[Federation, Measured]:
    """Score the models of federations, with as many threads as there were workers."""
    set_threads(comparison.machine)

    def measure(federation: Federation) -> Measured:
        error = errors[federation.arm.job.folder]
        if error is not None:
            return error
        try:
            return score_models(federation.models(), comparison.sites, comparison.machine.device)
        except MamfedError as scoring_error:
            return scoring_error

    with ThreadPoolExecutor(comparison.machine.workers) as pool:
        results = pool.map(measure, planned_federations)
        measured = dict(zip(planned_federations, results, strict=True))
    scored = [result for result in measured.values() if isinstance(result, Mapping)]
    kept = [site_scores.kept for result in scored for site_scores in result.values()]
    if any(kept):
        progress.say(f"{sum(kept)} of {len(kept)} models already scored on the same images")
    for federation, result in measured.items():
        if isinstance(result, MamfedError):
            progress.say(f"{federation.name}, {federation.arm.name}, {federation.repeat}: {result}")
    return measured


def _outcome(
    comparison: Comparison, measured: Mapping[Federation, Measured], missing: dict[str, str]
) -> ArmOutcome:
    """Collect an arm's results; a seed counts at a site only if all its folds were scored."""
    scored: dict[str, dict[Repeat, SiteScores]] = {}
    failed = False
    for federation, result in measured.items():
        if isinstance(result, MamfedError):
            failed = True
            missing |= {f"{s}, {federation.repeat}": str(result) for s in federation.measured}
            continue
        for site in federation.measured:
            if site in result:
                scored.setdefault(site, {})[federation.repeat] = result[site]
            else:
                missing[f"{site}, {federation.repeat}"] = _why_no_model(federation, site)
    results = {}
    for site, by_repeat in sorted(scored.items()):
        by_seed = {
            seed: [by_repeat.get(r) for r in comparison.repeats if r.seed == seed]
            for seed in comparison.seeds
        }
        complete = {
            seed: [fold for fold in folds if fold is not None]
            for seed, folds in by_seed.items()
            if None not in folds
        }
        if complete:
            results[site] = result_of(complete)
    return ArmOutcome(results, missing, failed)


def _why_no_model(federation: Federation, site: str) -> str:
    """Return why a site has no personal model, from the federation's summary."""
    summary = RunFolder(federation.arm.job.folder).read_summary()
    reasons = summary["arms"].get(PERSONAL, {}).get("not_trained", {})
    return str(reasons.get(site, "the site has no personal model"))
