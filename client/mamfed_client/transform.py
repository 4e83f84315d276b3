"""The way from a file's pixel grid to the square grid of the network, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.mammogram import Laterality, Mask, Pixels

MARGIN = 0.02
"""Room around the breast, as a share of the longer side of its box."""


@dataclass(frozen=True, slots=True)
class Transform:
    """Crop, mirror, rescale without stretching, pad at the right and at the bottom.

    Attributes:
        rows: Height of the file's image in pixels.
        columns: Width of the file's image.
        top: First row of the crop.
        bottom: Row after its last.
        left: First column of the crop.
        right: Column after its last.
        flipped: Whether left and right are swapped, to have the chest wall at the left.
        size: Side of the square grid in pixels.
    """

    rows: int
    columns: int
    top: int
    bottom: int
    left: int
    right: int
    flipped: bool
    size: int

    @property
    def scale(self) -> float:
        """Pixels of the square grid per pixel of the file."""
        return self.size / max(self.bottom - self.top, self.right - self.left)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what the square grid holds; the rest is padding."""
        height, width = self.bottom - self.top, self.right - self.left
        return max(1, round(height * self.scale)), max(1, round(width * self.scale))

    def apply(self, image: Pixels, interpolation: int | None = None) -> Pixels:
        """Bring an image of the file's grid, ``(rows, columns)``, to ``(size, size)`` float32.

        Args:
            image: What to bring over, float32.
            interpolation: One of OpenCV's; None takes area means when shrinking and bilinear
                interpolation when enlarging.
        """
        crop = image[self.top : self.bottom, self.left : self.right]
        square: Pixels = np.zeros((self.size, self.size), np.float32)
        height, width = self.shape
        square[:height, :width] = _resized(self._mirrored(crop), self.shape, interpolation)
        return square

    def apply_mask(self, mask: Mask) -> Mask:
        """Bring a mask over, ``(size, size)`` bool: true where at least half of a pixel is marked.

        A finding that would vanish, as a calcification does, keeps the pixel it fills most.
        """
        share = self.apply(mask.astype(np.float32))
        kept: Mask = np.asarray(share >= 0.5)
        _, pieces = cv2.connectedComponents((share > 0).astype(np.uint8), connectivity=8)
        rows, columns = np.nonzero((share > 0) & np.isin(pieces, pieces[kept], invert=True))
        strongest_first = np.argsort(-share[rows, columns], kind="stable")
        rows, columns = rows[strongest_first], columns[strongest_first]
        _, first = np.unique(pieces[rows, columns], return_index=True)
        kept[rows[first], columns[first]] = True
        return kept

    def invert(self, square: npt.NDArray[Any]) -> Pixels:
        """Bring a map of the square grid back to the file's, ``(rows, columns)`` float32.

        Outside of the crop it is 0. A mask comes back as shares: compare them with 0.5.
        """
        height, width = self.shape
        content = square[:height, :width].astype(np.float32)
        crop_shape = (self.bottom - self.top, self.right - self.left)
        image: Pixels = np.zeros((self.rows, self.columns), np.float32)
        crop = self._mirrored(_resized(content, crop_shape, None))
        image[self.top : self.bottom, self.left : self.right] = crop
        return image

    def to_json(self) -> dict[str, Any]:
        """Return numbers and booleans that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Make the transform that :meth:`to_json` described.

        Raises:
            TypeError: A number is missing or has an unknown name.
        """
        return cls(**content)

    def _mirrored(self, image: Pixels) -> Pixels:
        return np.ascontiguousarray(image[:, ::-1] if self.flipped else image)


def fit(field: Mask, laterality: Laterality | None, size: int) -> Transform:
    """Choose the transform that shows a breast, chest wall left, on a square grid.

    Args:
        field: ``(H, W)`` bool, not empty; the crop is its box and a small margin.
        laterality: The breast's side, asked only where the pixels leave the chest wall open.
        size: Side of the square grid in pixels.
    """
    (top, bottom), (left, right) = _extent(field, axis=0), _extent(field, axis=1)
    margin = round(MARGIN * max(bottom - top, right - left))
    rows, columns = field.shape
    return Transform(
        rows=rows,
        columns=columns,
        top=max(0, top - margin),
        bottom=min(rows, bottom + margin),
        left=max(0, left - margin),
        right=min(columns, right + margin),
        flipped=_chest_wall_is_right(field[top:bottom, left:right], laterality),
        size=size,
    )


def _chest_wall_is_right(box: Mask, laterality: Laterality | None) -> bool:
    """Look for the chest wall: the side on which the breast ends straight, not in a tip.

    Pixels come before laterality because exports and films are often mirrored. Without either, the
    heavier half wins. In the usual view a right breast has its chest wall at the right.
    """
    strip = max(1, round(0.04 * box.shape[1]))
    straighter_right = float(box[:, -strip:].mean() - box[:, :strip].mean())
    if abs(straighter_right) >= 0.05:
        return straighter_right > 0
    if laterality is not None:
        return laterality == "R"
    half = (box.shape[1] + 1) // 2
    return bool(box[:, -half:].sum() > box[:, :half].sum())


def _extent(field: Mask, axis: int) -> tuple[int, int]:
    """Return the first row (axis 0) or column (axis 1) of a field, and the one after its last."""
    places = np.flatnonzero(field.any(axis=1 - axis))
    return int(places[0]), int(places[-1]) + 1


def _resized(image: Pixels, shape: tuple[int, int], interpolation: int | None) -> Pixels:
    if interpolation is None:
        shrinks = shape[0] < image.shape[0] or shape[1] < image.shape[1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: Pixels = cv2.resize(image, shape[::-1], interpolation=interpolation)
    return resized
