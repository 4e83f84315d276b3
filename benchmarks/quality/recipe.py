"""Train the trials behind stage 2's recipe on real images: the figures of decision 0003.

Each trial is one training with one seed: stage 1 on benign images of mias and cbis, stage 2 on
cesm, and the Dice of cesm's *validation* patients after each epoch. Test patients are never read.
Usage: python -m benchmarks.quality.recipe --data data --cache CACHE [--list | TRIAL ...]
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from monai.losses import DiceCELoss, SSIMLoss
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quality.recipe_trials import NETWORKS, TRIALS, Trial
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.domain import Part, Purpose
from mamfed_common.model.unet import UNet
from mamfed_common.plan import EvaluationPlan, TrainingPlan
from mamfed_common.training.objective import MAX_GRADIENT_NORM
from mamfed_common.training.stages import WEIGHT_DECAY
from mamfed_common.transforms.augmentation import apply_geometry, vary_intensity
from mamfed_common.transforms.config import CorruptionConfig
from mamfed_common.transforms.corruption import corrupt
from mamfed_common.transforms.sample import FULL_SCALE, Sample

PRETRAINING_RATE = 4e-3
PLAN = TrainingPlan(
    image_size=256, evaluation=EvaluationPlan(validation_fraction=0.25, test_fraction=0.2)
)


class TrialNetwork(nn.Module):
    """The U-Net with a trial's head: image ``(N, 1, H, W)`` in 0..1 to logits of that shape."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.trial = trial
        self.backbone = UNet(NETWORKS[trial.network])
        self.gain = nn.Parameter(torch.tensor(float(trial.gain)))
        self.offset = nn.Parameter(torch.tensor(float(trial.offset)))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits."""
        drawn: Tensor = self.backbone(image).float()
        if self.trial.head == "direct":
            return drawn
        rectifiers: dict[str, Callable[[Tensor], Tensor]] = {
            "none": lambda difference: difference,
            "relu": functional.relu,
            "softplus": lambda difference: functional.softplus(difference * 50) / 50,
            "abs": torch.abs,
        }
        difference = rectifiers[self.trial.rectifier](image - drawn)
        if size := self.trial.smoothing:
            difference = functional.avg_pool2d(
                difference, size, 1, size // 2, count_include_pad=False
            )
        return self.gain * (difference - self.offset)


def to_tensor(images: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)[:, None].astype(np.float32)).div_(FULL_SCALE)


def fields(samples: Sequence[Sample]) -> Tensor:
    return torch.from_numpy(np.stack([sample.breast_mask for sample in samples]))[:, None]


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


class Descent:
    """AdamW with the plan's schedule and, if the trial asks for it, an average of the weights."""

    def __init__(self, network: nn.Module, rate: float, warm_up: float, steps: int) -> None:
        self.network, self.rate, self.warm_up, self.steps, self.done = (
            network,
            rate,
            warm_up,
            steps,
            0,
        )
        self.optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=WEIGHT_DECAY)

    def step(self, loss: Tensor) -> None:
        """Take one step with the clipped gradient."""
        progress, rest = self.done / self.steps, 1 - self.warm_up
        cosine = 0.5 * (1 + float(np.cos(np.pi * (progress - self.warm_up) / rest)))
        rising = progress < self.warm_up
        factor = max(progress / self.warm_up, 0.01) if rising else max(cosine, 0.001)
        self.optimizer.param_groups[0]["lr"] = self.rate * factor
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.done += 1


def reconstruction(trial: Trial, drawn: Tensor, clean: Tensor, inside: Tensor) -> Tensor:
    if trial.pretraining_loss == "l1":
        return functional.l1_loss(drawn, clean)
    if trial.pretraining_loss == "breast":
        weight = inside.float() + 0.1
        return cast(Tensor, ((drawn - clean) ** 2 * weight).sum() / weight.sum())
    loss = functional.mse_loss(drawn, clean)
    if trial.pretraining_loss == "ssim":
        similarity = SSIMLoss(spatial_dims=2, win_size=7, kernel_type="uniform")
        return cast(Tensor, loss + 0.05 * similarity(drawn, clean))
    return loss


def pretrain(network: TrialNetwork, benign: Sequence[Sample], trial: Trial) -> None:
    size, epochs = trial.batch_size, trial.pretraining_epochs
    descent = Descent(
        network.backbone, PRETRAINING_RATE, trial.warm_up, epochs * -(-len(benign) // size)
    )
    for epoch in range(epochs):
        rng = np.random.default_rng([trial.seed, 1, epoch])
        order = rng.permutation(len(benign))
        for start in range(0, len(benign), size):
            moved = [
                apply_geometry(benign[i], trial.augmentation, rng)
                for i in order[start : start + size]
            ]
            inputs = [corrupt(one.image, one.breast_mask, CorruptionConfig(), rng) for one in moved]
            clean = to_tensor([one.image for one in moved])
            with autocast():
                drawn = network.backbone(to_tensor(inputs))
            descent.step(reconstruction(trial, drawn.float(), clean, fields(moved)))


def segmentation(trial: Trial) -> Callable[[Tensor, Tensor], Tensor]:
    both = DiceCELoss(sigmoid=True, lambda_ce=trial.cross_entropy, smooth_nr=1.0, smooth_dr=1.0)

    def focal(logits: Tensor, mask: Tensor) -> Tensor:
        entropy = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        sure = torch.where(mask > 0, logits.sigmoid(), 1 - logits.sigmoid())
        weighed = ((1 - sure) ** trial.focal * entropy).mean() * 4
        return cast(Tensor, both.dice(logits, mask) + trial.cross_entropy * weighed)

    return focal if trial.focal else both


def benign_loss(network: TrialNetwork, images: Tensor, trial: Trial) -> Tensor:
    with autocast():
        if trial.benign == "reconstruct":
            return functional.mse_loss(network.backbone(images).float(), images)
        logits = network(images).float()
    return functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(images))


