"""The federated table: ways to train over several sites, measured at each site's test patients.

Each arm, seed and fold is a federation of its own in a folder of its own, so the same command goes
on where it was killed. An arm that fails costs that arm, and is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mamfed_client.preparation.site_data import Site
from mamfed_common.errors import MamfedError, PlanError
from mamfed_common.plan import TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.output_checks import check_folder, check_outside
from mamfed_server.run_folder.folder import MARK, RunFolder
from mamfed_simulations.comparison.scores import (
    Model,
    SiteResult,
    SiteScores,
    result_of,
    score_models,
)
from mamfed_simulations.federation.arm_pool import ArmHardware, set_threads, train_arms
from mamfed_simulations.federation.arms import (
    Arm,
    centralised_arm,
    describe_sites,
    federated_arm,
    leave_one_out_arms,
    local_arms,
)
from mamfed_simulations.federation.fingerprints import ARMS as ARMS_FILE
from mamfed_simulations.federation.fingerprints import check_fingerprints
from mamfed_simulations.federation.readiness import check_nobody_works
from mamfed_simulations.reporting.progress import Progress

LOCK = "comparison.lock"
Measured = Mapping[str, SiteScores] | MamfedError

LOCAL, CENTRALISED, FEDAVG, PERSONAL, FEDPROX, FEDBN, LEAVE_ONE_OUT = ARMS = (
    "local",
    "centralised",
    "fedavg",
    "personal",
    "fedprox",
    "fedbn",
    "leave-one-out",
)
MEANINGS = {
    LOCAL: "each site trains alone and is measured at its own patients",
    CENTRALISED: "all data pooled, which hospitals cannot do",
    FEDAVG: "the federation as it is",
    PERSONAL: "what each site made of fedavg's model for its own patients; no other training",
    FEDPROX: "each site's weights are held near the round's start",
    FEDBN: "each site keeps its own instance norms",
    LEAVE_ONE_OUT: "what a new hospital may expect: the others train, it is measured",
}


class Repeat(NamedTuple):
    """One repetition of every arm.

    Attributes:
        seed: Its seed's number.
        fold: Which of the folds it tests; None where patients are divided once.
    """

    seed: int
    fold: int | None

    @property
    def folder(self) -> str:
        """The end of its folders' names."""
        return f"seed{self.seed}" if self.fold is None else f"seed{self.seed}-fold{self.fold}"

    def __str__(self) -> str:
        """Name it for people."""
        return f"seed {self.seed}" if self.fold is None else f"seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True)
class Comparison:
    """What to compare.

    Attributes:
        sites: The sites.
        plan: The plan; each repetition replaces its seed. Who is held out depends on the fold only.
        out: Folder of the comparison.
        arms: Some of ``ARMS``.
        seeds: One federation an arm and seed, or one an arm, seed and fold.
        proximal_mu: FedProx's weight where the plan has none.
        machine: What federations are trained with.
        folds: Every patient is tested once in so many folds; None divides patients once.
    """

    sites: tuple[Site, ...]
    plan: TrainingPlan
    out: Path
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    proximal_mu: float
    machine: ArmHardware
    folds: int | None = None

    @property
    def repeats(self) -> list[Repeat]:
        """All repetitions, the folds of a seed one after the other."""
        folds = [None] if self.folds is None else range(self.folds)
        return [Repeat(seed, fold) for seed in self.seeds for fold in folds]

    def plan_of(self, repeat: Repeat, arm: str = FEDAVG) -> TrainingPlan:
        """Return the plan that an arm follows: only what the arm is about differs.

        Every fold has a training seed of its own: more seeds are tried for the same computing.
        """
        mu = self.plan.federation.proximal_mu or self.proximal_mu
        update: dict[str, object] = {
            "proximal_mu": mu if arm == FEDPROX else 0.0,
            "local_norms": arm == FEDBN,
        }
        if arm == FEDBN:  # each site is a group of its own
            update["norm_groups"] = {}
        federation = self.plan.federation.model_copy(update=update)
        personal = self.plan.personal
        if arm not in (FEDAVG, PERSONAL):
            personal = personal.model_copy(update={"steps": 0})
        seed, evaluation = repeat.seed, self.plan.evaluation
        if self.folds is not None and repeat.fold is not None:
            seed = repeat.seed * self.folds + repeat.fold
            division = {"folds": self.folds, "fold": repeat.fold}
            evaluation = evaluation.model_copy(update=division)
        changed = {"seed": seed, "federation": federation, "evaluation": evaluation}
        return self.plan.model_copy(update={**changed, "personal": personal})

    def describe(self, repeat: Repeat, *, progress: bool = False) -> dict[str, SiteDescription]:
        """Prepare every site's images for a repetition, and count them.

        Raises:
            DataError: A site has no usable image, or too few patients for so many folds.
        """
        return describe_sites(self.sites, self.plan_of(repeat), progress=progress)


