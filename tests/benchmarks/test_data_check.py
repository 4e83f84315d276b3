"""Benchmarks of ``data check``: two versions of it in turns, and what it says of phantoms."""

import json
import os
import subprocess
import sys
from pathlib import Path

from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort

ROOT = Path(__file__).parents[2]


def run(name, *words, **variables):
    command = [sys.executable, "-m", f"benchmarks.intake.{name}", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True
    )


def test_two_versions_are_measured_in_turns_and_recorded(tmp_path):
    look = next(iter(VENDORS.values()))
    write_cohort(tmp_path / "site", look, benign=2, malignant=0, seed=0, scale=0.06)
    results = str(tmp_path / "results.json")

    ran = run(
        "data_check", tmp_path / "site", "--against", ROOT, "--runs", 1, BENCH_RESULTS=results
    )

    assert ran.returncode == 0, ran.stderr
    (result,) = json.loads(Path(results).read_text())
    assert result["name"] == "data check --fresh, site, processor time"
    ((ours, other),) = result["runs"]
    assert 0.2 < ours
    assert 0.3 < ours / other < 3


def test_what_is_no_version_is_said(tmp_path):
    ran = run("data_check", tmp_path, "--against", tmp_path)

    assert ran.returncode == 1
    assert "neither a checkout of mamfed nor a folder with mamfed-client" in ran.stderr


def test_sound_phantoms_of_every_vendor_are_counted():
    ran = run("sound_phantoms", "--images", 3)

    assert ran.returncode == 0, ran.stderr
    lines = [f"{vendor}: 3 images, 0 refused {{}}, 0 doubtful {{}}" for vendor in VENDORS]
    assert ran.stdout.splitlines() == lines
