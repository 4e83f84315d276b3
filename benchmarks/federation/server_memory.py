"""Measure the coordinator's memory by number of sites and over many rounds, beside Flower's.

Usage: python -m benchmarks.federation.server_memory [--sites 2 5 10] [--rounds 200]

The server process is the real one, started by its command, with TLS and request guard. The sites
are threads of this process: they use Flower's own client (1.41-1.42) and mamfed's connection, fetch
everything they are sent, and answer with an update that was packed once. The peer is Flower's
FedAvg aggregation alone, over as many replies of the same size, without the SuperLink that would
hold them in a stock deployment. Peaks are VmHWM of /proc; MB are millions of bytes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mamfed_common.runtime import terminal

terminal.set_environment()

import httpx  # noqa: E402
import torch  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: E402
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict  # noqa: E402
from flwr.app.message.message import remove_content_from_message  # noqa: E402
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords  # noqa: E402
from flwr.supercore.inflatable.inflatable_object import (  # noqa: E402
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import pull_objects, push_objects  # noqa: E402
from flwr.supernode import fleet_http_connection  # noqa: E402
from tests.processes.deployment import Deployment, wait_until  # noqa: E402

from benchmarks.lib.harness import peak_mib  # noqa: E402
from mamfed_client.node.connection import Connection, fleet_client  # noqa: E402
from mamfed_client.site.settings import SiteHome  # noqa: E402
from mamfed_common.model.config import NetworkConfig  # noqa: E402
from mamfed_common.model.malignancy_net import MalignancyNetwork  # noqa: E402
from mamfed_common.model.state_dict import state_of  # noqa: E402
from mamfed_common.plan import FederationPlan, FinetuningPlan, StagePlan, TrainingPlan  # noqa: E402
from mamfed_common.protocol.messages import pack  # noqa: E402
from mamfed_common.protocol.tasks import SiteDescription, TrainReport  # noqa: E402
from mamfed_common.security.enrolment import read_welcome  # noqa: E402
from mamfed_common.security.keys import read_key  # noqa: E402

LARGE = NetworkConfig(channels=(32, 64, 128, 1800, 1800))
SMALL = NetworkConfig(channels=(8, 16))
IMAGES = 2
POLL_SECONDS = 0.05
LARGE_ROUNDS = 2
SETTLED = 20
"""Number of rounds after which memory should no longer grow."""
ALLOWED_GROWTH = 1.05


def plan_of(network: NetworkConfig, rounds: int, sites: int) -> TrainingPlan:
    """Return a plan that starts as soon as ``sites`` sites are online."""
    pretraining = StagePlan(rounds=rounds, learning_rate=1e-3, quorum=sites)
    return TrainingPlan(
        image_size=32,
        network=network,
        pretraining=pretraining,
        finetuning=FinetuningPlan(rounds=0, learning_rate=1e-3),
        federation=FederationPlan(min_sites=2, join_seconds=0),
    )


def megabytes_of(network: NetworkConfig) -> float:
    return sum(t.nbytes for t in state_of(MalignancyNetwork(network)).values()) / 1e6


def answers_of(name: str, network: NetworkConfig, seed: int) -> dict[str, RecordDict]:
    """Return a light site's answers; no two sites share the same bytes."""
    torch.manual_seed(seed)
    images = {"benign": {"train": IMAGES}}
    description = SiteDescription(
        site=name, images=images, patients={}, rows=IMAGES, rejected={}, left_out={}, vendors={}
    )
    report = TrainReport(num_examples={"benign": IMAGES}, loss=1.0)
    return {
        MessageType.QUERY: pack(description),
        MessageType.TRAIN: pack(report, state_of(MalignancyNetwork(network))),
    }


