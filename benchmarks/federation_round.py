"""Seconds a round between real processes: ours beside stock Flower, the same bytes, no training.

Usage: python benchmarks/federation_round.py [--rounds 8] [--only mamfed|flower]

Two sites on this machine and about 8 MB of float32 weights. Ours goes by its commands over mutual
TLS, as hospitals use it, and trains on a few images of 32 x 32. Flower's (1.41-1.42) is
``flower-superlink``, two ``flower-supernode`` that start a process for each message, FedAvg and a
ClientApp that imports torch and adds noise; it has neither TLS nor node keys, which favours it.
A round's time is from the end of the one before to its own end, seen from outside.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import median

from mamfed_common import terminal

terminal.set_environment()

from mamfed_common.plan import FederationPlan, StagePlan, TrainingPlan  # noqa: E402
from mamfed_common.state import state_of  # noqa: E402
from mamfed_common.subtraction import MalignancyNetwork  # noqa: E402
from mamfed_common.unet import NetworkConfig  # noqa: E402
from mamfed_simulations.vendors import VENDORS, write_cohort  # noqa: E402

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "federation"))

from deployment import BIN, Deployment, free_port, wait_until  # noqa: E402

NETWORK = NetworkConfig(channels=(32, 64, 128, 256, 320, 384))
LONGEST_SECONDS = 200.0
TARGET_SECONDS = 4.0

PYPROJECT = """\
[project]
name = "stock"
version = "1.0.0"
description = "FedAvg of a model that is not trained"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "mamfed"

[tool.flwr.app.components]
serverapp = "stock.server_app:app"
clientapp = "stock.client_app:app"

