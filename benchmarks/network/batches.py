"""Measure how long a training step waits for its batch, beside the step itself.

Phantoms are prepared into a real cache, and an epoch of the default plan is trained from it in
float32 with one image per batch, using training's own functions for forward, backward and the
optimizer. For both stages it records

- how long a step waits for its batch, which a thread makes in advance;
- what a batch costs when nothing else runs, beside the step;
- seconds per image with one and with two threads that only make batches, which shows what more
  cores would bring.

Usage: python -m benchmarks.network.batches [--size 1536] [--images 6] [--threads 2]
       [--data PREPARED]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.lib.harness import record, take_turns
from benchmarks.network.cached_samples import Cached, cached_samples
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.training.batches import Batches, RoundContext, loader_threads
from mamfed_common.training.objective import StepLoss, optimizer_step

CPU = torch.device("cpu")
GPU_TARGET = 60
"""Images a second that eight cores should make."""


class Fed:
    """Training of one stage, step by step, and what it waits for."""

    def __init__(self, batches: Batches) -> None:
        network = MalignancyNetwork(batches.plan.network).train()
        self.batches = batches
        self.loss_of = StepLoss(network, batches, CPU)
        self.anchor = [parameter.detach().clone() for parameter in network.parameters()]
        self.optimizer = torch.optim.AdamW(network.parameters(), 1e-4)

    def epoch(self) -> tuple[list[float], list[float]]:
        """Train an epoch; return the seconds waited before each step but the first, and its own.

        The first batch of an epoch is the only one with no step before it.
        """
        waited, stepped = [], []
        asked = time.perf_counter()
        for batch in self.batches.epoch(0, threads=loader_threads(CPU)):
            came = time.perf_counter()
            optimizer_step(self.optimizer, self.loss_of(batch), self.anchor, 0)
            waited.append(came - asked)
            asked = time.perf_counter()
            stepped.append(asked - came)
        return waited[1:], stepped[1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--images", type=int, default=6, help="images of each kind: steps plus one")
    parser.add_argument("--threads", type=int, default=2, help="threads of a training step")
    parser.add_argument("--runs", type=int, default=5, help="runs that only make images")
    parser.add_argument("--data", type=Path, help="a prepared folder, instead of phantoms")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        malignant, benign = (
            cached_samples(
                Path(folder),
                arguments.data,
                size=arguments.size,
                count=arguments.images,
                malignant=malignant,
            )
            for malignant in (True, False)
        )
        for stage in Stage:
            compare(batches_of(stage, malignant, benign), arguments)


def batches_of(stage: Stage, malignant: Cached, benign: Cached) -> Batches:
    """Return the batches of one pass over the images, one in each, in stage 2 one beside it."""
    side = malignant[0].image.shape[0]
    stage_plan = {"rounds": 1, "local_epochs": 1, "batch_size": 1, "learning_rate": 1e-3}
    plan = TrainingPlan().changed(image_size=side, pretraining=stage_plan, finetuning=stage_plan)
    samples = benign if stage is Stage.PRETRAINING else malignant
    return Batches(samples, plan, stage, RoundContext("site", 1), benign)


def compare(batches: Batches, arguments: argparse.Namespace) -> None:
    what = f"{batches.stage}, {batches.plan.image_size} x {batches.plan.image_size}"
    consume(batches, 1)  # each file's checksum is looked at once
    waited, stepped = Fed(batches).epoch()
    record(f"waiting for a batch, {what}", waited, stepped, peer_name="the step it feeds", unit="s")
    alone, side_by_side = each_image(batches, arguments.runs)
    steps = [sum(stepped) / len(stepped)] * len(alone)
    images = 2 if batches.stage is Stage.FINETUNING else 1
    record(
        f"making a batch, {what}",
        [seconds * images for seconds in alone],
        steps,
        peer_name="the step it feeds",
        unit="s",
    )
    name = f"seconds an image, {what}"
    target = [1 / GPU_TARGET] * len(alone)
    record(f"{name}, 1 thread", alone, target, peer_name=f"{GPU_TARGET} images/s", unit="s")
    record(f"{name}, 2 threads", side_by_side, alone, peer_name="1 thread", unit="s")


def each_image(batches: Batches, runs: int) -> tuple[list[float], list[float]]:
    """Return the seconds an image takes with one and with two threads, in turns."""
    passes = 4
    images = passes * len(batches.samples) * (2 if batches.stage is Stage.FINETUNING else 1)
    calls = {
        number: (lambda number=number: [consume(batches, number, e) for e in range(passes)])
        for number in (1, 2)
    }
    seconds = take_turns({str(number): call for number, call in calls.items()}, runs=runs)
    one, two = ([round_context / images for round_context in turns] for turns in seconds.values())
    return one, two


def consume(batches: Batches, threads: int, epoch: int = 0) -> None:
    """Make all batches of an epoch and do nothing with them."""
    for _ in batches.epoch(epoch, threads=threads):
        pass


if __name__ == "__main__":
    main()