def finetune(
    network: TrialNetwork, training: Sequence[Sample], benign: Sequence[Sample], trial: Trial
) -> Iterator[TrialNetwork]:
    """Train, and yield the network to be scored after each epoch."""
    loss_of, size = segmentation(trial), trial.batch_size
    beside = max(1, size // 2) if trial.benign != "none" else 0
    steps = -(-len(training) // size)
    descent = Descent(network, trial.learning_rate, trial.warm_up, trial.epochs * steps)
    average = copy.deepcopy(network)
    for epoch in range(trial.epochs):
        rng = np.random.default_rng([trial.seed, 2, epoch])
        order, benign_order = rng.permutation(len(training)), rng.permutation(len(benign))

        def drawn(sample: Sample, rng: np.random.Generator = rng) -> Sample:
            return vary_intensity(
                apply_geometry(sample, trial.augmentation, rng), trial.augmentation, rng
            )

        for step in range(steps):
            chosen = [drawn(training[i]) for i in order[step * size : (step + 1) * size]]
            masks = torch.from_numpy(np.stack([one.mask for one in chosen]))[:, None].float()
            with autocast():
                logits = network(to_tensor([one.image for one in chosen]))
            loss = loss_of(logits.float(), masks)
            if beside:
                places = range(step * beside, (step + 1) * beside)
                more = [drawn(benign[benign_order[i % len(benign)]]) for i in places]
                images = to_tensor([one.image for one in more])
                loss = loss + trial.benign_weight * benign_loss(network, images, trial)
            descent.step(loss)
            keep = min(trial.averaging, (1 + descent.done) / (10 + descent.done))
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.data.mul_(keep).add_(now.data, alpha=1 - keep)
        yield average if trial.averaging else network


@torch.no_grad()
def marked(network: nn.Module, samples: Sequence[Sample]) -> Tensor:
    """Return the pixels that the network marks inside the breasts: ``(N, 1, H, W)`` bool."""
    with autocast():
        probability = network(to_tensor([sample.image for sample in samples])).sigmoid()
    return (probability >= 0.5) & fields(samples)


def mean_dice(network: nn.Module, samples: Sequence[Sample]) -> float:
    dices = []
    for start in range(0, len(samples), 4):
        batch = samples[start : start + 4]
        found = marked(network, batch)
        mask = torch.from_numpy(np.stack([sample.mask for sample in batch]))[:, None]
        both = (found & mask).sum((1, 2, 3))
        dices += (2 * both / (found.sum((1, 2, 3)) + mask.sum((1, 2, 3)))).tolist()
    return float(np.mean(dices))


class Images:
    """The data of all trials; each list holds one part of the patients, as split by the plan."""

    def __init__(self, data: Path, cache: Path) -> None:
        def read(name: str, purpose: Purpose, part: Part) -> Sequence[Sample]:
            site = Site(name, ((name, data / name),), cache)
            return list(load_site(site, PLAN).samples([purpose], part))

        self.training = read("cesm", "malignant", "train")
        self.validation = read("cesm", "malignant", "val")
        self.benign = [*read("mias", "benign", "train"), *read("cbis", "benign", "train")]
        self.negative = read("mias", "without_malignancy", "val")


def run(trial: Trial, images: Images) -> str:
    started = time.process_time()
    torch.manual_seed(trial.seed)
    network = TrialNetwork(trial)
    pretrain(network, images.benign, trial)
    dices = [
        mean_dice(scored, images.validation)
        for scored in finetune(network, images.training, images.benign, trial)
    ]
    with torch.no_grad():
        false = np.mean([marked(network, [one]).float().mean() for one in images.negative])
    seconds = time.process_time() - started
    return (
        f"max {max(dices):.3f}  first ten {np.mean(dices[:10]):.3f}  last ten "
        f"{np.mean(dices[-10:]):.3f}  marked without malignancy {false:.3f}  CPU s {seconds:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--cache", type=Path, help="folder for prepared images; created in a minute"
    )
    parser.add_argument("--list", action="store_true", help="list the trials")
    parser.add_argument(
        "trials", nargs="*", metavar="TRIAL", help="names from --list; default: all"
    )
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(TRIALS))
        return
    torch.set_num_threads(1)
    images = Images(arguments.data, arguments.cache)
    print(
        f"{len(images.training)} training, {len(images.validation)} validation, "
        f"{len(images.benign)} benign, {len(images.negative)} without malignancy"
    )
    for name in arguments.trials or TRIALS:
        print(f"{name:30}  {run(TRIALS[name], images)}", flush=True)


if __name__ == "__main__":
    main()
