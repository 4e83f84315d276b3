"""What a site trains on in one round: seeded batches, made on the fly, ahead of the steps.

Order, augmentation and corruption come from generators named after site, stage, round, epoch and
image, so nothing depends on what was drawn before. Where a round counts steps, images come in laps
that run on from round to round: an order is named after its lap, all else after the position in the
whole stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
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
"""Which image, and the names of the generator that it is moved by."""


class RoundContext(NamedTuple):
    """Whose turn it is: the site, and the round within the stage, counted from 1."""

    site: str
    server_round: int


class BatchShard(NamedTuple):
    """Which images of every batch a process makes: every ``world_size``-th from ``rank`` on."""

    rank: int = 0
    world_size: int = 1


class Batch(NamedTuple):
    """One step's images, each ``(N, 1, S, S)`` float32 in 0..1.

    ``N`` is 0 where a process has no share of a small batch.

    Attributes:
        inputs: What the network is given.
        targets: What it should make of it: the clean image in stage 1, the mask in stage 2.
        benign: Images without malignancy beside them in stage 2, half as many as in a full batch;
            None where the plan asks for none or the site has none.
        benign_breast_mask: 1 inside the breast on each of those, 0 outside; None where the plan
            has no use for it (``losses.empty``).
        total_images: Images of the whole batch, over all shares; 0 where there are only benign
            ones.
        total_benign: Benign images of the whole batch, over all shares.
    """

    inputs: Tensor
    targets: Tensor
    benign: Tensor | None
    benign_breast_mask: Tensor | None
    total_images: int
    total_benign: int

    @property
    def weight(self) -> int:
        """Return what the batch's loss counts in a mean over batches: its images."""
        return self.total_images or self.total_benign


class Batches:
    """A site's batches of one round of a stage."""

    def __init__(
        self,
        samples: Sequence[Sample],
        plan: TrainingPlan,
        stage: Stage,
        round_context: RoundContext,
        benign: Sequence[Sample] = (),
        share: BatchShard = BatchShard(),  # noqa: B008 - a tuple
    ) -> None:
        """Read nothing yet.

        Args:
            samples: The site's training images of the stage; in stage 2 perhaps none.
            plan: What to do.
            stage: The stage.
            round_context: Whose turn it is.
            benign: In stage 2, the site's training images that stand beside.
            share: Which images of every batch to make. The shares of a batch, put together, are
                the batch of one process, bit for bit.
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
        """Count the images of each kind that the round uses."""
        counts = {TRAINED_ON[self.stage]: len(self.samples)}
        if beside := self.plan.beside(self.stage):
            counts[beside] = len(self.benign)
        return {kind: count for kind, count in counts.items() if count}

    @property
    def epochs(self) -> int:
        """Count the round's passes over the images; one that counts steps is a single one."""
        return self.stage_plan.local_epochs or 1

    @property
    def steps_per_epoch(self) -> int:
        """Count the batches of one pass over the images, or of a round that counts them."""
        return self.plan.steps(self.stage, self.num_examples) // self.epochs

    @property
    def weight_per_epoch(self) -> int:
        """Add up what the batches of one pass weigh."""
        if len(self.samples) and self.stage_plan.local_steps is None:
            return len(self.samples)
        own, beside = self.stage_plan.batch_size, self.stage_plan.beside_size
        return self.steps_per_epoch * (own if len(self.samples) else beside)

    def epoch(self, epoch: int, first_step: int = 0, threads: int = 1) -> Iterator[Batch]:
        """Yield the batches of one pass over the images, from a step on.

        The next ones are made in the background while a step runs; how many threads make them
        changes no bit of any.

        Args:
            epoch: Which pass of the round, counted from 0.
            first_step: The step to begin with.
            threads: How many batches are made ahead, each in a thread; see :func:`loader_threads`.
        """
        steps = range(first_step, self.steps_per_epoch)
        return prefetch((partial(self._batch, epoch, step) for step in steps), threads)

    def _batch(self, epoch: int, step: int) -> Batch:
        """Make the share of one batch of an epoch."""
        whole = self._own(epoch, step) if len(self.samples) else []
        pairs = [self._pair(i, names) for i, names in whole[self._shared]]
        inputs = self._tensor([given for given, _ in pairs])
        targets = self._tensor([wanted for _, wanted in pairs])
        if not len(self.benign):
            return Batch(inputs, targets, None, None, len(whole), 0)
        drawn = self._beside(epoch, step)
        moved = [self._moved(i, names) for i, names in drawn[self._shared]]
        benign = self._tensor([sample.image for sample in moved])
        asked = self.plan.losses.empty
        breast_mask = self._tensor([sample.breast_mask for sample in moved]) if asked else None
        return Batch(inputs, targets, benign, breast_mask, len(whole), len(drawn))

    def _own(self, epoch: int, step: int) -> list[Draw]:
        """Draw a step's images of the stage: the next of a seeded order, each once an epoch."""
        size = self.stage_plan.batch_size
        if self.stage_plan.local_steps is not None:
            return self._running("image", len(self.samples), size, step)
        names = self._names(epoch)
        order = self._order(len(self.samples), "order", *names)
        whole = order[step * size : (step + 1) * size]
        return [(i, ("image", *names, i)) for i in whole]

    def _beside(self, epoch: int, step: int) -> list[Draw]:
        """Draw a step's benign images: the next of a seeded order, again and again."""
        size, count = self.stage_plan.beside_size, len(self.benign)
        if self.stage_plan.local_steps is not None:
            return self._running("benign image", count, size, step)
        names = self._names(epoch)
        order = self._order(count, "benign order", *names)
        places = range(step * size, (step + 1) * size)
        return [(order[p % count], ("benign image", *names, p)) for p in places]

    def _running(self, what: str, count: int, size: int, step: int) -> list[Draw]:
        """Draw a step's images from laps that run on over all rounds of the stage."""
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
        """Stack a share's images, of which there may be none."""
        if not images:
            return torch.empty(0, 1, self.plan.image_size, self.plan.image_size)
        return to_tensor(images)

    @property
    def _shared(self) -> slice:
        return slice(self.share.rank, None, self.share.world_size)

    def progress(self, epoch: int, step: int) -> float:
        """Return how far through the whole stage a step of this round is, 0..1."""
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

    def _moved(self, index: int, names: tuple[str | int, ...]) -> Sample:
        """Return a benign image as a step sees it."""
        rng = generator(self.plan.seed, *names)
        moved = apply_geometry(self.benign[index], self.plan.augmentation, rng)
        return vary_intensity(moved, self.plan.augmentation, rng)


def loader_threads(device: torch.device) -> int:
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
