"""What a plan says of corruption and augmentation; read without OpenCV."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mamfed_common.config import Config

Fill = Literal["noise", "constant", "tissue"]


class CorruptionConfig(Config):
    """Probabilities of the corruptions; the defaults are those of Models Genesis.

    Attributes:
        clean: Probability that the image is not changed; 0 in Models Genesis. Clean inputs teach
            the network to reproduce healthy tissue, which the subtraction relies on.
        gamma: Probability of a gamma curve.
        max_log_gamma: The exponent is ``exp(u)``, ``u`` uniform between minus and plus this.
        paint: Probability of in-painting or out-painting.
        outpaint: Probability that painting is out-painting; otherwise it is in-painting.
        fills: Contents of painted pixels, one drawn per shape: uniform ``noise`` (Models Genesis),
            a ``constant`` grey, or noise with the ``tissue``'s own mean and deviation.
    """

    clean: float = Field(default=0.2, ge=0, le=1)
    gamma: float = Field(default=0.9, ge=0, le=1)
    max_log_gamma: float = Field(default=0.7, ge=0, le=3)
    paint: float = Field(default=0.9, ge=0, le=1)
    outpaint: float = Field(default=0.8, ge=0, le=1)
    fills: tuple[Fill, ...] = Field(default=("noise", "constant", "tissue"), min_length=1)


class AugmentationConfig(Config):
    """Strength of the augmentation of training images.

    Attributes:
        flip: Probability of a vertical flip and, drawn separately, of a horizontal one.
        max_rotation_degrees: The rotation is uniform between minus and plus this angle.
        max_log_scale: The magnification is ``exp(u)``, ``u`` uniform between minus and plus this.
        gamma: Probability of a gamma curve (stage 2 only; in stage 1 it is a corruption).
        max_log_gamma: The exponent is ``exp(u)``, ``u`` uniform between minus and plus this.
    """

    flip: float = Field(default=0.5, ge=0, le=1)
    max_rotation_degrees: float = Field(default=15.0, ge=0, le=180)
    max_log_scale: float = Field(default=0.15, ge=0, le=1)
    gamma: float = Field(default=0.5, ge=0, le=1)
    max_log_gamma: float = Field(default=0.25, ge=0, le=3)
