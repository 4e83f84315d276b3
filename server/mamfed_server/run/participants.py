"""Which sites take part in what, by what they say they have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mamfed_common.domain import EVALUATED_ON, Part, Purpose
from mamfed_common.errors import RunError
from mamfed_common.plan import TRAINED_ON, Stage, TrainingPlan
from mamfed_common.plan.norm_groups import group_of
from mamfed_common.protocol.tasks import REFUSAL_CODES, RefusalCode, SiteDescription
from mamfed_common.runtime.wording import counted
from mamfed_server.run_folder.round_record import RoundRecord

Descriptions = Mapping[str, SiteDescription]
Chosen = Collection[str] | None
"""Names of sites that may take part; None for all."""

NOTHING_TO_ADAPT_WITH = REFUSAL_CODES[RefusalCode.NOTHING_TO_ADAPT_WITH]
CASES = {Stage.PRETRAINING: "benign", Stage.FINETUNING: "annotated malignant"}
"""What a stage is about: without it, whatever stands beside, nothing is learned."""


def stages_of(plan: TrainingPlan) -> list[Stage]:
    """Return the stages that have rounds, in their order."""
    return [stage for stage in Stage if plan.stage(stage).rounds]


def trainers(
    plan: TrainingPlan, descriptions: Descriptions, stage: Stage, chosen: Chosen = None
) -> list[str]:
    """Return the sites that have training cases for a stage."""
    return [s for s, d in _among(descriptions, chosen).items() if d.images_used(plan, stage)]


def evaluators(descriptions: Descriptions, part: Part, chosen: Chosen = None) -> list[str]:
    """Return the sites that hold an image of a part, with malignancy or without."""
    return [
        site
        for site, description in _among(descriptions, chosen).items()
        if any(description.images.get(kind, {}).get(part, 0) for kind in EVALUATED_ON)
    ]


def may_adapt(description: SiteDescription) -> bool:
    """Tell whether a site has malignant images of its own to adapt the final model with."""
    return bool(description.images.get("malignant", {}).get("train", 0))


def first_counts(records: Iterable[RoundRecord], stage: Stage) -> dict[str, Mapping[Purpose, int]]:
    """Return how many images each site used in its first accepted update of a stage."""
    found: dict[str, Mapping[Purpose, int]] = {}
    for record in records:
        if record.stage is stage:
            for site, update in record.accepted.items():
                found.setdefault(site, update.num_examples)
    return found


def check_stages(
    plan: TrainingPlan, descriptions: Descriptions, chosen: Chosen = None
) -> list[str]:
    """Check that each stage has sites enough; return a warning for each that has but one.

    Groups of norms that fit the sites badly are warned of too.

    Raises:
        RunError: A stage has no site, or fewer than its quorum.
    """
    warnings = []
    for stage in stages_of(plan):
        sites, cases = trainers(plan, descriptions, stage, chosen), CASES[stage]
        quorum = plan.stage(stage).quorum
        own = [s for s in sites if TRAINED_ON[stage] in descriptions[s].images_used(plan, stage)]
        if not own:
            raise RunError(f"{stage}: no site has a usable {cases} training case")
        if len(sites) < quorum:
            have = counted(len(sites), "site has", "sites have")
            raise RunError(
                f"{stage}: {have} usable {cases} training cases"
                f"{' or others that it uses' if len(own) < len(sites) else ''}, "
                f"its quorum is {quorum}"
            )
        if len(sites) == 1 and len(_among(descriptions, chosen)) > 1:
            warnings.append(f"{stage}: only {sites[0]} has usable {cases} training cases")
    return warnings + _check_groups(plan, descriptions)


def _check_groups(plan: TrainingPlan, descriptions: Descriptions) -> list[str]:
    groups = plan.federation.norm_groups
    if not groups:
        return []
    empty = [group for group, sites in groups.items() if descriptions.keys().isdisjoint(sites)]
    alone = [site for site in descriptions if group_of(plan, site) is None]
    return [
        *(f"norm_groups: no site of {name} is here; its norms follow the rest" for name in empty),
        *(f"norm_groups: {site} is in no group; it has the norms of all sites" for site in alone),
    ]


def _among(descriptions: Descriptions, chosen: Chosen) -> Descriptions:
    return {site: d for site, d in descriptions.items() if chosen is None or site in chosen}
