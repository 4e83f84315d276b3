"""Recover an image from what a site's update reveals: "Inverting Gradients".

Geiping et al. 2020 (arXiv:2003.14053): an image is sought whose gradient points where the update
points (cosine), with a prior of small total variation and signed steps. The attacker knows the
weights before and after, the plan, and here also the true mask, which a real one would not know.

AdamW makes of a first gradient little more than its signs, so the sought gradient is passed
through the same division, softened to be differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from monai.metrics import SSIMMetric
from torch import Tensor

TOTAL_VARIATION = 2.0
RATE = 0.05


class Found(NamedTuple):
    """A reconstruction ``(1, 1, S, S)`` in 0..1, and how well its gradient fits (0 is perfect)."""

    image: Tensor
    misfit: float


class Likeness(NamedTuple):
    """How like a reconstruction is to the true image.

    Attributes:
        ssim: Structural similarity.
        psnr: Peak signal-to-noise ratio in dB.
        rank: Place of the true image among candidates, by correlation; 1 means recognised.
    """

    ssim: float
    psnr: float
    rank: int


def invert(
    gradient_of: Callable[[Tensor], Sequence[Tensor]],
    observed: Sequence[Tensor],
    start: Tensor,
    *,
    signs: bool,
    steps: int,
) -> Found:
    """Seek the image whose gradient is most like an observed one.

    Args:
        gradient_of: Returns the differentiable gradient of an image, one tensor a parameter.
        observed: What was observed of it.
        start: The mean image of other patients, to start from; where it is black, it stays so.
        signs: Whether AdamW has left little more than signs.
        steps: Number of steps.
    """
    image, tissue = start.clone().requires_grad_(), (start > 0.01).float()
    optimizer = torch.optim.Adam([image], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, RATE / 50)
    best = Found(start, float("inf"))
    for _ in range(steps):
        misfit = _misfit(gradient_of(image), observed, signs)
        if misfit.item() < best.misfit:
            best = Found(image.detach().clone(), misfit.item())
        (pull,) = torch.autograd.grad(misfit + TOTAL_VARIATION * _variation(image), image)
        image.grad = pull.sign() * tissue
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            image.clamp_(0, 1)
    return best


def likeness(found: Tensor, truth: int, candidates: Tensor) -> Likeness:
    """Compare a reconstruction with the true one of some candidates ``(N, 1, S, S)``."""
    true = candidates[truth : truth + 1]
    error = float((found - true).square().mean())
    flat = candidates.flatten(1) - candidates.mean(0).flatten()
    sought = (found - candidates.mean(0)).flatten()
    alike = torch.nn.functional.cosine_similarity(flat, sought[None], dim=1)
    rank = 1 + int((alike > alike[truth]).sum())
    return Likeness(ssim(found, true), float(-10 * torch.log10(torch.tensor(error))), rank)


def ssim(one: Tensor, other: Tensor) -> float:
    """Return the structural similarity of two images ``(1, 1, S, S)`` in 0..1."""
    return float(SSIMMetric(spatial_dims=2, data_range=1.0)(one, other))


def _misfit(gradients: Sequence[Tensor], observed: Sequence[Tensor], signs: bool) -> Tensor:
    """Return one minus the cosine of two gradients, as one vector each."""
    pairs = list(zip(gradients, observed, strict=True))
    if signs:
        pairs = [(g / (g.abs() + 0.1 * g.detach().abs().mean() + 1e-12), o) for g, o in pairs]
    product = torch.stack([(g * o).sum() for g, o in pairs]).sum()
    lengths = [
        torch.stack([t.square().sum() for t in side]).sum() for side in zip(*pairs, strict=True)
    ]
    return 1 - product / (lengths[0] * lengths[1]).clamp(min=1e-30).sqrt()


def _variation(image: Tensor) -> Tensor:
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().mean()
    across = (image[..., 1:] - image[..., :-1]).abs().mean()
    return down + across
