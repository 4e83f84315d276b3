"""Kill ``mamfed-client data prepare`` again and again: what it ends with must not show it.

A folder of phantom files, some of them bad in every known way, is checked and prepared once in
peace and once under SIGKILL at random moments. Counts must be exact, and both prepared folders
equal to the byte.
Usage: python tests/fault/kill_prepare.py [--files 2000] [--bad 50] [--kills 10] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mamfed_simulations.phantoms.corpus import write_intake_folder

COMMAND = [sys.executable, "-m", "mamfed_client", "data"]


def data(*words: object) -> dict[str, Any]:
    """Run ``mamfed-client data`` to its end and return what it prints."""
    command = [*COMMAND, *map(str, words), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def prepare_killed(site: Path, out: Path, kills: int, undisturbed_s: float, seed: int) -> int:
    """Start a preparation and kill it, ``kills`` times; return how many kills found it at work."""
    moments, at_work = random.Random(seed), 0
    command = [*COMMAND, "prepare", str(site), "--out", str(out), "--size", "128"]
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.3, 0.3 + 1.5 * undisturbed_s / kills))
        at_work += process.poll() is None
        process.kill()
        process.wait()
    return at_work


def sha256_of(folder: Path) -> dict[str, str]:
    """Hash every file of a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def trial(folder: Path, files: int, bad: int, kills: int, seed: int) -> dict[str, Any]:
    """Do all of it.

    Raises:
        AssertionError: A count is wrong, or the two prepared folders differ.
    """
    expected = write_intake_folder(folder / "site", files, bad, seed)
    rejected = {str(reason): count for reason, count in expected.items()}
    checked = data("check", folder / "site")
    started = time.monotonic()
    in_peace = data("prepare", folder / "site", "--out", folder / "peace", "--size", 128)
    undisturbed_s = time.monotonic() - started
    for found in (checked, in_peace):
        assert found["files"] == files, found["files"]
        assert found["rejected"] == rejected, _difference(found["rejected"], rejected)
    at_work = prepare_killed(folder / "site", folder / "killed", kills, undisturbed_s, seed)
    data("prepare", folder / "site", "--out", folder / "killed", "--size", 128)
    assert sha256_of(folder / "killed") == sha256_of(folder / "peace")
    started = time.monotonic()
    data("prepare", folder / "site", "--out", folder / "killed", "--size", 128)
    return {
        "files": files,
        "rejected": rejected,
        "accepted": in_peace["accepted"],
        "kills": kills,
        "kills_at_work": at_work,
        "prepare_s": round(undisturbed_s, 1),
        "known_again_s": round(time.monotonic() - started, 1),
    }


def _difference(
    found: Mapping[str, int], expected: Mapping[str, int]
) -> dict[str, tuple[int, int]]:
    keys = found.keys() | expected.keys()
    both = {key: (found.get(key, 0), expected.get(key, 0)) for key in sorted(keys)}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--bad", type=int, default=50)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = trial(Path(folder), arguments.files, arguments.bad, arguments.kills, arguments.seed)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
