"""Measure what a model marks if the only finding is a benign mass: the mass or healthy tissue?

Every film image without malignancy of ``six_sites.py`` shows a benign mass that was suspicious
enough to be worked up (BI-RADS 3 or 4), outlined by a mask. For the test patients of these sites,
this prints how much of the breast the shared and the personal models mark at 0.5, and how much of
that lies outside the mass. ``--runs`` is the output folder of ``six_sites.py``.
Usage: python -m benchmarks.quality.benign_masses --data data --runs DIR
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
import torch

from mamfed_client.preparation.site_data import Site, SiteData, load_site
from mamfed_common.checkpoint import Checkpoint, load_checkpoint
from mamfed_common.domain import EVALUATED_ON
from mamfed_common.metrics.scores import ImageScore
from mamfed_common.plan import TrainingPlan, with_threshold
from mamfed_common.training.inference import evaluate
from mamfed_common.transforms.sample import Sample
from mamfed_simulations.federation.site_models import as_at_site, personal_path, shared_path

SITES = ("ddsm_a", "ddsm_b", "ddsm_c", "ddsm_d")


def of_folder(name: str, folder: Path, plan: TrainingPlan, cache: Path) -> SiteData:
    """Return the images of a site's folder, prepared for a plan."""
    return load_site(Site(name, ((name, folder.absolute()),), cache), plan)


def masses_as_targets(folder: Path, patients: set[str], out: Path) -> None:
    """Write a folder with some patients' benign masses, labelled as malignant."""
    out.mkdir(parents=True)
    for part in ("images", "masks"):
        (out / part).symlink_to((folder / part).absolute())
    with (folder / "labels.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))
    with (out / "labels.csv").open("w", newline="") as target:
        writer = csv.DictWriter(target, list(rows[0]))
        writer.writeheader()
        for row in rows:
            if row["pathology"] == "benign" and row["mask"] and row["patient_id"] in patients:
                writer.writerow({**row, "pathology": "malignant", "birads": ""})


def describe(scores: list[ImageScore], samples: list[Sample]) -> str:
    """Return one line: marked share of the breast, in total and outside the mass."""
    marked = np.array([score.predicted_pixels for score in scores])
    masses = np.array([score.lesion_pixels for score in scores])
    both = np.array([score.dice for score in scores]) * (marked + masses) / 2
    breasts = np.array([int(sample.breast_mask.sum()) for sample in samples])
    return (
        f"{len(scores)} images, masses {np.mean(masses / breasts):.2%}, "
        f"marked {np.mean(marked / breasts):.2%}, "
        f"outside the mass {np.mean((marked - both) / breasts):.2%}"
    )


def main() -> None:
    """Score every seed's models at every film site."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for run in sorted(given.runs.glob("fedavg-seed*")):
            shared = load_checkpoint(shared_path(run))
            for name in SITES:
                _score(run, shared, name, given.data / name, Path(folder))


def _score(run: Path, shared: Checkpoint, name: str, data: Path, scratch: Path) -> None:
    own = as_at_site(shared, run, name)
    plan = own.facts.plan
    masses = scratch / name
    if not masses.exists():
        site = of_folder(name, data, plan, scratch / "cache")
        masses_as_targets(data, set(site.patients(EVALUATED_ON, "test")), masses)
    everyone = {"test_fraction": 0.96, "validation_fraction": 0.0}
    tests_all = plan.model_copy(update={"evaluation": plan.evaluation.model_copy(update=everyone)})
    found = of_folder(name, masses, tests_all, scratch / "cache").samples(["malignant"], "test")
    samples = [found[index] for index in range(len(found))]
    at_half = with_threshold(plan, 0.5)
    for what, model in (("shared", own), ("personal", load_checkpoint(personal_path(run, name)))):
        scores = evaluate(model.state, samples, at_half, device=torch.device("cpu"))
        print(f"{run.name} {name} {what}: {describe(scores, samples)}", flush=True)


if __name__ == "__main__":
    main()
