"""What each stage minimises; MONAI and torch where they have it."""

from __future__ import annotations

from monai.losses import DiceCELoss
from torch import nn

BCE_WEIGHT = 0.3
"""Weight of the cross-entropy beside the Dice loss; the best of those tried in the lab."""


def reconstruction_loss() -> nn.Module:
    """Return stage 1's loss: mean squared error of ``(N, 1, H, W)`` intensities in 0..1.

    L1 lost the lead of the pretraining in the lab (``docs/decisions/0003-subtraction.md``).
    """
    return nn.MSELoss()


def segmentation_loss() -> nn.Module:
    """Return stage 2's loss of logits and masks, both ``(N, 1, H, W)``: Dice and cross-entropy.

    Dice is taken image by image, smoothed by one pixel, so an empty mask has a gradient too.
    """
    loss: nn.Module = DiceCELoss(
        sigmoid=True, lambda_ce=BCE_WEIGHT, smooth_nr=1.0, smooth_dr=1.0, batch=False
    )
    return loss
