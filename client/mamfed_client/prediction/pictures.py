"""Pictures of a prediction, in the image file's own orientation and reduced to reading size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.geometry import Box, Transform
from mamfed_client.imaging.mammogram import Grey, Laterality, Mask
from mamfed_client.prediction.lesions import Lesion
from mamfed_client.review.contact_sheet import JPEG
from mamfed_client.review.show import LESION, Picture, outline, shrunk, thickened
from mamfed_common.transforms.sample import FULL_SCALE, Sample

LONGEST_SIDE = 1600
"""Maximum side of a picture in pixels: a mammogram at the size of a screen."""
HUNG_SIDE = 900
"""Maximum side of a picture on a study's page."""
LISTED_SIDE = 220
"""Maximum side of a thumbnail in the list of studies."""
ROOM = 9
"""Pixels between a finding and its outline, so that the line does not cover it."""
BRIGHTER, DARKER = (230, 159, 0), (86, 180, 233)
"""Okabe and Ito's orange and sky blue."""
PLATE = 3
"""Pixels of black around a label."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
SMALLEST_RANGE = 0.1
"""Smallest difference at full colour: smaller ones are texture, which must not be amplified."""


class Frame(NamedTuple):
    """The part of an image file's grid that a picture shows, and how it shows it.

    Attributes:
        box: The part.
        mirrored: Whether left and right are swapped.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
    """

    box: Box
    mirrored: bool
    width: int
    height: int

    def show(self, picture: Picture, shape: tuple[int, int]) -> Picture:
        """Crop the part from a picture of a whole image of ``shape``, and scale and mirror it."""
        height, width = picture.shape[:2]
        part = self.box.scaled(shape, (height, width))
        cut = picture[part.top : part.bottom, part.left : part.right]
        small = cv2.resize(cut, (self.width, self.height), interpolation=cv2.INTER_AREA)
        shown: Picture = np.ascontiguousarray(small[:, ::-1] if self.mirrored else small)
        return shown

    def place(self, box: Box) -> tuple[float, float]:
        """Return the position of the upper right corner of a box in the picture: x and y, 0..1."""
        column = box.left if self.mirrored else box.right
        x = (column - self.box.left) / (self.box.right - self.box.left)
        y = (box.top - self.box.top) / (self.box.bottom - self.box.top)
        return (1 - x if self.mirrored else x), y


def whole_frame(shape: tuple[int, ...]) -> Frame:
    """Return the frame that shows a file's whole image at reading size."""
    return Frame(Box(0, shape[0], 0, shape[1]), False, *reading_size(shape, LONGEST_SIDE))


def hung_frame(transform: Transform, laterality: Laterality | None) -> Frame:
    """Return the frame that shows a breast as radiologists hang it, its chest wall to the middle.

    The right breast is on the left, with its chest wall on the right. A breast of unknown side is
    shown as in its file.
    """
    box = Box(transform.top, transform.bottom, transform.left, transform.right)
    size = reading_size((box.bottom - box.top, box.right - box.left), HUNG_SIDE)
    mirrored = laterality is not None and transform.flipped != (laterality == "R")
    return Frame(box, mirrored, *size)


def draw_outlines(grey: Grey, mask: Mask) -> Picture:
    """Return the image with outlined marks, ``(h, w, 3)`` uint8 in RGB at reading size.

    Args:
        grey: ``(H, W)`` uint16, tissue bright.
        mask: ``(H, W)`` bool, the marked pixels.
    """
    size = reading_size(grey.shape, LONGEST_SIDE)
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA) >> 8
    picture: Picture = np.repeat(small.astype(np.uint8)[..., None], 3, axis=-1)
    flags = shrunk(mask, size)
    if flags.any():
        outline(picture, thickened(flags, 2 * ROOM + 5), (0, 0, 0))
        outline(picture, thickened(flags, 2 * ROOM), LESION)
    return picture


