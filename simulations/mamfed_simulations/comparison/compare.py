"""Compare ways to train over several sites, tested on every site's test patients.

Each arm, seed and fold is a federation with its own folder, so the same command resumes after a
kill. A failed arm is reported and does not affect the others.
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
    LOCAL: "each site trains alone and is tested on its own patients",
    CENTRALISED: "all data pooled, which hospitals cannot do",
    FEDAVG: "the federation of the plan",
    PERSONAL: "the fedavg model, fine-tuned by each site for its own patients; no other training",
    FEDPROX: "each site's weights are held close to the global weights of the round",
    FEDBN: "each site keeps its own instance norms",
    LEAVE_ONE_OUT: "what a new hospital can expect: the other sites train, this site is tested",
}


class Repeat(NamedTuple):
    """One repetition of every arm.

    Attributes:
        seed: Index of its seed.
        fold: Index of the fold that it tests; None without cross-validation.
    """

    seed: int
    fold: int | None

    @property
    def folder(self) -> str:
        """Suffix of its folders' names."""
        return f"seed{self.seed}" if self.fold is None else f"seed{self.seed}-fold{self.fold}"

    def __str__(self) -> str:
        """Return its name for people."""
        return f"seed {self.seed}" if self.fold is None else f"seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True)
class Comparison:
    """A comparison to run.

    Attributes:
        sites: The sites.
        plan: The plan; each repetition replaces its seed. Only the fold decides who is held out.
        out: Folder of the comparison.
        arms: Some of ``ARMS``.
        seeds: Seeds; each arm trains once per seed, or once per seed and fold.
        proximal_mu: FedProx weight if the plan sets none.
        machine: Engine, device, threads and workers.
        folds: Number of cross-validation folds, which test every patient once; None: one split.
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
        """All repetitions, ordered by seed, then fold."""
        folds = [None] if self.folds is None else range(self.folds)
        return [Repeat(seed, fold) for seed in self.seeds for fold in folds]

    def plan_of(self, repeat: Repeat, arm: str = FEDAVG) -> TrainingPlan:
        """Return the plan of an arm; it differs from the base plan only in what defines the arm.

        Every fold has its own training seed, which covers more seeds at no extra cost.
        """
        mu = self.plan.federation.proximal_mu or self.proximal_mu
        update: dict[str, object] = {
            "proximal_mu": mu if arm == FEDPROX else 0.0,
            "local_norms": arm == FEDBN,
        }
        if arm == FEDBN:  # each site is its own group
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
            DataError: A site has no usable image, or too few patients for the number of folds.
        """
        return describe_sites(self.sites, self.plan_of(repeat), progress=progress)


def check_place(comparison: Comparison) -> None:
    """Check that the output folder can be used, before any image is prepared.

    Raises:
        OutputError: It lies in a site's data, or holds something else.
        SetupError: Another process uses it.
    """
    check_outside(comparison.out, [f for site in comparison.sites for _, f in site.cohorts])
    check_folder(
        comparison.out,
        lambda out: (
            not (out / MARK).exists()  # a run folder holds arms.json too
            and any((out / name).exists() for name in (ARMS_FILE, LOCK))
        ),
        "comparison",
    )
    check_nobody_works(comparison.out / LOCK, comparison.out, "this comparison")


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


def kept_lines(comparison: Comparison) -> list[str]:
    """Describe what an interrupted comparison has saved."""
    folders = [RunFolder(path.parent) for path in sorted(comparison.out.glob(f"**/{MARK}"))]
    finished = sum(folder.is_finished() for folder in folders)
    rounds = sum(len(folder.rounds()) for folder in folders)
    if not folders:
        return ["kept: the images prepared so far; no training had started"]
    return [
        f"kept in {comparison.out}: {finished} finished and {len(folders) - finished} unfinished "
        f"trainings, {rounds} rounds in total"
    ]


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
