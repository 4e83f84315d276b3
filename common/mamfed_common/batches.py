"""What a site trains on in one round: seeded batches, made on the fly, ahead of the steps.

Order, augmentation and corruption come from generators named after site, stage, round, epoch and
image, so nothing depends on what was drawn before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mamfed_common.ahead import ahead
from mamfed_common.augmentation import move, vary_intensity
from mamfed_common.corruption import corrupt
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.samples import FULL_SCALE, Sample
from mamfed_common.seeds import generator

Pair = tuple[np.ndarray, np.ndarray]
Order = npt.NDArray[np.int64]


class Turn(NamedTuple):
    """Whose turn it is: the site, and the round within the stage, counted from 1."""

    site: str
    server_round: int


class Share(NamedTuple):
    """Which images of every batch a process makes: those at ``rank``, ``rank + of``, and so on."""

    rank: int = 0
    of: int = 1


class Batch(NamedTuple):
    """One step's images, each ``(N, 1, S, S)`` float32 in 0..1.

    ``N`` is 0 where a process has no share of a small batch.

    Attributes:
        inputs: What the network is given.
        targets: What it should make of it: the clean image in stage 1, the mask in stage 2.
        benign: Benign images that it should go on reconstructing in stage 2, half as many; None
            where the plan asks for none or the site has none.
        of_images: Images of the whole batch, over all shares.
        of_benign: Benign images of the whole batch, over all shares.
    """

    inputs: Tensor
    targets: Tensor
    benign: Tensor | None
    of_images: int
    of_benign: int


class Batches:
    """A site's batches of one round of a stage."""

    def __init__(
        self,
        samples: Sequence[Sample],
        plan: TrainingPlan,
        stage: Stage,
        turn: Turn,
        benign: Sequence[Sample] = (),
        share: Share = Share(),  # noqa: B008 - a tuple
    ) -> None:
        """Read nothing yet.

        Args:
            samples: The site's training images of the stage.
            plan: What to do.
            stage: The stage.
            turn: Whose turn it is.
            benign: In stage 2, the site's benign training images.
            share: Which images of every batch to make. The shares of a batch, put together, are
                the batch of one process, bit for bit.
        """
        self.samples = samples
        self.benign = benign if stage is Stage.FINETUNING and plan.losses.benign else ()
        self.plan = plan
        self.stage = stage
        self.stage_plan = plan.stage(stage)
        self.turn = turn
        self.share = share

    @property
    def steps_per_epoch(self) -> int:
        """Count the batches of one pass over the images."""
        return math.ceil(len(self.samples) / self.stage_plan.batch_size)

    def epoch(self, epoch: int, first_step: int = 0, threads: int = 1) -> Iterator[Batch]:
        """Yield the batches of one pass over the images, from a step on.

        The next ones are made in the background while a step runs; how many threads make them
        changes no bit of any.

        Args:
            epoch: Which pass of the round, counted from 0.
            first_step: The step to begin with.
            threads: How many batches are made ahead, each in a thread; see :func:`makers`.
        """
        names = (self.stage, self.turn.site, self.turn.server_round, epoch)
        order = generator(self.plan.seed, "order", *names).permutation(len(self.samples))
        steps = range(first_step, self.steps_per_epoch)
        return ahead((partial(self._batch, names, order, step) for step in steps), threads)

    def _batch(self, names: tuple[str | int, ...], order: Order, step: int) -> Batch:
        """Make the share of one batch of an epoch, ``order`` its images."""
        size = self.stage_plan.batch_size
        whole = order[step * size : (step + 1) * size]
        pairs = [
            self._pair(self.samples[i], generator(self.plan.seed, "image", *names, i))
            for i in map(int, whole[self._shared])
        ]
        inputs = self._tensor([given for given, _ in pairs])
        targets = self._tensor([wanted for _, wanted in pairs])
        of_benign = max(1, size // 2) if len(self.benign) else 0
        benign = self._beside(names, step, of_benign) if of_benign else None
        return Batch(inputs, targets, benign, len(whole), of_benign)

    def _beside(self, names: tuple[str | int, ...], step: int, count: int) -> Tensor:
        """Return the benign images of a step: the next of a seeded order, again and again."""
        order = generator(self.plan.seed, "benign order", *names).permutation(len(self.benign))
        images = []
        for position in range(step * count, (step + 1) * count)[self._shared]:
            rng = generator(self.plan.seed, "benign image", *names, position)
            sample = self.benign[int(order[position % len(order)])]
            moved = move(sample, self.plan.augmentation, rng)
            images.append(vary_intensity(moved, self.plan.augmentation, rng).image)
        return self._tensor(images)

    def _tensor(self, images: Sequence[np.ndarray]) -> Tensor:
        """Stack a share's images, of which there may be none."""
        if not images:
            return torch.empty(0, 1, self.plan.image_size, self.plan.image_size)
        return to_tensor(images)

    @property
    def _shared(self) -> slice:
        return slice(self.share.rank, None, self.share.of)

    def progress(self, epoch: int, step: int) -> float:
        """Return how far through the whole stage a step of this round is, 0..1."""
        in_round = (epoch + step / self.steps_per_epoch) / self.stage_plan.local_epochs
        return (self.turn.server_round - 1 + in_round) / self.stage_plan.rounds

    def _pair(self, sample: Sample, rng: np.random.Generator) -> Pair:
        """Return input and target, ``(S, S)``: corrupted and clean image, or image and mask."""
        moved = move(sample, self.plan.augmentation, rng)
        if self.stage is Stage.PRETRAINING:
            return corrupt(moved.image, moved.field, self.plan.corruption, rng), moved.image
        varied = vary_intensity(moved, self.plan.augmentation, rng)
        return varied.image, varied.mask


def makers(device: torch.device) -> int:
    """Return how many threads make batches for a device.

    A CPU's own step takes a hundred times as long as its images, so one is enough there; a GPU is
    kept busy by up to four.
    """
    return 1 if device.type == "cpu" else max(1, min(4, torch.get_num_threads()))


def to_tensor(images: Sequence[np.ndarray]) -> Tensor:
    """Stack ``(S, S)`` arrays, uint16 or bool, into ``(N, 1, S, S)`` float32 in 0..1."""
    tensor = torch.empty(len(images), 1, *images[0].shape)
    for image, place in zip(images, tensor.numpy()[:, 0], strict=True):
        full_scale = 1 if image.dtype == bool else FULL_SCALE
        np.divide(image, np.float32(full_scale), out=place, dtype=np.float32)
    return tensor
