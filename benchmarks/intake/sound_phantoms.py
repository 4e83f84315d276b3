"""Check that ``mamfed-client data check`` rejects no sound phantom and doubts at most 1 %.

Writes a folder of phantoms of each vendor, a third of them malignant, checks it as a site does, and
prints what was rejected or doubted. Exits with 1 if anything was rejected or more was doubted.
Nothing is timed or recorded; the figures are in docs/benchmarks.md.

Usage: python -m benchmarks.intake.sound_phantoms [--images 300] [--seed 0] [--scale 0.22]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mamfed_simulations.phantoms.vendors import DEMO_SCALE, VENDORS, write_cohort

MOST_DOUBTFUL = 0.01


def checked(folder: Path) -> dict[str, Any]:
    """Return the counts of ``data check`` for a folder, with separate caches."""
    command = [sys.executable, "-m", "mamfed_client", "data", "check", str(folder), "--fresh"]
    own = {"MAMFED_CACHE": f"{folder}-cache", "MAMFED_SECRET": f"{folder}-secret"}
    ran = subprocess.run(
        [*command, "--format", "json"],
        env=os.environ | own,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    counts: dict[str, Any] = json.loads(ran.stdout)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=300, help="images per vendor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--scale", type=float, default=DEMO_SCALE, help="image size, relative to the detector's"
    )
    arguments = parser.parse_args()
    malignant, wrong = arguments.images // 3, False
    with tempfile.TemporaryDirectory() as name:
        for vendor, look in VENDORS.items():
            folder = Path(name) / vendor
            benign = arguments.images - malignant
            kind = {"benign": benign, "malignant": malignant, "seed": arguments.seed}
            write_cohort(folder, look, **kind, scale=arguments.scale)
            counts = checked(folder)
            refused, doubtful = sum(counts["rejected"].values()), counts["doubtful_images"]
            print(
                f"{vendor}: {counts['files']} images, {refused} refused {counts['rejected']}, "
                f"{doubtful} doubtful {counts['doubts']}",
                flush=True,
            )
            wrong |= refused > 0 or doubtful > MOST_DOUBTFUL * counts["files"]
    raise SystemExit(int(wrong))


if __name__ == "__main__":
    main()
