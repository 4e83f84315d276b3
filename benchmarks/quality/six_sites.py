"""Compare arms on six unlike sites of real images: digital, film of four scanners, one tiny.

``--data`` holds one folder per site, each with ``labels.csv`` (docs/data.md):

==========  =========================================================================
cesm        CDD-CESM, digital, malignant only (doi 10.7937/29kw-ae92)
ddsm_a..d   CBIS-DDSM masses by the scanner of the film (doi 10.7937/K9/TCIA.2016.7O02S9CY);
            the masks are ellipses in the radiologists' boxes, so compare within a site
mias        mini-MIAS, 14 malignant images (http://peipa.essex.ac.uk/info/mias.html)
==========  =========================================================================

Do not add ``cbis``: 99 of its images are also in ``ddsm_*``. The script checks the folders, prints
the one command that is the benchmark, and runs it; run it again to resume.
Usage: python -m benchmarks.quality.six_sites --data data [--out DIR] [--seeds N]
       [--folds K] [--plan FILE] [--dry-run]
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SITES = ("cesm", "ddsm_a", "ddsm_b", "ddsm_c", "ddsm_d", "mias")
ARMS = "local,centralised,fedavg,personal"
PLAN = Path(__file__).with_suffix(".yaml")
COMMAND = Path(sys.executable).with_name("mamfed-simulate")


def check_folders(data: Path, names: Sequence[str]) -> None:
    """Exit with one line if a site's folder is missing."""
    missing = [name for name in names if not (data / name / "labels.csv").is_file()]
    if missing:
        sys.exit(
            f"{data}: no labels.csv in {', '.join(missing)}; see the docstring of "
            f"{Path(__file__).name} for the content and source of each folder"
        )


def federation(sites: dict[str, Path], plan: Path, out: Path, more: Sequence[str]) -> list[str]:
    """Return the command that compares arms over these sites."""
    named = [word for name, folder in sites.items() for word in ("--site", f"{name}={folder}")]
    plan_and_out = ["--plan", str(plan), "--out", str(out)]
    return [str(COMMAND), "experiment", "federation", *named, *plan_and_out, *more]


def run(command: Sequence[str]) -> None:
    """Print a command and run it; exit if it fails."""
    print(f"$ {shlex.join(command)}", flush=True)
    code = subprocess.run(command).returncode
    if code:
        sys.exit(code)


def options(description: str | None, out: str) -> argparse.ArgumentParser:
    """Return the parser of the options that both benchmarks of unlike sites share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--arms", default=ARMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true")
    return parser


def main() -> None:
    """Check the folders and run the benchmark."""
    parser = options(__doc__, "runs/six-sites")
    parser.add_argument("--folds", type=int, help="test every patient once")
    given = parser.parse_args()
    check_folders(given.data, SITES)
    more = ["--arms", given.arms, "--seeds", str(given.seeds)]
    more += ["--folds", str(given.folds)] if given.folds else []
    more += ["--dry-run"] if given.dry_run else []
    sites = {name: given.data / name for name in SITES}
    run(federation(sites, given.plan, given.out, more))


if __name__ == "__main__":
    main()
