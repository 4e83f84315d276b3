"""The federations of a comparison: one or more for each arm and repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mamfed_common.protocol.tasks import SiteDescription
from mamfed_simulations.comparison.design import (
    CENTRALISED,
    FEDAVG,
    LEAVE_ONE_OUT,
    LOCAL,
    PERSONAL,
    Comparison,
    Repeat,
)
from mamfed_simulations.comparison.scores import Model
from mamfed_simulations.federation.arms import (
    Arm,
    centralised_arm,
    federated_arm,
    leave_one_out_arms,
    local_arms,
)


@dataclass(frozen=True, eq=False)
class Federation:
    """One federation of a comparison.

    Attributes:
        name: The arm that it belongs to.
        repeat: The repetition.
        arm: The federation to run.
        measured: The sites on which its model is tested.
    """

    name: str
    repeat: Repeat
    arm: Arm
    measured: tuple[str, ...]

    def models(self) -> dict[str, Model]:
        """Return the model to test at each site; sites without a personal model are omitted."""
        job, personal = self.arm.job, self.name == PERSONAL
        models = {site: Model(job.folder, job.plan, site, personal) for site in self.measured}
        return {
            site: model for site, model in models.items() if model.path.exists() or not personal
        }


def planned(comparison: Comparison) -> tuple[list[Federation], dict[str, dict[str, str]]]:
    """Return all federations and, by arm, why some site has none."""
    missing: dict[str, dict[str, str]] = {}
    all_federations: list[Federation] = []
    for name in comparison.arms:
        of_arm, missing[name] = _federations_of(comparison, name)
        all_federations += of_arm
    return all_federations, missing


def arms_of(planned_federations: Sequence[Federation]) -> list[Arm]:
    """Return the arms to train, each once: personal models are made by the fedavg federation."""
    by_folder = {f.arm.job.folder: f.arm for f in planned_federations}
    return [replace(arm, job=replace(arm.job, resume=True)) for arm in by_folder.values()]


def federations(
    comparison: Comparison, name: str, repeat: Repeat, descriptions: Mapping[str, SiteDescription]
) -> tuple[list[Federation], dict[str, str]]:
    """Return the federations of an arm in one repetition, and why a site has none."""
    trained_arm = FEDAVG if name == PERSONAL else name
    sites, folder = comparison.sites, comparison.out / f"{trained_arm}-{repeat.folder}"
    plan = comparison.plan_of(repeat, name)
    everywhere = tuple(site.name for site in sites)

    def federation(arm: Arm, measured: tuple[str, ...]) -> Federation:
        return Federation(name, repeat, arm, measured)

    if name == LOCAL:
        arms, reasons = local_arms(sites, descriptions, plan, folder)
        return [federation(a, tuple(a.job.training_sites or ())) for a in arms], reasons
    if name == LEAVE_ONE_OUT:
        arms = leave_one_out_arms(sites, descriptions, plan, folder)
        return [federation(a, tuple(a.job.test_sites or ())) for a in arms], {}
    if name == CENTRALISED:
        return [federation(centralised_arm(sites, descriptions, plan, folder), everywhere)], {}
    return [federation(federated_arm(sites, plan, folder), everywhere)], {}


def _federations_of(comparison: Comparison, name: str) -> tuple[list[Federation], dict[str, str]]:
    of_arm: list[Federation] = []
    missing: dict[str, str] = {}
    for repeat in comparison.repeats:
        of_repeat, reasons = federations(comparison, name, repeat, comparison.describe(repeat))
        of_arm += of_repeat
        where = "" if repeat.fold is None else f", fold {repeat.fold}"
        missing |= {f"{site}{where}": reason for site, reason in reasons.items()}
    return of_arm, missing
