"""Define the arms of a comparison, each a federation: federated, local-only and centralised.

Local-only is a federation in which one site trains. Centralised is a federation in which a single
site with everyone's data trains. All arms therefore share the code, the seeds, the number of
epochs and the rule that chooses the best round, and are tested on the same held-out patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mamfed_client.plausibility.cohort import compare_sites
from mamfed_client.preparation.ingest import member_of
from mamfed_client.preparation.overlap import check_apart
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.errors import DataError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.losses import check_loss
from mamfed_common.model.malignancy_net import backbone_of
from mamfed_common.plan import TRAINED_ON, PersonalPlan, Stage, TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.terminal import print_lines
from mamfed_server.aggregation.pooled_scores import mean_dice_at_half_of, mean_dice_of
from mamfed_server.run.run import Job
from mamfed_server.strategy.registry import strategy_of

FEDERATED, LOCAL, CENTRALISED = "federated", "local", "centralised"


@dataclass(frozen=True)
class Arm:
    """One federation of a comparison.

    Attributes:
        name: ``federated``, ``local-NAME`` or ``centralised``.
        sites: All sites that take part, including those that are only tested.
        job: The server's job.
    """

    name: str
    sites: tuple[Site, ...]
    job: Job

    def steps(self, descriptions: Mapping[str, SiteDescription]) -> dict[Stage, int]:
        """Return the training steps per round of each stage, over all training sites."""
        plan, training = self.job.plan, self.job.training_sites
        chosen = [d for site, d in descriptions.items() if training is None or site in training]
        return {
            stage: sum(plan.steps(stage, d.images_used(plan, stage)) for d in chosen)
            for stage in Stage
        }


def federated_arm(sites: Sequence[Site], plan: TrainingPlan, folder: Path) -> Arm:
    """Return the arm of the requested federation."""
    return Arm(FEDERATED, tuple(sites), Job(plan=plan, folder=folder, num_nodes=len(sites)))


def local_arms(
    sites: Sequence[Site],
    descriptions: Mapping[str, SiteDescription],
    plan: TrainingPlan,
    folder: Path,
) -> tuple[list[Arm], dict[str, str]]:
    """Return one arm per site that can train alone, and the reason for each that cannot."""
    arms, not_trained = [], {}
    for site in sites:
        description = descriptions[site.name]
        if not description.images.get(TRAINED_ON[Stage.FINETUNING], {}).get("train", 0):
            not_trained[site.name] = "no annotated malignant training case"
            continue
        alone = frozenset({site.name})
        job = Job(
            plan=_plan_for_one(plan, description),
            folder=folder / "arms" / f"{LOCAL}-{site.name}",
            num_nodes=len(sites),
            arm=LOCAL,
            training_sites=alone,
            validation_sites=alone,
        )
        arms.append(Arm(f"{LOCAL}-{site.name}", tuple(sites), job))
    return arms, not_trained


def centralised_arm(
    sites: Sequence[Site],
    descriptions: Mapping[str, SiteDescription],
    plan: TrainingPlan,
    folder: Path,
) -> Arm:
    """Return the arm that pools all data, which hospitals cannot do: an upper reference.

    It sees as many images in total as the federation. If rounds count steps, the pool takes the
    steps of all sites together; an epoch over the pool has as many images anyway.

    Raises:
        DataError: A site has the name reserved for the pooled site.
    """
    names = frozenset(site.name for site in sites)
    if CENTRALISED in names:
        raise DataError(
            f"site name {CENTRALISED!r} is reserved for the pooled arm; rename the site"
        )
    pooled = Site(CENTRALISED, tuple(c for s in sites for c in s.cohorts), sites[0].cache)
    job = Job(
        plan=_plan_for_all(plan, descriptions),
        folder=folder / "arms" / CENTRALISED,
        num_nodes=len(sites) + 1,
        arm=CENTRALISED,
        training_sites=frozenset({CENTRALISED}),
        validation_sites=names,
        test_sites=names,
    )
    return Arm(CENTRALISED, (*sites, pooled), job)


def leave_one_out_arms(
    sites: Sequence[Site],
    descriptions: Mapping[str, SiteDescription],
    plan: TrainingPlan,
    folder: Path,
) -> list[Arm]:
    """Return one arm per site with malignant images: all others train and choose the checkpoint.

    A single fold may have only images without malignancy to test.
    """
    arms = []
    for site in sites:
        if not sum(descriptions[site.name].images.get("malignant", {}).values()):
            continue
        others = frozenset(other.name for other in sites if other is not site)
        job = Job(
            plan=_with_quorum_of_one(plan),
            folder=folder / f"without-{site.name}",
            num_nodes=len(sites),
            arm="leave-one-out",
            training_sites=others,
            validation_sites=others,
            test_sites=frozenset({site.name}),
        )
        arms.append(Arm(f"without-{site.name}", tuple(sites), job))
    return arms


def merge_local(summaries: Mapping[str, dict[str, Any]], not_trained: dict[str, str]) -> Any:
    """Merge the local arms into one: each site's own model on its own held-out patients.

    Args:
        summaries: ``summary.json`` of each local arm, by the site that trained.
        not_trained: Sites that could not train alone, each with the reason.

    Returns:
        ``mean_dice``, ``mean_dice_at_half`` and ``sites`` as in any arm; ``across`` holds every
        model on every site.
    """
    across = {site: s["arms"][LOCAL]["sites"] for site, s in summaries.items()}
    own = {site: results[site] for site, results in across.items() if site in results}
    scores = {site: SiteScore.model_validate(result) for site, result in own.items()}
    return {
        "mean_dice": mean_dice_of(scores),
        "mean_dice_at_half": mean_dice_at_half_of(scores),
        "sites": own,
        "across": across,
        "not_trained": not_trained,
    }


def describe_sites(
    sites: Sequence[Site], plan: TrainingPlan, *, progress: bool = False
) -> dict[str, SiteDescription]:
    """Prepare every site's data, with a progress bar if ``progress``, and count it.

    Raises:
        DataError: A site's data is unusable, or one site trains on another site's test patients.
        PlanError: A network, a loss or a strategy of the plan cannot be used here.
    """
    _check_extensions(plan)
    data = {site.name: load_site(site, plan, progress=progress) for site in sites}
    # The pooled site repeats the cohorts of all sites with the same split, so it is not compared.
    cohorts = {
        cohort: (site.name if len(site.cohorts) == 1 else f"{site.name}: {cohort[0]}", loaded)
        for site in reversed(sites)
        for cohort, loaded in zip(site.cohorts, data[site.name].cohorts, strict=True)
    }
    notes = check_apart(dict(reversed(cohorts.values())))
    members = {
        site.name: [
            member_of(placed.case.row, placed.case.result)
            for cohort in data[site.name].cohorts
            for placed in cohort.images
        ]
        for site in sites
    }
    print_lines([*notes, *compare_sites(members)] if progress else ())
    return {name: found.describe() for name, found in data.items()}


def _check_extensions(plan: TrainingPlan) -> None:
    """Try what the plan names, before hours of preparing images.

    Raises:
        PlanError: It is not installed here, or fails.
    """
    strategy_of(plan)
    backbone_of(plan.network.name)
    check_loss(plan.losses)


def _plan_for_one(plan: TrainingPlan, description: SiteDescription) -> TrainingPlan:
    """Return the plan for a site that trains alone; a stage without cases is skipped."""
    alone = _without_groups(_with_quorum_of_one(plan))
    if description.images_used(plan, Stage.PRETRAINING):
        return alone
    pretraining = alone.pretraining.model_copy(update={"rounds": 0})
    return alone.model_copy(update={"pretraining": pretraining})


def _plan_for_all(plan: TrainingPlan, descriptions: Mapping[str, SiteDescription]) -> TrainingPlan:
    """Return the plan for the pool of all sites."""
    pooled = _without_groups(_with_quorum_of_one(plan))
    for stage in Stage:
        part = pooled.stage(stage)
        used = [d.images_used(plan, stage) for d in descriptions.values()]
        steps = sum(plan.steps(stage, images) for images in used)
        if part.local_steps is not None and steps:
            counted = part.model_copy(update={"local_steps": steps})
            pooled = pooled.model_copy(update={stage.value: counted})
    return pooled


def _without_groups(plan: TrainingPlan) -> TrainingPlan:
    """Return the plan without norm groups, for an arm in which one site trains."""
    federation = plan.federation.model_copy(update={"norm_groups": {}})
    return plan.model_copy(update={"federation": federation})


def _with_quorum_of_one(plan: TrainingPlan) -> TrainingPlan:
    """Return the plan with a quorum of one and no personal models, for a reference arm."""
    stages = {s.value: plan.stage(s).model_copy(update={"quorum": 1}) for s in Stage}
    return plan.model_copy(update={**stages, "personal": PersonalPlan(steps=0)})
