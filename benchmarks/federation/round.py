"""Measure seconds per round between real processes: mamfed beside stock Flower.

Usage: python -m benchmarks.federation.round [--only mamfed|flower] [--steps N] [--sites N]

Two sites on this machine exchange the same 8 MB of float32 weights, without training. Ours uses its
own commands over mutual TLS, as hospitals do, and trains on a few images of 32 x 32. The peer is
``stock_flower``, which has the advantage of neither TLS nor node keys. They alternate; each turn
runs a whole federation. A round lasts from the end of the previous one to its own end, observed
from outside; the first round of each turn does not count.

With ``--steps N``, mamfed alone runs rounds of N steps with kept optimizer state at each site,
beside the time of the same steps of one site in this process; ``--sites`` sets how many sites. The
processor time of each round is shown as well: on a busy machine, and where sites share cores, it
says what the seconds do not. Starting takes a minute and a half there before the first line.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.lib.harness import record
from mamfed_common.runtime import terminal

terminal.set_environment()

import torch  # noqa: E402
from tests.processes.deployment import Deployment, wait_until  # noqa: E402
from tests.processes.intruder import processes_below  # noqa: E402

from benchmarks.federation.stock_flower import count_lines, flowers_ends  # noqa: E402
from mamfed_client.preparation.site_data import Site, load_site  # noqa: E402
from mamfed_common.model.config import NetworkConfig  # noqa: E402
from mamfed_common.model.malignancy_net import MalignancyNetwork  # noqa: E402
from mamfed_common.model.state_dict import state_of  # noqa: E402
from mamfed_common.plan import (  # noqa: E402
    FederationPlan,
    FinetuningPlan,
    Stage,
    StagePlan,
    TrainingPlan,
)
from mamfed_common.training.batches import RoundContext  # noqa: E402
from mamfed_common.training.stages import train  # noqa: E402
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort  # noqa: E402

NETWORK = NetworkConfig(channels=(32, 64, 128, 256, 320, 384))
CPU = torch.device("cpu")
LONGEST_SECONDS = 200.0
MOST_BEYOND = 1.5
TURNS = ((4, 2), (3, 3))
"""Rounds per turn: with one exchange, of which the first does not count, and with two."""
ROUNDS = {"train": "a round of training", "two": "a round of training and validation"}


class Seconds(NamedTuple):
    """Seconds of rounds with one exchange, and with two."""

    train: list[float]
    two: list[float]


def small_plan(trained: int, evaluated: int, steps: int | None) -> TrainingPlan:
    """Return a plan with negligible training, or with ``steps`` training steps per round."""
    stage = {"batch_size": 2, "learning_rate": 1e-3, "quorum": 2, "deadline_seconds": 120}
    if steps is not None:
        stage |= {"local_steps": steps, "optimizer_state": "kept"}
    return TrainingPlan(
        image_size=32,
        network=NETWORK,
        pretraining=StagePlan(rounds=trained, min_deadline_seconds=60, **stage),
        finetuning=FinetuningPlan(rounds=evaluated, min_deadline_seconds=60, **stage),
        federation=FederationPlan(min_sites=2, join_seconds=60),
    )


def ends_of(count: Callable[[], int], wanted: int, tell: Callable[[int], None]) -> list[float]:
    """Watch a count grow to ``wanted``; return the time at which each value was first seen."""
    ends: list[float] = []

    def all_there() -> bool:
        if new := count() - len(ends):
            ends.extend([time.time()] * new)
            tell(len(ends))
        return len(ends) >= wanted

    wait_until(all_there, "our rounds", LONGEST_SECONDS, pause=0.02)
    return ends


def processor_seconds(federation: Deployment, name: str) -> float:
    """Return what a coordinator or a site has used so far, its processes together."""
    fields = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        for pid in processes_below(federation.processes[name].pid)
    ]
    ticks = sum(int(each[11]) + int(each[12]) for each in fields)
    return ticks / os.sysconf("SC_CLK_TCK")


def our_ends(
    folder: Path, trained: int, evaluated: int, steps: int | None = None, sites: int = 2
) -> list[float]:
    """Run the federation by its commands; return when each round ended."""
    data = {name: folder / name for name in list(VENDORS)[:sites]}
    for name, cohort in data.items():
        write_cohort(cohort, VENDORS[name], benign=4, malignant=6, seed=0)
    plan = folder / "plan.yaml"
    plan.write_text(small_plan(trained, evaluated, steps).to_yaml())
    with Deployment(folder, data) as federation:
        for name in data:
            federation.change_policy(name, bounds={"min_min_sites": 2})
        federation.start_server(plan)
        federation.wait_for_listener()
        for name in data:
            federation.start_site(name)

        def finished() -> int:
            if federation.processes["server"].poll():
                raise RuntimeError(federation.story())
            return count_lines(federation.run_folder() / "rounds.jsonl")

        used: list[dict[str, float]] = []

        def tell(done: int) -> None:
            used.append({name: processor_seconds(federation, name) for name in ("server", *data)})
            spent = [used[-1][name] - used[-2][name] for name in used[-1]] if len(used) > 1 else ()
            seconds = f": {show_seconds(spent)} s of CPU (coordinator, sites)" if spent else ""
            print(f"        round {done} of {trained + evaluated}{seconds}", flush=True)

        print("        all started", flush=True)
        return ends_of(finished, trained + evaluated, tell)


def show_seconds(seconds: Iterable[float]) -> str:
    return " ".join(f"{each:.2f}" for each in seconds)


def training_alone(folder: Path, steps: int) -> Seconds:
    """Return the time of one site's steps of a round in each stage, in this process."""
    plan, found = small_plan(1, 1, steps), Seconds([], [])
    name = next(iter(VENDORS))
    write_cohort(folder / name, VENDORS[name], benign=4, malignant=6, seed=0)
    data = load_site(Site(name, ((name, folder / name),), folder / "cache"), plan)
    state = state_of(MalignancyNetwork(NETWORK))
    for stage, seconds in zip(Stage, found, strict=True):
        samples, benign = data.training(plan, stage)
        for _ in range(6):
            began, used = time.monotonic(), time.process_time()
            train(stage, state, samples, plan, RoundContext(name, 1), device=CPU, benign=benign)
            seconds.append(time.monotonic() - began)
            print(f"        {stage} alone: {time.process_time() - used:.2f} s of CPU", flush=True)
    return Seconds(found.train[1:], found.two[1:])