@contextmanager
def light_site(home: SiteHome, answers: dict[str, RecordDict]) -> Iterator[None]:
    """Run a site in a thread until the context ends."""
    server, over = read_welcome(home.welcome).server, threading.Event()
    key = read_key(home.node_key, EllipticCurvePrivateKey)
    fleet_http_connection.FleetHttpClient = fleet_client(Connection(home, server, sys.exit))
    with fleet_http_connection.http_request_response(
        server, False, home.ca.read_bytes(), (key, key.public_key()), max_wait_time=2
    ) as calls:
        thread = threading.Thread(target=answer_all, args=(calls, answers, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(30)


def answer_all(
    calls: tuple[object, ...], answers: dict[str, RecordDict], over: threading.Event
) -> None:
    """Answer every request until the run ends."""
    _, receive, send, _, _, pull, push, confirm = calls
    while not over.wait(POLL_SECONDS):
        try:
            if (found := receive()) is None:
                continue
            message, tree = found
            run_id, ids = message.metadata.run_id, [o.object_id for o in iterate_object_tree(tree)]
            pull_objects(ids, pull_object_fn=lambda part, run_id=run_id: pull(run_id, part))
            confirm(run_id, message.metadata.message_id)
            send_answer(message, answers[message.metadata.message_type], send, push)
        except httpx.HTTPError:  # the server has ended
            return


def send_answer(
    message: Message, content: RecordDict, send: Callable[..., object], push: Callable[..., None]
) -> None:
    """Push an answer as a SuperNode does."""
    reply = Message(content, reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    with no_object_id_recompute():
        wanted, session = send(remove_content_from_message(reply), get_object_tree(reply), 0.1)
        push_objects(
            get_all_nested_objects(reply),
            lambda part, data: push(message.metadata.run_id, session, part, data),
            object_ids_to_push=wanted,
        )


class Server:
    """A run in progress, with the memory of its process."""

    def __init__(self, federation: Deployment, plan: TrainingPlan, run: str) -> None:
        """Start the run."""
        self._federation, self._run = federation, run
        path = federation.folder / f"{run}.yaml"
        path.write_text(plan.to_yaml())
        federation.start_server(path, run)
        wait_until(lambda: "address" in self._status(), "the coordinator listens")
        self._pid = int(self._status()["pid"])

    def _status(self) -> dict[str, Any]:
        """Return the server's status; empty if it belongs to an earlier run."""
        try:
            found = json.loads((self._federation.server_home / "status.json").read_text())
        except FileNotFoundError:
            return {}
        return found if found.get("run") == self._run else {}

    def memory(self, field: str) -> float:
        """Return a field of /proc/PID/status in MB; 0 when the process is gone."""
        return memory_of(self._pid, field)

    def rounds(self) -> int:
        """Return how many rounds have ended."""
        path = self._federation.run_folder(self._run) / "rounds.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def ended(self) -> bool:
        """Return whether the run has ended; fail if it did not finish."""
        code = self._federation.processes["server"].poll()
        if code:
            raise RuntimeError(self._federation.story())
        return code is not None


def memory_of(pid: int | str, field: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 / 1e6 if found else 0.0


@contextmanager
def running(
    federation: Deployment, network: NetworkConfig, sites: list[str], rounds: int, run: str
) -> Iterator[Server]:
    """Start a run and its light sites."""
    server = Server(federation, plan_of(network, rounds, len(sites)), run)
    with ExitStack() as stack:
        for seed, name in enumerate(sites):
            home = SiteHome(federation.site_home(name))
            stack.enter_context(light_site(home, answers_of(name, network, seed)))
        yield server
    federation.processes.pop("server").wait(60)


def peak(federation: Deployment, sites: list[str]) -> float:
    """Return the server's peak over some rounds of the large model."""
    highest = 0.0
    with running(federation, LARGE, sites, LARGE_ROUNDS, f"of-{len(sites)}") as server:

        def over() -> bool:
            nonlocal highest
            highest = max(highest, server.memory("VmHWM"))
            return server.ended()

        wait_until(over, "the run of the large model")
    return highest


def growth(federation: Deployment, sites: list[str], rounds: int) -> tuple[float, float]:
    """Return the server's memory after 20 rounds of a small model, and after many."""
    with running(federation, SMALL, sites, rounds + 5, "long") as server:
        wait_until(lambda: server.rounds() >= SETTLED or server.ended(), "20 rounds")
        settled = server.memory("VmRSS")
        wait_until(lambda: server.rounds() >= rounds or server.ended(), f"{rounds} rounds")
        found = server.memory("VmRSS")
        wait_until(server.ended, "the run of the small model")
    return settled, found


def flowers_peak(sites: int) -> float:
    """Return the peak of a process that averages ``sites`` replies with Flower's own function."""
    return peak_mib(__spec__.name, "--replies", str(sites))


def average_replies(sites: int) -> None:
    """Average with Flower's own function in this process; print its peak memory."""
    replies = []
    for seed in range(sites):
        torch.manual_seed(seed)
        state = state_of(MalignancyNetwork(LARGE))
        arrays = ArrayRecord({name: Array(tensor.numpy()) for name, tensor in state.items()})
        metrics = MetricRecord({"num-examples": seed + 1})
        replies.append(RecordDict({"arrays": arrays, "metrics": metrics}))
    aggregate_arrayrecords(replies, "num-examples")
    print(memory_of("self", "VmHWM"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, nargs="*", default=[2, 5, 10])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--replies", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replies:
        average_replies(given.replies)
        return 0
    logging.disable(logging.WARNING)  # a light site's line fails when its server has ended
    names = [f"site-{number}" for number in range(max([2, *given.sites]))]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        with Deployment(Path(folder), dict.fromkeys(names, data)) as federation:
            fits = show_peaks(federation, names, sorted(given.sites))
            return 0 if show_growth(federation, names[:2], given.rounds) and fits else 1


def show_peaks(federation: Deployment, names: list[str], counts: list[int]) -> bool:
    """Print the peaks by number of sites; return whether their growth stays within the limit."""
    model, peaks = megabytes_of(LARGE), {}
    print(f"{model:.0f} MB of weights, {LARGE_ROUNDS} rounds, load {os.getloadavg()[0]:.1f}")
    for count in counts:
        started = time.monotonic()
        peaks[count], flowers = peak(federation, names[:count]), flowers_peak(count)
        print(
            f"{count:3d} sites   server {peaks[count]:6.0f} MB   Flower's FedAvg alone "
            f"{flowers:6.0f} MB   {flowers / peaks[count]:.2f} x   "
            f"({time.monotonic() - started:.0f} s)",
            flush=True,
        )
    if len(counts) < 2:
        return True
    more = (peaks[counts[-1]] - peaks[counts[0]]) / (counts[-1] - counts[0])
    print(f"{more:.0f} MB for each site more, all of them in flight at once: {more / model:.2f}")
    return more <= model


def show_growth(federation: Deployment, sites: list[str], rounds: int) -> bool:
    """Print the memory growth over many rounds; return whether it is negligible."""
    if not rounds:
        return True
    settled, found = growth(federation, sites, rounds)
    print(
        f"2 sites, small model: {settled:.0f} MB after {SETTLED} rounds, {found:.0f} MB after "
        f"{rounds} ({found / settled - 1:+.1%}), load {os.getloadavg()[0]:.1f}"
    )
    return found <= ALLOWED_GROWTH * settled


if __name__ == "__main__":
    sys.exit(main())
