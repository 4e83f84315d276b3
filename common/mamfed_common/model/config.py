"""What a plan says of the network and of stage 2's loss; read without torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mamfed_common.config import ExtensibleConfig

BUILT_IN = "unet"
"""The network that a plan gets where it names none; no other package may offer the name."""


class NetworkConfig(ExtensibleConfig):
    """The architecture of a network.

    Attributes:
        name: ``unet``, or an installed extension (entry point group ``mamfed.networks``), which may
            use the other values as it likes.
        channels: Feature channels of each level, from the top (finest) to the bottom.
        first_skip_level: The finest level that keeps its long skip, counted from 0; levels above
            it have none. ``len(channels) - 1`` removes all long skips.
        stem: Side of the pixel-unshuffle block before level 0. 1 means full resolution; 2 and 4
            take about a third and a sixth of the time (``docs/benchmarks.md``).
        head: What stage 2 supervises: ``subtraction``, the difference between input and output
            (the paper's discriminative segmentation), or ``direct``, the output itself (the paper's
            fully supervised baseline).
        smoothing: Side in pixels of the window over which the difference is averaged before it
            becomes logits; odd, and 1 means no averaging.
    """

    OMITTED: ClassVar[frozenset[str]] = frozenset({"name"})

    name: str = BUILT_IN
    channels: tuple[Annotated[int, Field(le=1 << 16)], ...] = Field(
        default=(32, 64, 128, 256, 256, 256), min_length=2, max_length=16
    )
    first_skip_level: int = Field(default=1, ge=0)
    stem: Literal[1, 2, 4] = 2
    head: Literal["subtraction", "direct"] = "subtraction"
    smoothing: int = Field(default=5, ge=1, le=63)

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        if min(self.channels) < 1:
            raise ValueError("channels must all be at least 1")
        if self.smoothing % 2 == 0:
            raise ValueError(f"smoothing {self.smoothing} is even; expected an odd number")
        if self.first_skip_level >= len(self.channels):
            raise ValueError(
                f"first_skip_level {self.first_skip_level} is below the lowest of the "
                f"{len(self.channels)} levels that channels names"
            )
        return self


class LossConfig(ExtensibleConfig):
    """What the parts of stage 2's loss weigh beside Dice (``docs/decisions/0003-subtraction.md``).

    Attributes:
        segmentation: ``dice_ce``, Dice and cross-entropy, or an installed extension (entry point
            group ``mamfed.losses``) in its place.
        cross_entropy: Weight of the cross-entropy.
        benign: Weight of the reconstruction of benign images: so that the difference stays near
            zero on healthy tissue. Half as many benign images as malignant ones are in each step.
            A site that has none goes without, and so does the ``direct`` head.
        empty: Weight of the cross-entropy of the same images against an empty target, inside the
            breast; of any head.
    """

    OMITTED: ClassVar[frozenset[str]] = frozenset({"segmentation"})

    segmentation: str = "dice_ce"
    cross_entropy: float = Field(default=0.3, ge=0)
    benign: float = Field(default=0.5, ge=0)
    empty: float = Field(default=0, ge=0)