def split(ends: Sequence[float], trained: int) -> Seconds:
    """Return the seconds of each round except the first, whose start is unknown."""
    seconds = [later - sooner for sooner, later in pairwise(ends)]
    return Seconds(seconds[: trained - 1], seconds[trained - 1 :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("mamfed", "flower"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sites", type=int, default=2, choices=(2, 3))
    given = parser.parse_args()
    megabytes = sum(t.nbytes for t in state_of(MalignancyNetwork(NETWORK)).values()) / 1e6
    load = os.getloadavg()[0]
    print(f"{given.sites} sites, {megabytes:.1f} MB of weights, load {load:.1f} at the start")
    only = "mamfed" if given.steps or given.sites != 2 else given.only
    ends = partial(our_ends, steps=given.steps, sites=given.sites)
    found = {name: Seconds([], []) for name in ("mamfed", "flower") if only in (None, name)}
    for trained, evaluated in TURNS:
        for name, seconds in found.items():
            measure = ends if name == "mamfed" else flowers_ends
            with tempfile.TemporaryDirectory() as folder:
                round_context = split(measure(Path(folder), trained, evaluated), trained)
            for all_of, these in zip(seconds, round_context, strict=True):
                all_of.extend(these)
            show(name, round_context)
    if given.steps:
        with tempfile.TemporaryDirectory() as folder:
            alone = training_alone(Path(folder), given.steps)
        show("alone", alone)
        beyond = [seconds - median(alone.train) for seconds in found["mamfed"].train]
        name = f"a round of {given.steps} steps beyond its training, {given.sites} sites, 8 MB"
        record(name, beyond, [MOST_BEYOND] * len(beyond), peer_name=f"{MOST_BEYOND} s", unit="s")
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    if len(found) == 2:
        for kind, name in ROUNDS.items():
            ours, peer = (getattr(seconds, kind) for seconds in found.values())
            record(f"{name}, 2 sites, 8 MB", ours, peer, peer_name="stock Flower", unit="s")


def show(name: str, round_context: Seconds) -> None:
    for what, seconds in zip(ROUNDS.values(), round_context, strict=True):
        print(
            f"{name:6}  {what:35} median {median(seconds):5.2f} s   min {min(seconds):5.2f} s   "
            f"max {max(seconds):5.2f} s   ({len(seconds)} rounds)",
            flush=True,
        )


if __name__ == "__main__":
    main()
