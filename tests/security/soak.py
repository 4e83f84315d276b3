"""Memory and descriptors over many rounds: ``python tests/security/soak.py [--seed N] [--quick]``.

The real round loop, its updates on disk and its checkpoints, in this process: 200 rounds of 10
sites, then 20 rounds of 1,000 sites. Between the warm-up (the first quarter) and the end,
resident memory and open descriptors grow by less than 5 %. The sites change every weight a little;
what they take themselves is not measured apart.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from mamfed_common.runtime import terminal

terminal.set_environment()

import torch  # noqa: E402
from flwr.app import Context, Message  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from tests.security.lib.attempts import Attempts, parse_with_seed  # noqa: E402

from mamfed_common.model.config import NetworkConfig  # noqa: E402
from mamfed_common.model.malignancy_net import build_network  # noqa: E402
from mamfed_common.model.state_dict import state_of  # noqa: E402
from mamfed_common.plan import FinetuningPlan, StagePlan, TrainingPlan  # noqa: E402
from mamfed_common.protocol.messages import pack, unpack_body, unpack_weights  # noqa: E402
from mamfed_common.protocol.tasks import SiteDescription, TrainReport, TrainTask  # noqa: E402
from mamfed_server.run.job import Job  # noqa: E402
from mamfed_server.run.run import run_job  # noqa: E402
from mamfed_server.run_folder.round_record import RoundRecord  # noqa: E402
from mamfed_simulations.federation.in_process import InProcessTransport  # noqa: E402

MOST_GROWTH = 0.05
IMAGES = 2


class Sample(NamedTuple):
    """What this process held after a round: MiB of memory, and open descriptors."""

    mib: float
    descriptors: int


def sample() -> Sample:
    """Measure this process."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return Sample(int(kib) / 1024, len(os.listdir("/proc/self/fd")))


def site_app(plan: TrainingPlan, seed: int) -> ClientApp:
    """Return sites that change every weight a little."""
    app, expected = ClientApp(), state_of(build_network(plan.network, 0))
    random_numbers = torch.Generator().manual_seed(seed)

    @app.query()
    def describe(message: Message, context: Context) -> Message:
        described = SiteDescription(
            site=f"site-{context.node_config['partition-id']}",
            images={"benign": {"train": IMAGES}},
            patients={},
            rows=IMAGES,
            rejected={},
            left_out={},
            vendors={},
        )
        return Message(pack(described), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        state = unpack_weights(message.content, unpack_body(message.content, TrainTask), expected)
        for tensor in state.values():
            tensor.add_(1e-4 * torch.randn(tensor.shape, generator=random_numbers))
        report = TrainReport(num_examples={"benign": IMAGES}, loss=1.0)
        return Message(pack(report, state), reply_to=message)

    return app


def soak(attempts: Attempts, sites: int, rounds: int, seed: int) -> None:
    """Run many rounds and note how memory and descriptors grew."""
    plan = TrainingPlan(
        image_size=64,
        seed=seed,
        network=NetworkConfig(channels=(8, 16), first_skip_level=1, stem=1),
        pretraining=StagePlan(rounds=rounds, learning_rate=1e-3, quorum=sites),
        finetuning=FinetuningPlan(rounds=0, learning_rate=1e-3),
    )
    samples: list[Sample] = []
    began = time.monotonic()

    def on_round(record: RoundRecord) -> None:
        samples.append(sample())

    with tempfile.TemporaryDirectory() as place:
        job = Job(plan=plan, folder=Path(place) / "run", num_nodes=sites, on_round=on_round)
        run_job(job, InProcessTransport(site_app(plan, seed), sites))
    quarter = max(2, rounds // 4)
    first, last = samples[quarter // 2 : quarter + 1], samples[-quarter:]
    memory = statistics.median(s.mib for s in last) / statistics.median(s.mib for s in first) - 1
    opened = max(s.descriptors for s in last) / max(s.descriptors for s in first) - 1
    fact = (
        f"memory {memory:+.1%} of {first[-1].mib:.0f} MiB, descriptors {opened:+.1%} of "
        f"{first[-1].descriptors}, {(time.monotonic() - began) / rounds:.2f} s a round"
    )
    grown = memory > MOST_GROWTH or opened > MOST_GROWTH
    attempts.note(f"{rounds} rounds of {sites} sites", fact if grown else "", fact)


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    given = parse_with_seed(parser)
    seed = given.seed
    torch.set_num_threads(1)
    attempts = Attempts()
    for sites, rounds in ((5, 30), (60, 8)) if given.quick else ((10, 200), (1000, 20)):
        soak(attempts, sites, rounds, seed)
    attempts.finish()


if __name__ == "__main__":
    main()
