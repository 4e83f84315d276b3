"""What each stage minimises; MONAI and torch where they have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mamfed_common.errors import PlanError
from mamfed_common.model.config import LossConfig
from mamfed_common.runtime.plugins import Group, find_plugin


def reconstruction_loss() -> nn.Module:
    """Return stage 1's loss: mean squared error of ``(N, 1, H, W)`` intensities in 0..1."""
    return nn.MSELoss()


def segmentation_loss(config: LossConfig) -> nn.Module:
    """Return stage 2's loss of logits and masks, both ``(N, 1, H, W)``.

    Raises:
        PlanError: The plan's loss is not installed here.
    """
    return loss_of(config.segmentation)(config)


def dice_and_cross_entropy(config: LossConfig) -> nn.Module:
    """Return the sum of Dice and cross-entropy of logits and masks, both ``(N, 1, H, W)``.

    Dice is taken image by image, smoothed by one pixel, so an empty mask has a gradient too.
    """
    from monai.losses import DiceCELoss  # two seconds, which a coordinator need not take

    loss: nn.Module = DiceCELoss(
        sigmoid=True, lambda_ce=config.cross_entropy, smooth_nr=1.0, smooth_dr=1.0, batch=False
    )
    return loss


LOSSES: dict[str, Callable[[LossConfig], nn.Module]] = {"dice_ce": dice_and_cross_entropy}
"""The built-in segmentation losses by name."""


def loss_of(name: str) -> Callable[[LossConfig], nn.Module]:
    """Return what builds the segmentation loss of a name.

    Raises:
        PlanError: It is not installed here.
    """
    return cast(
        Callable[[LossConfig], nn.Module], find_plugin(Group.LOSSES, name, LOSSES, PlanError)
    )


def check_loss(config: LossConfig) -> None:
    """Try an installed loss on a small batch; the built-in ones need no trial.

    Raises:
        PlanError: It is not installed here, it fails, or its result is not a finite scalar with a
            gradient.
    """
    build = loss_of(config.segmentation)
    if build in LOSSES.values():
        return
    name = f"loss {config.segmentation!r}"
    logits = torch.zeros(2, 1, 16, 16, requires_grad=True)
    masks = torch.zeros(2, 1, 16, 16)
    masks[0, :, 4:9, 4:9] = 1
    try:
        result = build(config)(logits, masks)
    except Exception as error:  # a package's code may raise anything
        raise PlanError(
            f"{name} failed on a small batch: {type(error).__name__}: {error}"
        ) from None
    if not isinstance(result, Tensor) or result.numel() != 1:
        found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise PlanError(f"{name} returned {found}, expected a scalar tensor")
    if not torch.isfinite(result) or not result.requires_grad:
        raise PlanError(
            f"{name} returned {result.item():g} for a small batch; expected a finite number that "
            "has a gradient"
        )


def empty_loss(logits: Tensor, breast_mask: Tensor) -> Tensor:
    """Return the cross-entropy of logits against an empty target: a mean over each breast.

    Args:
        logits: ``(N, 1, H, W)``.
        breast_mask: Of the same shape, 1 inside the breast and 0 outside.

    Returns:
        The mean over images, a scalar.
    """
    inside = (functional.softplus(logits) * breast_mask).sum((1, 2, 3))
    return (inside / breast_mask.sum((1, 2, 3)).clamp(min=1)).mean()
