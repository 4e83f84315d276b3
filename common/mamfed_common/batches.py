"""What a site trains on in one round: seeded batches, made on the fly.

Order, augmentation and corruption come from generators named after site, stage, round, epoch and
image, so nothing depends on what was drawn before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mamfed_common.augmentation import move, vary_intensity
from mamfed_common.corruption import corrupt
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.samples import FULL_SCALE, Sample
from mamfed_common.seeds import generator

Pair = tuple[np.ndarray, np.ndarray]


class Turn(NamedTuple):
    """Whose turn it is: the site, and the round within the stage, counted from 1."""

    site: str
    server_round: int


class Batch(NamedTuple):
    """One step's images, each ``(N, 1, S, S)`` float32 in 0..1.

    Attributes:
        inputs: What the network is given.
        targets: What it should make of it: the clean image in stage 1, the mask in stage 2.
        benign: Benign images that it should go on reconstructing in stage 2, half as many; None
            where the plan asks for none or the site has none.
    """

    inputs: Tensor
    targets: Tensor
    benign: Tensor | None


class Batches:
    """A site's batches of one round of a stage."""

    def __init__(
        self,
        samples: Sequence[Sample],
        plan: TrainingPlan,
        stage: Stage,
        turn: Turn,
        benign: Sequence[Sample] = (),
    ) -> None:
        """Read nothing yet.

        Args:
            samples: The site's training images of the stage.
            plan: What to do.
            stage: The stage.
            turn: Whose turn it is.
            benign: In stage 2, the site's benign training images.
        """
        self.samples = samples
        self.benign = benign if stage is Stage.FINETUNING and plan.losses.benign else ()
        self.plan = plan
        self.stage = stage
        self.stage_plan = plan.stage(stage)
        self.turn = turn

    @property
    def steps_per_epoch(self) -> int:
        """Count the batches of one pass over the images."""
        return math.ceil(len(self.samples) / self.stage_plan.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of one pass over the images, from a step on."""
        names = (self.stage, self.turn.site, self.turn.server_round, epoch)
        order = generator(self.plan.seed, "order", *names).permutation(len(self.samples))
        size = self.stage_plan.batch_size
        for start in range(first_step * size, len(order), size):
            indices = [int(i) for i in order[start : start + size]]
            pairs = [
                self._pair(self.samples[i], generator(self.plan.seed, "image", *names, i))
                for i in indices
            ]
            inputs, targets = zip(*pairs, strict=True)
            yield Batch(to_tensor(inputs), to_tensor(targets), self._beside(names, start // size))

    def _beside(self, names: tuple[str | int, ...], step: int) -> Tensor | None:
        """Return the benign images of a step: the next of a seeded order, again and again."""
        if not len(self.benign):
            return None
        order = generator(self.plan.seed, "benign order", *names).permutation(len(self.benign))
        count = max(1, self.stage_plan.batch_size // 2)
        images = []
        for position in range(step * count, (step + 1) * count):
            rng = generator(self.plan.seed, "benign image", *names, position)
            sample = self.benign[int(order[position % len(order)])]
            moved = move(sample, self.plan.augmentation, rng)
            images.append(vary_intensity(moved, self.plan.augmentation, rng).image)
        return to_tensor(images)

    def progress(self, epoch: int, step: int) -> float:
        """Return how far through the whole stage a step of this round is, 0..1."""
        in_round = (epoch + step / self.steps_per_epoch) / self.stage_plan.local_epochs
        return (self.turn.server_round - 1 + in_round) / self.stage_plan.rounds

    def _pair(self, sample: Sample, rng: np.random.Generator) -> Pair:
        """Return input and target, ``(S, S)`` uint16: corrupted and clean, or image and mask."""
        moved = move(sample, self.plan.augmentation, rng)
        if self.stage is Stage.PRETRAINING:
            return corrupt(moved.image, moved.field, self.plan.corruption, rng), moved.image
        varied = vary_intensity(moved, self.plan.augmentation, rng)
        return varied.image, varied.mask.astype(np.uint16) * np.uint16(FULL_SCALE)


def to_tensor(images: Sequence[np.ndarray]) -> Tensor:
    """Stack ``(S, S)`` uint16 arrays into ``(N, 1, S, S)`` float32 in 0..1."""
    stacked = np.stack(images)[:, None].astype(np.float32)
    return torch.from_numpy(stacked).div_(FULL_SCALE)