def check_place(comparison: Comparison) -> None:
    """Refuse a place for a comparison before its images are prepared.

    Raises:
        OutputError: It lies in a site's data, or holds something else.
        SetupError: Another process works in it.
    """
    check_outside(comparison.out, [f for site in comparison.sites for _, f in site.cohorts])
    check_folder(
        comparison.out,
        lambda out: (
            not (out / MARK).exists()  # a run has arms too
            and any((out / name).exists() for name in (ARMS_FILE, LOCK))
        ),
        "comparison",
    )
    check_nobody_works(comparison.out / LOCK, comparison.out, "this comparison")


class ArmOutcome(NamedTuple):
    """What came of an arm.

    Attributes:
        sites: Its result at each site that was measured.
        missing: The reason for each site, or site and repetition, without a result.
        failed: Whether a federation of it failed.
    """

    sites: dict[str, SiteResult]
    missing: dict[str, str]
    failed: bool = False


@dataclass(frozen=True, eq=False)
class Federation:
    """One federation of a comparison.

    Attributes:
        name: The arm that it belongs to.
        repeat: Which repetition.
        arm: What to run.
        measured: The sites where its model counts.
    """

    name: str
    repeat: Repeat
    arm: Arm
    measured: tuple[str, ...]

    def models(self) -> dict[str, Model]:
        """Return the model that each site is measured with; a site may have none of its own."""
        job, personal = self.arm.job, self.name == PERSONAL
        found = {site: Model(job.folder, job.plan, site, personal) for site in self.measured}
        return {site: model for site, model in found.items() if model.path.exists() or not personal}


def compare(comparison: Comparison, progress: Progress) -> dict[str, ArmOutcome]:
    """Train every arm and repetition that is not done yet, side by side, and measure all.

    Returns:
        Outcomes by arm.

    Raises:
        OutputError: The folder holds a comparison of other data, plan or options.
    """
    made, missing = planned(comparison)
    measured = _measure(comparison, made, _train(comparison, made, progress), progress)
    return {
        name: _outcome(comparison, {f: m for f, m in measured.items() if f.name == name}, reasons)
        for name, reasons in missing.items()
    }


def planned(comparison: Comparison) -> tuple[list[Federation], dict[str, dict[str, str]]]:
    """Return all federations, and by arm why some site has none."""
    missing: dict[str, dict[str, str]] = {}
    made: list[Federation] = []
    for name in comparison.arms:
        of_arm, missing[name] = _federations_of(comparison, name)
        made += of_arm
    return made, missing


def arms_of(made: Sequence[Federation]) -> list[Arm]:
    """Return what is trained, each once: personal models come of fedavg's."""
    once = {f.arm.job.folder: f.arm for f in made}
    return [replace(arm, job=replace(arm.job, resume=True)) for arm in once.values()]


def kept_lines(comparison: Comparison) -> list[str]:
    """Say what an interrupted comparison has left."""
    folders = [RunFolder(path.parent) for path in sorted(comparison.out.glob(f"**/{MARK}"))]
    finished = sum(folder.is_finished() for folder in folders)
    rounds = sum(len(folder.rounds()) for folder in folders)
    if not folders:
        return ["kept: the images that are prepared; no training has begun"]
    return [
        f"kept in {comparison.out}: {finished} finished trainings and {len(folders) - finished} "
        f"begun, {rounds} rounds in all"
    ]


