"""What a live page costs a run: rounds with it and without it, in turn.

Usage: python -m benchmarks.federation.dashboard_cost --page coordinator --rounds 24
Usage: python -m benchmarks.federation.dashboard_cost --page site --rounds 24

One federation of three phantom hospitals on this machine; the page is the coordinator's or that of
one site. In every other round the page's process is stopped by SIGSTOP; in the rounds between, two
open pages read its stream.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "tests")]

import httpx  # noqa: E402
from tests.processes.deployment import Deployment, free_port, wait_until  # noqa: E402
from tests.processes.phantoms import small_plan, write_phantoms  # noqa: E402

PAGES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--page", choices=("coordinator", "site"), default="coordinator")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        phantoms = write_phantoms(Path(folder) / "phantoms", benign=4, malignant=8)
        with Deployment(Path(folder) / "federation", phantoms) as federation:
            with_page, without = _measure(federation, phantoms, given.rounds, given.page)
    for name, seconds in (("with the page", with_page), ("without", without)):
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        print(f"a round {name}: median {median(seconds):.3f} s ({spread}, {len(seconds)} rounds)")
    print(f"ratio of medians: {median(with_page) / median(without):.3f}")


def _measure(federation, names, rounds: int, role: str) -> tuple[list[float], list[float]]:
    plan = federation.folder / "plan.yaml"
    plan.write_text(small_plan(pretraining=0, finetuning=rounds + 2).to_yaml())
    if role == "site":
        program, home = "mamfed-client", federation.site_home(min(names))
    else:
        program, home = "mamfed-server", federation.server_home
    federation.start("page", program, "dashboard", "--home", home, "--port", free_port())
    wait_until((home / "dashboard.url").exists, "the page can be opened")
    address = (home / "dashboard.url").read_text().strip()
    threading.Thread(target=_look, args=(address,), daemon=True).start()
    federation.start_server(plan)
    for name in names:
        federation.start_site(name)
    page, done = federation.processes["page"], 0
    while done < rounds + 2:
        wait_until(lambda known=done: len(federation.rounds()) > known, "a round", pause=0.02)
        done = len(federation.rounds())
        os.kill(page.pid, signal.SIGSTOP if done % 2 else signal.SIGCONT)
    os.kill(page.pid, signal.SIGCONT)
    federation.wait_for_end()
    seconds = [float(record["seconds"]) for record in federation.rounds()][2:]
    return seconds[0::2], seconds[1::2]  # round 3 follows SIGCONT after round 2


def _look(address: str) -> None:
    with httpx.Client(base_url=address.partition("/sign-in")[0], timeout=None) as client:
        client.get(address)
        for _ in range(PAGES):
            threading.Thread(target=_read, args=(client,), daemon=True).start()
        threading.Event().wait()


def _read(client: httpx.Client) -> None:
    with suppress(httpx.HTTPError), client.stream("GET", "/live") as response:
        for _ in response.iter_lines():  # until the page ends
            pass


if __name__ == "__main__":
    main()
