"""What each stage minimises; MONAI and torch where they have it."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mamfed_common.config import Config


class LossConfig(Config):
    """What the parts of stage 2's loss weigh beside Dice (``docs/decisions/0003-subtraction.md``).

    Attributes:
        cross_entropy: Weight of the cross-entropy.
        benign: Weight of the reconstruction of benign images: so that the difference stays near
            zero on healthy tissue. Half as many benign images as malignant ones are in each step.
            A site that has none goes without, and so does the ``direct`` head.
        empty: Weight of the cross-entropy of the same images against an empty target, inside the
            breast; of any head.
    """

    cross_entropy: float = Field(default=0.3, ge=0)
    benign: float = Field(default=0.5, ge=0)
    empty: float = Field(default=0, ge=0)


def reconstruction_loss() -> nn.Module:
    """Return stage 1's loss: mean squared error of ``(N, 1, H, W)`` intensities in 0..1."""
    return nn.MSELoss()


def segmentation_loss(config: LossConfig) -> nn.Module:
    """Return stage 2's loss of logits and masks, both ``(N, 1, H, W)``: Dice and cross-entropy.

    Dice is taken image by image, smoothed by one pixel, so an empty mask has a gradient too.
    """
    from monai.losses import DiceCELoss  # two seconds, which a coordinator need not take

    loss: nn.Module = DiceCELoss(
        sigmoid=True, lambda_ce=config.cross_entropy, smooth_nr=1.0, smooth_dr=1.0, batch=False
    )
    return loss


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
