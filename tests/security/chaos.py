"""SIGKILL everywhere: ``python tests/security/chaos.py [--seed N] [--kills N] [--writes N]``.

Two parts. A run in a forked child kills itself between the steps of its writes (open, fsync,
rename, unlink), is resumed and killed again: the same bits, the same rounds. Then real processes
over TLS are killed at moments of the seed (``tests/processes/chaos.py``: server, supervisors,
nodes, workers): the run ends by itself, no kill redoes more than one round, and the weights have
the bits of a run that nothing disturbed. ``--quick`` does 8 kills of the first kind alone.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE, STDOUT

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mamfed_common.runtime import terminal  # noqa: E402

terminal.set_environment()

import torch  # noqa: E402
from tests.security.lib.attempts import Attempts, parse_with_seed  # noqa: E402
from tests.security.lib.killed_run import in_child, result  # noqa: E402
from tests.security.lib.quorum_sites import floor_plan  # noqa: E402

HANGS_SECONDS = 3600
"""On quiet cores, 20 kills take about 12 minutes; beside ten other processes, half an hour."""
DEATHS_A_RUN = 3
TOLD = r"^ *[\d.]+ s  (SIGKILL .+|resumed .+|after chaos .+|rounds that .+)$"


def killed_writes(attempts: Attempts, rng: random.Random, kills: int) -> None:
    """Kill runs between the steps of their writes, each up to ``DEATHS_A_RUN`` times."""
    torch.set_num_threads(1)
    plan = floor_plan(min_sites=1)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        _, operations = in_child(plan, root / "whole", None)
        expected, done, number = result(root / "whole"), 0, 0
        while done < kills:
            number += 1
            deaths = []
            for _ in range(min(DEATHS_A_RUN, kills - done)):
                deadly = rng.randrange(1, operations)
                ended_by, _ = in_child(plan, root / f"{number}", deadly)
                if not ended_by:
                    break
                deaths.append(deadly)
            done += len(deaths)
            in_child(plan, root / f"{number}", None)
            same = result(root / f"{number}") == expected
            flaw = "" if same else "other weights or rounds than undisturbed"
            attempts.note(f"SIGKILL before file operation {deaths} of {operations}", flaw)


def killed_processes(attempts: Attempts, seed: int, kills: int) -> None:
    """Kill real processes by ``tests/processes/chaos.py``."""
    words = f"{kills} SIGKILLs of server, supervisors, nodes and workers"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        command = [
            *(sys.executable, str(ROOT / "tests/processes/chaos.py"), "--out", f"{place}/chaos"),
            *("--seed", str(seed), "--kills", str(kills), "--rounds", str(max(6, kills))),
        ]
        flaw = ""
        with subprocess.Popen(command, stdout=PIPE, stderr=STDOUT, text=True) as process:
            try:
                told, _ = process.communicate(timeout=HANGS_SECONDS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # it stops the server and sites
                told, _ = process.communicate()
                flaw = f"no end within {HANGS_SECONDS} s: "
    for line in re.findall(TOLD, told, re.M):
        print(f"figure  {line}", flush=True)
    attempts.note(words, flaw + told[-3000:] if flaw or process.returncode else "")


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="Of real processes.")
    parser.add_argument("--writes", type=int, default=180, help="Between the steps of writes.")
    parser.add_argument("--quick", action="store_true")
    given = parse_with_seed(parser)
    seed = given.seed
    attempts = Attempts()
    killed_writes(attempts, random.Random(seed), 8 if given.quick else given.writes)
    if not given.quick:
        killed_processes(attempts, seed, given.kills)
    attempts.finish()


if __name__ == "__main__":
    main()
