"""A site's batches of one round: seeded, built on the fly and ahead of the steps.

Order, augmentation and corruption come from generators seeded with site, stage, round, epoch and
image, so no draw depends on an earlier one. Where a round counts steps, the site passes through its
images in laps that continue from round to round: the seed of an order holds its lap, and every
other seed holds the position within the whole stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mamfed_common.domain import Purpose
from mamfed_common.plan import TRAINED_ON, Stage, TrainingPlan
from mamfed_common.runtime.seeds import generator
from mamfed_common.training.prefetch import prefetch
from mamfed_common.transforms.augmentation import apply_geometry, vary_intensity
from mamfed_common.transforms.corruption import corrupt
from mamfed_common.transforms.sample import FULL_SCALE, Sample

Pair = tuple[np.ndarray, np.ndarray]
Draw = tuple[int, tuple[str | int, ...]]
"""Index of an image, and the seed names of the generator that transforms it."""


class RoundContext(NamedTuple):
    """The site that trains, and the round within the stage, from 1."""

    site: str
    server_round: int


class BatchShard(NamedTuple):
    """A process's images of every batch: each ``world_size``-th, starting at ``rank``."""

    rank: int = 0
    world_size: int = 1


class Batch(NamedTuple):
    """The images of one step, each tensor ``(N, 1, S, S)`` float32 in 0..1.

    ``N`` is 0 if the batch has too few images for every process.

    Attributes:
        inputs: The network's input.
        targets: The desired output: the clean image in stage 1, the mask in stage 2.
        benign: Companion images without malignancy in stage 2, half as many as in a full batch;
            None if the plan uses none or the site has none.
        benign_breast_mask: 1 inside the breast of each companion image, 0 outside; None if the
            plan does not need it (``losses.empty``).
        total_images: Images of the batch over all processes; 0 if it has companion images only.
        total_benign: Companion images of the batch over all processes.
    """

    inputs: Tensor
    targets: Tensor
    benign: Tensor | None
    benign_breast_mask: Tensor | None
    total_images: int
    total_benign: int

    @property
    def weight(self) -> int:
        """Return the batch's weight in a mean over batches: its number of images."""
        return self.total_images or self.total_benign


