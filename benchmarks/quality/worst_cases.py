"""Show what the worst test images of a finished ``experiment table1`` on cesm have in common.

Prints Dice at the epoch that validation chose, mean over seeds, beside lesion size, density and the
table's finding.
Usage: python -m benchmarks.quality.worst_cases runs/table1-256 --data data/cesm
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path

import numpy as np

from mamfed_client.preparation.sample_store import default_cache_dir
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.runtime.documents import read_json
from mamfed_simulations.study.design import Design
from mamfed_simulations.study.trials import chosen_epoch, read_epochs

ROWS = ("discriminative-pretrained", "supervised-pretrained")
BANDS = (0.0, 0.03, 0.1, 1.0)


def dice_of(study: Path, row: str) -> np.ndarray:
    read = [read_epochs(path) for path in sorted((study / "units").glob(f"{row}-seed*-fold0"))]
    dice = np.array([epochs[chosen_epoch(epochs)]["test"] for epochs in read])
    return np.asarray(dice.mean(axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=default_cache_dir())
    parser.add_argument("--count", type=int, default=8)
    arguments = parser.parse_args()
    plan = read_json(Design, arguments.study / "study.json").plan
    name = arguments.data.name
    cohort = load_site(Site(name, ((name, arguments.data.absolute()),), arguments.cache), plan)
    samples = list(cohort.samples(["malignant"], "test"))
    with (arguments.data / "labels.csv").open(encoding="utf-8") as file:
        table = {row["image"]: row for row in csv.DictReader(file)}
    ours, supervised = (dice_of(arguments.study, row) for row in ROWS)
    share = np.array([sample.mask.sum() / sample.breast_mask.sum() for sample in samples])
    print(f"{'ours':>5} {'sup.':>5} {'lesion':>7}  density, view, finding")
    for index in np.argsort(ours)[: arguments.count]:
        row = table[samples[index].name]
        words = f"{row['density']} {row['view']} {row['finding']}"
        print(f"{ours[index]:5.2f} {supervised[index]:5.2f} {share[index]:7.1%}  {words}")
    for low, high in itertools.pairwise(BANDS):
        band = (share >= low) & (share < high)
        if band.any():
            means = f"ours {ours[band].mean():.2f}, supervised {supervised[band].mean():.2f}"
            print(f"lesion {low:.0%} to {high:.0%} of the breast: {band.sum()} images, {means}")
    print(f"correlation of Dice and log size: {np.corrcoef(ours, np.log(share))[0, 1]:.2f}")


if __name__ == "__main__":
    main()
