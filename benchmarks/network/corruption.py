"""Measure corruption and augmentation of one image in one thread, beside Models Genesis.

Ours is what a batch needs: a prepared uint16 image is flipped, rotated, scaled and corrupted with
the default plan's probabilities and returned as two float32 tensors, corrupted and clean. The peer
(``models_genesis.py``) takes and returns float32 and neither rotates nor scales. It runs as
published and without its local shuffling, which mamfed omits; the latter is also compared with our
corruption alone. Each turn is the mean over all images, each with its own random generator. Times
are CPU seconds, so other programs do not count. The last figure compares what one core makes with
the target of 150 images per second.

Usage: python -m benchmarks.network.corruption [--size 1536] [--images 8] [--runs 5]
       [--data PREPARED]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch

from benchmarks.lib.harness import record, take_turns
from benchmarks.network.cached_samples import cached_samples
from benchmarks.network.models_genesis import genesis
from mamfed_common.training.batches import to_tensor
from mamfed_common.transforms.augmentation import apply_geometry, vary_intensity
from mamfed_common.transforms.config import AugmentationConfig, CorruptionConfig
from mamfed_common.transforms.corruption import corrupt
from mamfed_common.transforms.sample import FULL_SCALE, Sample

PEER = "Models Genesis"
UNSHUFFLED = "Models Genesis without shuffling"
T = TypeVar("T")
TARGET = 150
"""Images a second and core."""


def corruption(sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """Corrupt an image where it stands, uint16."""
    return corrupt(sample.image, sample.breast_mask, CorruptionConfig(), rng)


def pretraining(sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make input and target of stage 1, uint16."""
    moved = apply_geometry(sample, AugmentationConfig(), rng)
    return corrupt(moved.image, moved.breast_mask, CorruptionConfig(), rng), moved.image


def finetuning(sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make input and target of stage 2, uint16 and bool."""
    varied = vary_intensity(
        apply_geometry(sample, AugmentationConfig(), rng), AugmentationConfig(), rng
    )
    return varied.image, varied.mask


def in_floats(sample: Sample, rng: np.random.Generator) -> list[torch.Tensor]:
    """Make input and target of stage 1, float32."""
    return [to_tensor([image]) for image in pretraining(sample, rng)]


def all_of(images: list[T], make: Callable[[T, np.random.Generator], object]) -> Callable[[], None]:
    """Make every image; no turn draws what another did."""
    turn = np.random.SeedSequence(0)

    def call() -> None:
        for image, seed in zip(images, turn.spawn(len(images)), strict=True):
            make(image, np.random.default_rng(seed))

    return call


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1536, help="side of the phantoms")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", type=Path, help="a prepared folder, instead of phantoms")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        samples = list(
            cached_samples(
                Path(folder), arguments.data, size=arguments.size, count=arguments.images
            )
        )
        compare(samples, arguments)


def compare(samples: list[Sample], arguments: argparse.Namespace) -> None:
    side, (images, runs) = samples[0].image.shape[0], (len(samples), arguments.runs)
    covered = np.mean([sample.breast_mask.mean() for sample in samples])
    print(f"{images} images, {side} x {side}, breast {covered:.0%} of the grid, one thread")
    floats = [sample.image.astype(np.float32) / FULL_SCALE for sample in samples]
    seconds = take_turns(
        {
            "all": all_of(samples, in_floats),
            "corruption": all_of(samples, corruption),
            PEER: all_of(floats, partial(genesis, shuffle=True)),
            UNSHUFFLED: all_of(floats, partial(genesis, shuffle=False)),
        },
        runs=runs,
        clock=time.process_time,
    )
    each = {name: [turn / images for turn in turns] for name, turns in seconds.items()}
    where = f"{side} x {side}, one core"
    for peer in (PEER, UNSHUFFLED):
        name = f"corruption + augmentation, {where}"
        record(name, each["all"], each[peer], peer_name=peer, unit="s")
    name = f"corruption alone, {where}"
    record(name, each["corruption"], each[UNSHUFFLED], peer_name=UNSHUFFLED, unit="s")
    for stage, make in (("pretraining", pretraining), ("finetuning", finetuning)):
        call = {stage: all_of(samples, make)}
        (turns,) = take_turns(call, runs=runs, clock=time.process_time).values()
        name = f"an image moved and altered, {stage}, {where}"
        target = f"{TARGET} images/s a core"
        each_image = [turn / images for turn in turns]
        record(name, each_image, [1 / TARGET] * runs, peer_name=target, unit="s")


if __name__ == "__main__":
    main()