class Batches:
    """The batches of one round of a stage at one site."""

    def __init__(
        self,
        samples: Sequence[Sample],
        plan: TrainingPlan,
        stage: Stage,
        round_context: RoundContext,
        benign: Sequence[Sample] = (),
        share: BatchShard = BatchShard(),  # noqa: B008 - a tuple
    ) -> None:
        """Describe the batches; no sample is read yet.

        Args:
            samples: The site's training images of the stage; in stage 2 possibly none.
            plan: The training plan.
            stage: The stage.
            round_context: The site and the round.
            benign: Stage 2 only: the site's companion images.
            share: Which images of every batch to build. The shares of all processes add up to the
                batch of a single process, bit for bit.
        """
        self.samples = samples
        self.benign = benign if plan.beside(stage) else ()
        self.plan = plan
        self.stage = stage
        self.stage_plan = plan.stage(stage)
        self.round_context = round_context
        self.share = share

    @property
    def num_examples(self) -> dict[Purpose, int]:
        """Return the number of images of each purpose that the round uses."""
        counts = {TRAINED_ON[self.stage]: len(self.samples)}
        if beside := self.plan.beside(self.stage):
            counts[beside] = len(self.benign)
        return {kind: count for kind, count in counts.items() if count}

    @property
    def epochs(self) -> int:
        """Return the round's passes over the images; 1 if the round counts steps."""
        return self.stage_plan.local_epochs or 1

    @property
    def steps_per_epoch(self) -> int:
        """Return the batches of one pass over the images, or of the round if it counts steps."""
        return self.plan.steps(self.stage, self.num_examples) // self.epochs

    @property
    def weight_per_epoch(self) -> int:
        """Return the sum of the weights of one pass's batches."""
        if len(self.samples) and self.stage_plan.local_steps is None:
            return len(self.samples)
        own, beside = self.stage_plan.batch_size, self.stage_plan.beside_size
        return self.steps_per_epoch * (own if len(self.samples) else beside)

    def epoch(self, epoch: int, first_step: int = 0, threads: int = 1) -> Iterator[Batch]:
        """Yield the batches of one pass over the images, starting at ``first_step``.

        Background threads build the next batches while a step runs. The number of threads does not
        change any bit of the batches.

        Args:
            epoch: Pass of the round, from 0.
            first_step: First step to yield, from 0.
            threads: Batches built ahead, one per thread; see :func:`loader_threads`.
        """
        steps = range(first_step, self.steps_per_epoch)
        return prefetch((partial(self._batch, epoch, step) for step in steps), threads)

    def _batch(self, epoch: int, step: int) -> Batch:
        """Build this process's share of one batch."""
        images = self._draw_images(epoch, step) if len(self.samples) else []
        companions = self._draw_companions(epoch, step) if len(self.benign) else []
        return self.of(images, companions)

    def of(self, images: Sequence[Draw], companions: Sequence[Draw]) -> Batch:
        """Build this process's share of the batch of some images and companion images."""
        pairs = [self._pair(i, names) for i, names in images[self._shared]]
        inputs = self._tensor([source for source, _ in pairs])
        targets = self._tensor([target for _, target in pairs])
        if not companions:
            return Batch(inputs, targets, None, None, len(images), 0)
        varied = [self._companion(i, names) for i, names in companions[self._shared]]
        benign = self._tensor([sample.image for sample in varied])
        needs_mask = self.plan.losses.empty
        breast_mask = (
            self._tensor([sample.breast_mask for sample in varied]) if needs_mask else None
        )
        return Batch(inputs, targets, benign, breast_mask, len(images), len(companions))

    def drawn(self) -> tuple[set[int], set[int]]:
        """Return the images and the companion images that the round uses, by their index."""
        images: set[int] = set()
        companions: set[int] = set()
        for epoch, step in product(range(self.epochs), range(self.steps_per_epoch)):
            if len(images) == len(self.samples) and len(companions) == len(self.benign):
                break  # nothing is left to draw
            if len(self.samples):
                images |= {i for i, _ in self._draw_images(epoch, step)}
            if len(self.benign):
                companions |= {i for i, _ in self._draw_companions(epoch, step)}
        return images, companions

    def _draw_images(self, epoch: int, step: int) -> list[Draw]:
        """Draw a step's images of the stage: the next in a seeded order, each once an epoch."""
        size = self.stage_plan.batch_size
        if self.stage_plan.local_steps is not None:
            return self._draw_lap("image", len(self.samples), size, step)
        names = self._names(epoch)
        order = self._order(len(self.samples), "order", *names)
        return [(i, ("image", *names, i)) for i in order[step * size : (step + 1) * size]]

    def _draw_companions(self, epoch: int, step: int) -> list[Draw]:
        """Draw a step's companion images: the next in a seeded order that repeats."""
        size, count = self.stage_plan.beside_size, len(self.benign)
        if self.stage_plan.local_steps is not None:
            return self._draw_lap("benign image", count, size, step)
        names = self._names(epoch)
        order = self._order(count, "benign order", *names)
        places = range(step * size, (step + 1) * size)
        return [(order[p % count], ("benign image", *names, p)) for p in places]

    def _draw_lap(self, what: str, count: int, size: int, step: int) -> list[Draw]:
        """Draw a step's images from laps that continue over all rounds of the stage."""
        assert self.stage_plan.local_steps is not None
        names = (self.stage, self.round_context.site)
        steps_before = (self.round_context.server_round - 1) * self.stage_plan.local_steps + step
        places = range(steps_before * size, (steps_before + 1) * size)
        orders = {
            lap: self._order(count, f"{what} lap", *names, lap)
            for lap in range(places[0] // count, places[-1] // count + 1)
        }
        return [(orders[p // count][p % count], (f"{what} at", *names, p)) for p in places]

    def _names(self, epoch: int) -> tuple[str | int, ...]:
        return (self.stage, self.round_context.site, self.round_context.server_round, epoch)

    def _order(self, count: int, *names: str | int) -> list[int]:
        order: list[int] = generator(self.plan.seed, *names).permutation(count).tolist()
        return order

    def _tensor(self, images: Sequence[np.ndarray]) -> Tensor:
        """Stack images, of which there may be none."""
        if not images:
            return torch.empty(0, 1, self.plan.image_size, self.plan.image_size)
        return to_tensor(images)

    @property
    def _shared(self) -> slice:
        return slice(self.share.rank, None, self.share.world_size)

    def progress(self, epoch: int, step: int) -> float:
        """Return the position of a step of this round within the whole stage, 0..1."""
        in_round = (epoch + step / self.steps_per_epoch) / self.epochs
        return (self.round_context.server_round - 1 + in_round) / self.stage_plan.rounds

    def _pair(self, index: int, names: tuple[str | int, ...]) -> Pair:
        """Return input and target, ``(S, S)``: corrupted and clean image, or image and mask."""
        rng = generator(self.plan.seed, *names)
        moved = apply_geometry(self.samples[index], self.plan.augmentation, rng)
        if self.stage is Stage.PRETRAINING:
            return corrupt(moved.image, moved.breast_mask, self.plan.corruption, rng), moved.image
        varied = vary_intensity(moved, self.plan.augmentation, rng)
        return varied.image, varied.mask

    def _companion(self, index: int, names: tuple[str | int, ...]) -> Sample:
        """Return a companion image after augmentation."""
        rng = generator(self.plan.seed, *names)
        moved = apply_geometry(self.benign[index], self.plan.augmentation, rng)
        return vary_intensity(moved, self.plan.augmentation, rng)


def loader_threads(device: torch.device) -> int:
    """Return the number of threads that build batches for a device.

    On a CPU a step takes a hundred times as long as building its images, so one thread is enough; a
    GPU needs up to four to stay busy.
    """
    return 1 if device.type == "cpu" else max(1, min(4, torch.get_num_threads()))


def to_tensor(images: Sequence[np.ndarray]) -> Tensor:
    """Stack ``(S, S)`` arrays, uint16 or bool, into ``(N, 1, S, S)`` float32 in 0..1."""
    tensor = torch.empty(len(images), 1, *images[0].shape)
    for image, place in zip(images, tensor.numpy()[:, 0], strict=True):
        full_scale = 1 if image.dtype == bool else FULL_SCALE
        np.divide(image, np.float32(full_scale), out=place, dtype=np.float32)
    return tensor
