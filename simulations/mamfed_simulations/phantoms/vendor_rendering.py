"""Render a scene as a vendor's unit would: detector, response and display settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_simulations.phantoms.phantom import Phantom, Population


@dataclass(frozen=True)
class Detector:
    """The image receptor at full size.

    Attributes:
        rows: Pixels along the chest wall.
        columns: Pixels away from the chest wall.
        spacing_mm: Side of a pixel at the detector.
        bits_stored: Bits of a pixel; it is always stored in 16.
        blur: Standard deviation of the point spread, as a fraction of the rows.
        noise: Standard deviation of the quantum noise, as a fraction of full attenuation.
    """

    rows: int
    columns: int
    spacing_mm: float
    bits_stored: int
    blur: float
    noise: float

    def shape(self, scale: float) -> tuple[int, int]:
        """Return rows and columns of an image at ``scale`` times the full size."""
        return round(self.rows * scale), round(self.columns * scale)


@dataclass(frozen=True)
class Response:
    """The mapping of attenuation to grey, tissue bright; levels are fractions of the grey range.

    Attributes:
        gamma: Exponent of the curve; below 1 brightens fat, above 1 darkens it.
        steepness: Steepness of an additional S-shaped curve; 0 for none.
        floor: Grey level of no attenuation inside the breast.
        ceiling: Grey level of full attenuation.
        background: Grey level of air.
    """

    gamma: float
    steepness: float
    floor: float
    ceiling: float
    background: float


@dataclass(frozen=True)
class Display:
    """Display settings of a file.

    Attributes:
        photometric: MONOCHROME1 stores air as the largest values (PS3.3 C.7.6.3.1.2).
        windows: Centre and width as fractions of the grey range, tissue bright; the first
            is the one to use.
        voi_function: VOI LUT Function (PS3.3 C.11.2.1.3); empty omits the attribute.
        padded: Whether the collimated margin holds Pixel Padding Value, the largest pixel.
        unused_padding: Pixel Padding Value and Pixel Padding Range Limit that no pixel has.
        pixel_spacing: Whether Pixel Spacing is present in addition to Imager Pixel Spacing.
        voi_luts: Centre and width, likewise, of the linear curves in a VOI LUT Sequence; if there
            are any, they take precedence over the windows.
    """

    photometric: Literal["MONOCHROME1", "MONOCHROME2"]
    windows: tuple[tuple[float, float], ...]
    voi_function: Literal["", "LINEAR", "SIGMOID"] = ""
    padded: bool = False
    pixel_spacing: bool = True
    voi_luts: tuple[tuple[float, float], ...] = ()
    unused_padding: tuple[int, ...] = ()


@dataclass(frozen=True)
class Storage:
    """Storage settings of a vendor's files.

    Attributes:
        syntax: Name of the transfer syntax, in ``transfer_syntaxes.SYNTAXES``.
        overlay: Whether an overlay extends beyond the image (PS3.3 C.9.2).
        nameless: Share of the patients whose files have no Manufacturer.
        stripped: Share of the patients whose files lack Modality, Image Type and Presentation LUT
            Shape, as in a public export of Hologic files.
        image_type: Image Type (PS3.3 C.8.11.7.1.4).
        conversion_type: Conversion Type (PS3.3 C.8.6.1), which has no meaning in a mammogram; empty
            omits the attribute.
    """

    syntax: str = "explicit"
    overlay: bool = False
    nameless: float = 0.0
    stripped: float = 0.0
    image_type: tuple[str, ...] = ("DERIVED", "PRIMARY")
    conversion_type: str = ""


@dataclass(frozen=True)
class VendorLook:
    """A fictional vendor: its unit, its files and the patients of hospitals that use it."""

    name: str
    manufacturer: str
    model: str
    detector: Detector
    response: Response
    display: Display
    storage: Storage
    population: Population


def apply_look(
    phantom: Phantom, look: VendorLook, rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """Render a scene as a vendor's unit would.

    Args:
        phantom: The scene, ``(H, W)``.
        look: The vendor.
        rng: Source of the noise and of the exposure, which varies by image.

    Returns:
        ``(H, W)`` uint16 below ``2 ** bits_stored``, as stored in the file: inverted for
        MONOCHROME1.
    """
    largest = 2**look.detector.bits_stored - 1
    seen = _expose(phantom, look.detector, rng)
    tone = _respond(seen, look.response)
    tone = np.where(phantom.breast_mask, tone, look.response.background + 0.3 * (seen - 0.02))
    # The extreme values are reserved for padding, so that tissue is never mistaken for it.
    grey = np.clip(np.rint(tone * largest), 1, largest - 1)
    if look.display.photometric == "MONOCHROME1":
        grey = largest - grey
    if look.display.padded:
        grey[collimated(phantom)] = padding_value(look)
    return cast(npt.NDArray[np.uint16], grey.astype(np.uint16))


def padding_value(look: VendorLook) -> int:
    """Return the value of pixels outside the collimated field; it always displays as black."""
    return 2**look.detector.bits_stored - 1 if look.display.photometric == "MONOCHROME1" else 0


def _expose(
    phantom: Phantom, detector: Detector, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Blur the scene and add quantum noise, stronger where fewer photons pass."""
    shape = phantom.attenuation.shape
    sharp = phantom.attenuation * np.float32(rng.uniform(0.94, 1.06))
    soft = cv2.GaussianBlur(sharp, (0, 0), max(0.3, detector.blur * shape[0]))
    grain = rng.standard_normal(shape, dtype=np.float32)
    return cast(npt.NDArray[np.float32], soft + grain * np.float32(detector.noise) * (0.4 + soft))


def _respond(attenuation: npt.NDArray[np.float32], response: Response) -> npt.NDArray[np.float32]:
    """Map attenuation to grey, as a fraction of the grey range."""
    tone = np.clip(attenuation, 0, 1) ** np.float32(response.gamma)
    if response.steepness:
        tone = 1 / (1 + np.exp(np.float32(-response.steepness) * (tone - np.float32(0.45))))
    return cast(
        npt.NDArray[np.float32], response.floor + (response.ceiling - response.floor) * tone
    )


def collimated(phantom: Phantom) -> npt.NDArray[np.bool_]:
    """Return the frame covered by the collimator, ``(H, W)``; it never includes the breast."""
    rows = phantom.breast_mask.shape[0]
    frame = np.ones(phantom.breast_mask.shape, bool)
    wide = max(1, round(0.02 * rows))
    frame[wide:-wide, wide:-wide] = False
    return frame & ~phantom.breast_mask