def federations(
    comparison: Comparison, name: str, repeat: Repeat, descriptions: Mapping[str, SiteDescription]
) -> tuple[list[Federation], dict[str, str]]:
    """Return the federations of an arm with a repetition, and why a site has none."""
    trained = FEDAVG if name == PERSONAL else name
    sites, folder = comparison.sites, comparison.out / f"{trained}-{repeat.folder}"
    plan = comparison.plan_of(repeat, name)
    everywhere = tuple(site.name for site in sites)

    def made(arm: Arm, measured: tuple[str, ...]) -> Federation:
        return Federation(name, repeat, arm, measured)

    if name == LOCAL:
        arms, reasons = local_arms(sites, descriptions, plan, folder)
        return [made(a, tuple(a.job.training_sites or ())) for a in arms], reasons
    if name == LEAVE_ONE_OUT:
        left = leave_one_out_arms(sites, descriptions, plan, folder)
        return [made(a, tuple(a.job.test_sites or ())) for a in left], {}
    if name == CENTRALISED:
        return [made(centralised_arm(sites, descriptions, plan, folder), everywhere)], {}
    return [made(federated_arm(sites, plan, folder), everywhere)], {}


def _federations_of(comparison: Comparison, name: str) -> tuple[list[Federation], dict[str, str]]:
    found: list[Federation] = []
    missing: dict[str, str] = {}
    for repeat in comparison.repeats:
        made, reasons = federations(comparison, name, repeat, comparison.describe(repeat))
        found += made
        where = "" if repeat.fold is None else f", fold {repeat.fold}"
        missing |= {f"{site}{where}": reason for site, reason in reasons.items()}
    return found, missing


def _train(
    comparison: Comparison, made: Sequence[Federation], progress: Progress
) -> dict[Path, MamfedError | None]:
    """Run federations, or what is left of them; return what each failed by, by its folder."""
    arms, repeats = arms_of(made), {f.arm.job.folder: f.repeat for f in made}
    held = check_fingerprints(comparison.out, arms, comparison.machine)
    held.write(comparison.out)
    trained = train_arms(
        arms,
        comparison.machine,
        progress,
        keep_going=True,
        title=lambda arm: f"{arm.name} {repeats[arm.job.folder].folder}",
    )
    for result in trained:
        if isinstance(result.error, PlanError):  # the folder holds a comparison of another plan
            raise result.error
    return {result.arm.job.folder: result.error for result in trained}


def _measure(
    comparison: Comparison,
    made: Sequence[Federation],
    errors: Mapping[Path, MamfedError | None],
    progress: Progress,
) -> dict[Federation, Measured]:
    """Score the models of federations, as many at once as were trained at once."""
    set_threads(comparison.machine)

    def measure(federation: Federation) -> Measured:
        error = errors[federation.arm.job.folder]
        if error is not None:
            return error
        try:
            return score_models(federation.models(), comparison.sites, comparison.machine.device)
        except MamfedError as trouble:
            return trouble

    with ThreadPoolExecutor(comparison.machine.workers) as pool:
        found = dict(zip(made, pool.map(measure, made), strict=True))
    results = [result for result in found.values() if isinstance(result, Mapping)]
    kept = [one.kept for result in results for one in result.values()]
    if any(kept):
        progress.say(f"{sum(kept)} of {len(kept)} models scored before, on the same images")
    for federation, result in found.items():
        if isinstance(result, MamfedError):
            progress.say(f"{federation.name}, {federation.arm.name}, {federation.repeat}: {result}")
    return found


def _outcome(
    comparison: Comparison, measured: Mapping[Federation, Measured], missing: dict[str, str]
) -> ArmOutcome:
    """Gather an arm's results; a seed counts at a site where every fold of it was measured."""
    scored: dict[str, dict[Repeat, SiteScores]] = {}
    failed = False
    for federation, found in measured.items():
        if isinstance(found, MamfedError):
            failed = True
            missing |= {f"{s}, {federation.repeat}": str(found) for s in federation.measured}
            continue
        for site in federation.measured:
            if site in found:
                scored.setdefault(site, {})[federation.repeat] = found[site]
            else:
                missing[f"{site}, {federation.repeat}"] = _why_no_model(federation, site)
    results = {}
    for site, found_at in sorted(scored.items()):
        by_seed = {
            seed: [found_at.get(r) for r in comparison.repeats if r.seed == seed]
            for seed in comparison.seeds
        }
        whole = {
            seed: [fold for fold in folds if fold is not None]
            for seed, folds in by_seed.items()
            if None not in folds
        }
        if whole:
            results[site] = result_of(whole)
    return ArmOutcome(results, missing, failed)


def _why_no_model(federation: Federation, site: str) -> str:
    """Return why a site has made no model of its own, as the federation's summary tells it."""
    summary = RunFolder(federation.arm.job.folder).read_summary()
    reasons = summary["arms"].get(PERSONAL, {}).get("not_trained", {})
    return str(reasons.get(site, "no personal model there"))
