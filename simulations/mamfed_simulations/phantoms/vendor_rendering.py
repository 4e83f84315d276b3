"""What a vendor's machine makes of a scene: the detector, its response, how it is shown."""

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
        """Give rows and columns of an image reduced to ``scale`` of the full size."""
        return round(self.rows * scale), round(self.columns * scale)


@dataclass(frozen=True)
class Response:
    """How attenuation becomes grey, tissue bright; levels are fractions of the grey range.

    Attributes:
        gamma: Exponent of the curve; below 1 lifts fat, above 1 presses it down.
        steepness: Of an S-shaped curve laid over it; 0 for none.
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
    """How the file asks to be shown.

    Attributes:
        photometric: MONOCHROME1 stores air as the largest values (PS3.3 C.7.6.3.1.2).
        windows: Centre and width as fractions of the grey range, tissue bright; the first
            is the one to use.
        voi_function: VOI LUT Function (PS3.3 C.11.2.1.3); empty leaves the attribute out.
        padded: Whether the collimated margin holds Pixel Padding Value, the largest pixel.
        unused_padding: Pixel Padding Value and Pixel Padding Range Limit that no pixel has.
        pixel_spacing: Whether Pixel Spacing stands beside Imager Pixel Spacing.
        voi_luts: Centre and width, likewise, of the linear curves that the items of a VOI LUT
            Sequence hold; where there are any, they are preferred to the windows.
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
    """How the files are stored.

    Attributes:
        syntax: Name of the transfer syntax, in ``encode.SYNTAXES``.
        overlay: Whether an overlay reaches outside the image (PS3.3 C.9.2).
        nameless: Share of the patients whose files carry no Manufacturer.
        stripped: Share of the patients whose files lost Modality, Image Type and Presentation LUT
            Shape, as a public export of Hologic files did.
        image_type: Image Type (PS3.3 C.8.11.7.1.4).
        conversion_type: Conversion Type (PS3.3 C.8.6.1), which means nothing in a mammogram; empty
            leaves the attribute out.
    """

    syntax: str = "explicit"
    overlay: bool = False
    nameless: float = 0.0
    stripped: float = 0.0
    image_type: tuple[str, ...] = ("DERIVED", "PRIMARY")
    conversion_type: str = ""


@dataclass(frozen=True)
class VendorLook:
    """A fictional vendor: its machine, its files and the patients of who bought it."""

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
    """Take the scene with a vendor's machine.

    Args:
        phantom: The scene, ``(H, W)``.
        look: The vendor.
        rng: Source of the noise and of the exposure, which varies by image.

    Returns:
        ``(H, W)`` uint16 below ``2 ** bits_stored``, as the file stores it: inverted where
        the look is MONOCHROME1.
    """
    largest = 2**look.detector.bits_stored - 1
    seen = _expose(phantom, look.detector, rng)
    tone = _respond(seen, look.response)
    tone = np.where(phantom.breast_mask, tone, look.response.background + 0.3 * (seen - 0.02))
    # The largest value is kept for padding, so that no tissue is ever taken for it.
    grey = np.clip(np.rint(tone * largest), 1, largest - 1)
    if look.display.photometric == "MONOCHROME1":
        grey = largest - grey
    if look.display.padded:
        grey[collimated(phantom)] = padding_value(look)
    return cast(npt.NDArray[np.uint16], grey.astype(np.uint16))


def padding_value(look: VendorLook) -> int:
    """Give the value of pixels outside the collimated field: black, whatever the photometric."""
    return 2**look.detector.bits_stored - 1 if look.display.photometric == "MONOCHROME1" else 0


def _expose(
    phantom: Phantom, detector: Detector, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Blur the scene and add the noise of the photons, stronger where fewer come through."""
    shape = phantom.attenuation.shape
    sharp = phantom.attenuation * np.float32(rng.uniform(0.94, 1.06))
    soft = cv2.GaussianBlur(sharp, (0, 0), max(0.3, detector.blur * shape[0]))
    grain = rng.standard_normal(shape, dtype=np.float32)
    return cast(npt.NDArray[np.float32], soft + grain * np.float32(detector.noise) * (0.4 + soft))


def _respond(attenuation: npt.NDArray[np.float32], response: Response) -> npt.NDArray[np.float32]:
    """Turn attenuation into grey, as a fraction of the grey range."""
    tone = np.clip(attenuation, 0, 1) ** np.float32(response.gamma)
    if response.steepness:
        tone = 1 / (1 + np.exp(np.float32(-response.steepness) * (tone - np.float32(0.45))))
    return cast(
        npt.NDArray[np.float32], response.floor + (response.ceiling - response.floor) * tone
    )


def collimated(phantom: Phantom) -> npt.NDArray[np.bool_]:
    """Mark the frame that the collimator covers, ``(H, W)``; never any of the breast."""
    rows = phantom.breast_mask.shape[0]
    frame = np.ones(phantom.breast_mask.shape, bool)
    wide = max(1, round(0.02 * rows))
    frame[wide:-wide, wide:-wide] = False
    return frame & ~phantom.breast_mask