[tool.flwr.app.config]
megabytes = 8.0
trained = 1
evaluated = 1
ends = ""
"""

SERVER_APP = '''\
"""FedAvg, first without and then with an evaluation, noting when each round ends."""

import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    count = int(config["megabytes"] * 1e6 / 4 / 8)
    arrays = ArrayRecord({f"w{i}": torch.randn(count) for i in range(8)})
    ends = Path(config["ends"])

    class Noted(FedAvg):
        def aggregate_train(self, server_round, replies):
            found = super().aggregate_train(server_round, replies)
            if not self.fraction_evaluate:
                self.note()
            return found

        def aggregate_evaluate(self, server_round, replies):
            found = super().aggregate_evaluate(server_round, replies)
            if self.fraction_evaluate:
                self.note()
            return found

        def note(self):
            with ends.open("a") as handle:
                handle.write(f"{time.time()}\\n")

    for rounds, fraction in ((config["trained"], 0.0), (config["evaluated"], 1.0)):
        strategy = Noted(
            fraction_evaluate=fraction,
            min_train_nodes=2,
            min_evaluate_nodes=2,
            min_available_nodes=2,
        )
        strategy.start(grid, arrays, num_rounds=int(rounds), timeout=120)
'''

CLIENT_APP = '''\
"""Training that is none: add noise to every weight."""

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    state = message.content["arrays"].to_torch_state_dict()
    moved = {name: value + 0.01 * torch.randn_like(value) for name, value in state.items()}
    metrics = MetricRecord({"num-examples": 2, "loss": 1.0})
    return Message(RecordDict({"arrays": ArrayRecord(moved), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    message.content["arrays"].to_torch_state_dict()
    metrics = MetricRecord({"num-examples": 2, "dice": 1.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
'''


def small_plan(trained: int, evaluated: int) -> TrainingPlan:
    """Return a plan whose training takes no time worth mentioning."""
    stage = {"batch_size": 2, "learning_rate": 1e-3, "quorum": 2, "deadline_seconds": 120}
    return TrainingPlan(
        image_size=32,
        network=NETWORK,
        pretraining=StagePlan(rounds=trained, min_deadline_seconds=60, **stage),
        finetuning=StagePlan(rounds=evaluated, min_deadline_seconds=60, **stage),
        federation=FederationPlan(min_sites=2, join_seconds=60),
    )


def ends_of(count: Callable[[], int], wanted: int, what: str) -> list[float]:
    """Watch a count grow; return the time at which each of the ``wanted`` was first seen."""
    ends: list[float] = []

    def all_there() -> bool:
        ends.extend([time.time()] * (count() - len(ends)))
        return len(ends) >= wanted

    wait_until(all_there, what, LONGEST_SECONDS, pause=0.02)
    return ends


def our_ends(folder: Path, trained: int, evaluated: int) -> list[float]:
    """Run the federation by its commands; return when each round ended."""
    data = {name: folder / name for name in list(VENDORS)[:2]}
    for name, cohort in data.items():
        write_cohort(cohort, VENDORS[name], benign=4, malignant=6, seed=0)
    plan = folder / "plan.yaml"
    plan.write_text(small_plan(trained, evaluated).to_yaml())
    with Deployment(folder, data) as federation:
        for name in data:
            federation.change_policy(name, bounds={"min_min_sites": 2})
        federation.start_server(plan)
        federation.wait_for_listener()
        for name in data:
            federation.start_site(name)
        rounds = federation.run_folder() / "rounds.jsonl"

        def finished() -> int:
            if federation.processes["server"].poll():
                raise RuntimeError(federation.story())
            return rounds.read_bytes().count(b"\n") if rounds.exists() else 0

        return ends_of(finished, trained + evaluated, "our rounds")


@contextmanager
def process(folder: Path, name: str, *argv: object) -> Iterator[None]:
    """Run one of Flower's commands, its home and its output in a folder."""
    environment = {**os.environ, "FLWR_HOME": str(folder / f"{name}.home")}
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    with (folder / f"{name}.out").open("wb") as out:
        started = subprocess.Popen(
            [BIN / str(argv[0]), *map(str, argv[1:])],
            env=environment,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        started.terminate()
        started.wait(60)


def flowers_ends(folder: Path, trained: int, evaluated: int) -> list[float]:
    """Run stock Flower with its own commands; return when each round ended."""
    port, ends = free_port(), folder / "ends"
    with ExitStack() as running:
        running.enter_context(
            process(folder, "link", "flower-superlink", "--insecure", "--port", port)
        )
        wait_until(lambda: listens(port), "Flower's SuperLink listens", 60)
        for name in ("one", "two"):
            running.enter_context(
                process(
                    folder, name, "flower-supernode", "--insecure",
                    "--superlink", f"127.0.0.1:{port}", "--port", free_port(),
                )
            )  # fmt: skip
        submit(folder, port, {"trained": trained, "evaluated": evaluated, "ends": str(ends)})
        wait_until(lambda: count_lines(ends) >= trained + evaluated, "Flower's rounds")
    return [float(line) for line in ends.read_text().split()]


def listens(port: int) -> bool:
    """Tell whether something takes connections on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def submit(folder: Path, port: int, config: dict[str, object]) -> None:
    """Build the bundle and start a run, as ``flwr run`` does, without its configuration file."""
    from flwr.cli.build import build_fab_from_files
    from flwr.common.serde import fab_to_proto, user_config_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.fab import Fab
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    files = {
        "pyproject.toml": PYPROJECT.encode(),
        "stock/__init__.py": b"",
        "stock/server_app.py": SERVER_APP.encode(),
        "stock/client_app.py": CLIENT_APP.encode(),
    }
    fab, _ = build_fab_from_files(files)
    client = ControlHttpClient.from_server_address(
        server_address=f"127.0.0.1:{port}",
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="mamfed benchmark")],
    )
    bundle = fab_to_proto(Fab(sha256(fab).hexdigest(), fab, {}))
    client.StartRun(StartRunRequest(fab=bundle, override_config=user_config_to_proto(config)))


def split(ends: Sequence[float], trained: int) -> tuple[list[float], list[float]]:
    """Return the seconds of the rounds of one exchange and of two; the first has no beginning."""
    seconds = [later - sooner for sooner, later in pairwise(ends)]
    return seconds[: trained - 1], seconds[trained - 1 :]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="Rounds of one exchange.")
    parser.add_argument("--evaluated", type=int, default=4, help="Rounds of two exchanges.")
    parser.add_argument("--only", choices=("mamfed", "flower"))
    given = parser.parse_args()
    megabytes = sum(t.nbytes for t in state_of(MalignancyNetwork(NETWORK)).values()) / 1e6
    print(f"two sites, {megabytes:.1f} MB of weights, load {os.getloadavg()[0]:.1f} at the start")
    found: dict[str, tuple[list[float], list[float]]] = {}
    for name, measure in (("mamfed", our_ends), ("flower", flowers_ends)):
        if given.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                ends = measure(Path(folder), given.rounds, given.evaluated)
            found[name] = split(ends, given.rounds)
            show(name, *found[name])
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    if len(found) == 2:
        ratios = [median(f) / median(o) for o, f in zip(*found.values(), strict=True)]
        print(f"stock Flower takes {ratios[0]:.1f} x and {ratios[1]:.1f} x as long")
    slow = "mamfed" in found and median(found["mamfed"][0]) > TARGET_SECONDS
    return int(slow)


def show(name: str, one: Sequence[float], two: Sequence[float]) -> None:
    for exchanges, seconds in (("one exchange ", one), ("two exchanges", two)):
        print(
            f"{name}  {exchanges}  median {median(seconds):5.2f} s   min {min(seconds):5.2f} s   "
            f"max {max(seconds):5.2f} s   ({len(seconds)} rounds)",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
