"""A comparison to run: its arms, its repetitions, and the plan of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mamfed_client.preparation.site_data import Site
from mamfed_common.plan import TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.output_checks import check_folder, check_outside
from mamfed_server.run_folder.folder import MARK, RunFolder
from mamfed_simulations.federation.arms import describe_sites
from mamfed_simulations.federation.fingerprints import ARMS as ARMS_FILE
from mamfed_simulations.federation.hardware import ArmHardware
from mamfed_simulations.federation.readiness import check_nobody_works

LOCK = "comparison.lock"

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
