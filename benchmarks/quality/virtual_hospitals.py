"""Split one cohort among unlike virtual hospitals and measure what federating brings them.

Of ``--data`` it splits ``cesm`` and uses ``mias`` and ``cbis`` as they are, because cesm has no
benign image for stage 1 (``six_sites.py`` names the sources). Two questions:

- *60/30/10*: three hospitals. Does the smallest gain most?
- *curve*: cesm split evenly among 1, 2, 3 and 5 hospitals. What does a site gain as it shrinks?

The virtual hospitals are digital, the other two film; each kind averages its own norms.

All output goes to ``--out``; ``curve.json`` and ``curve.png`` hold each hospital's size and gain.
Usage: python -m benchmarks.quality.virtual_hospitals --data data [--out DIR] [--seeds N]
       [--counts 1,2,3,5] [--plan FILE] [--dry-run]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.quality.six_sites import COMMAND, check_folders, federation, options, run
from mamfed_common.runtime.files import write_atomic
from mamfed_server.report.figures import SITE_COLOURS, frame, to_png

DEALT, BESIDE = "cesm", ("mias", "cbis")
UNEQUAL = "60,30,10"
COUNTS = "1,2,3,5"
GAIN = "fedavg"


def compare(name: str, deal: Sequence[str], given: Any) -> dict[str, Any]:
    """Split the cohort, compare the arms, and return sizes and results by hospital."""
    hospitals, out = given.out / f"{name}-hospitals", given.out / name
    looks = ["--looks", "--out", str(hospitals)]
    run([str(COMMAND), "partition", "--data", str(given.data / DEALT), *deal, *looks])
    dealt = json.loads((hospitals / "partition.json").read_text())["hospitals"]
    sites = {hospital["name"]: hospitals / hospital["name"] for hospital in dealt}
    sites |= {other: given.data / other for other in BESIDE}
    groups = {"digital": [hospital["name"] for hospital in dealt], "film": list(BESIDE)}
    more = ["--arms", given.arms, "--seeds", str(given.seeds)]
    more += ["--set", f"federation.norm_groups={json.dumps(groups)}"]
    more += ["--dry-run"] if given.dry_run else []
    run(federation(sites, given.plan, out, more))
    if given.dry_run:
        return {}
    arms = json.loads((out / "results.json").read_text())["arms"]
    return {
        hospital["name"]: {
            "patients": hospital["patients"],
            "images": hospital["images"]["malignant"],
            **{arm: _dice(arms[arm]["sites"].get(hospital["name"])) for arm in arms},
            "gain": arms[GAIN]["sites"][hospital["name"]]["minus"]["local"],
        }
        for hospital in dealt
    }


def draw(curve: dict[str, dict[str, Any]]) -> bytes:
    """Return a PNG of each hospital's gain over local training against its size."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    frame(
        axes,
        "Dice of the federation minus local training, by patients of the hospital",
        rounds=False,
    )
    for colour, (name, hospitals) in zip(SITE_COLOURS, curve.items(), strict=False):
        gains = [h for h in hospitals.values() if h["gain"] and h["gain"]["low"] is not None]
        if not gains:
            continue
        values = [h["gain"]["value"] for h in gains]
        low = [h["gain"]["value"] - h["gain"]["low"] for h in gains]
        high = [h["gain"]["high"] - h["gain"]["value"] for h in gains]
        sizes = [h["patients"] for h in gains]
        axes.errorbar(sizes, values, yerr=[low, high], fmt="o", color=colour, label=name, capsize=3)
    axes.axhline(0, color="0.5", linewidth=1)
    axes.set_xlabel("patients of the hospital")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return to_png(figure)


def main() -> None:
    """Run both comparisons and write the curve."""
    parser = options(__doc__, "runs/virtual-hospitals")
    parser.add_argument("--counts", default=COUNTS, help="numbers of hospitals, comma-separated")
    given = parser.parse_args()
    check_folders(given.data, (DEALT, *BESIDE))
    given.out.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = {UNEQUAL: compare("unequal", ["--sites", "3", "--shares", UNEQUAL], given)}
    for count in given.counts.split(","):
        found[f"{count} sites"] = compare(f"even-{count}", ["--sites", count], given)
    if given.dry_run:
        return
    write_atomic(given.out / "curve.json", json.dumps(found, indent=2) + "\n")
    write_atomic(given.out / "curve.png", draw(found))
    for name, hospitals in found.items():
        for hospital, row in hospitals.items():
            print(f"{name}, {hospital}: {json.dumps(row)}")


def _dice(result: dict[str, Any] | None) -> float | None:
    return result["dice"]["value"] if result and result["dice"] else None


if __name__ == "__main__":
    main()