def draw_labels(picture: Picture, lesions: Sequence[Lesion], frame: Frame) -> Picture:
    """Write number and score beside each lesion in a picture of this frame."""
    height, width = picture.shape[:2]
    letters = max(height / 1600, 0.45)
    taken: list[Box] = []
    for number, lesion in enumerate(lesions, start=1):
        text = f"{number}: {lesion.score:.2f}"
        (long, high), _ = cv2.getTextSize(text, FONT, letters, 2)
        x, y = frame.place(lesion.box)
        left = min(max(round(x * width) + ROOM, 0), max(0, width - long))
        bottom = min(max(round(y * height) - ROOM, high), height)
        place = _free(Box(bottom - high, bottom, left - 3 * PLATE, left + long), taken, height)
        taken.append(place)
        # A black plate keeps the text legible: OpenCV 5 cannot draw wider letters as an outline.
        corners = (left - PLATE, place.top - PLATE), (left + long + PLATE, place.bottom + PLATE)
        cv2.rectangle(picture, *corners, (0, 0, 0), cv2.FILLED)
        white = (255, 255, 255)
        cv2.putText(picture, text, (left, place.bottom), FONT, letters, white, 2, cv2.LINE_AA)
    return picture


def _free(wanted: Box, taken: Sequence[Box], height: int) -> Box:
    """Move a label up or down as little as possible, so that it covers no other label.

    If the picture is full, it stays where it is.
    """
    step = wanted.bottom - wanted.top + ROOM
    lines = height // step
    for line in sorted(range(-lines, lines + 1), key=abs):
        top, bottom = wanted.top + line * step, wanted.bottom + line * step
        moved = wanted._replace(top=top, bottom=bottom)
        if top >= 0 and bottom <= height and not any(_meet(moved, other) for other in taken):
            return moved
    return wanted


def _meet(one: Box, other: Box) -> bool:
    return (
        one.top < other.bottom
        and other.top < one.bottom
        and one.left < other.right
        and other.left < one.right
    )


def draw_square(square: npt.NDArray[Any], transform: Transform) -> Picture:
    """Return the network's drawing as a picture, ``(h, w)`` uint8.

    Args:
        square: ``(S, S)`` float32, about 0..1.
        transform: The mapping from the file's grid.
    """
    levels = np.rint(np.clip(square, 0, 1) * 255).astype(np.float32)
    picture: Picture = _at_reading_size(levels, transform).astype(np.uint8)
    return picture


def draw_difference(
    sample: Sample, reconstruction: npt.NDArray[Any], transform: Transform
) -> tuple[Picture, float]:
    """Show where the image is brighter (orange) or darker (blue) than the network's drawing.

    Returns:
        ``(h, w, 3)`` uint8 in RGB, and the difference shown at full colour, as intensity in 0..1.
    """
    difference = sample.image.astype(np.float32) / FULL_SCALE - reconstruction
    difference = np.where(sample.breast_mask, difference, np.float32(0))
    inside = np.abs(difference[sample.breast_mask])
    largest = float(np.quantile(inside, 0.999)) if inside.size else 0.0
    full = max(largest, SMALLEST_RANGE)
    share = np.clip(_at_reading_size(difference, transform) / full, -1, 1)[..., None]
    colours = np.where(share > 0, np.array(BRIGHTER, np.float32), np.array(DARKER, np.float32))
    picture: Picture = np.rint(np.abs(share) * colours).astype(np.uint8)
    return picture, full


def reading_size(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Return the width and height of a picture of an image with this shape."""
    scale = min(1.0, longest / max(shape))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def to_png(picture: Picture) -> bytes:
    """Encode a grey or RGB picture as PNG."""
    _, encoded = cv2.imencode(".png", picture if picture.ndim == 2 else picture[..., ::-1])
    return encoded.tobytes()


def to_jpeg(picture: Picture) -> bytes:
    """Encode a grey or RGB picture as JPEG for a page."""
    coloured = picture if picture.ndim == 2 else picture[..., ::-1]
    _, encoded = cv2.imencode(".jpg", coloured, JPEG)
    return encoded.tobytes()


def small_jpeg(jpeg: bytes) -> bytes:
    """Shrink a page's picture to a thumbnail of at most :data:`LISTED_SIDE` pixels per side."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, "to_jpeg wrote it"
    size = reading_size(picture.shape[:2], LISTED_SIDE)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return to_jpeg(np.asarray(small[..., ::-1], np.uint8))


def _at_reading_size(square: npt.NDArray[Any], transform: Transform) -> npt.NDArray[Any]:
    image = transform.invert(square)
    size = reading_size(image.shape, LONGEST_SIDE)
    small: npt.NDArray[Any] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small
