"""Transform images and masks between a file's pixel grid and the network's square grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.mammogram import Laterality, Mask, Pixels

MARGIN = 0.02
"""Margin around the breast, as a fraction of the longer side of its box."""


class Box(NamedTuple):
    """A rectangle of pixels; ``bottom`` and ``right`` are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def around(cls, marked: Mask) -> Self | None:
        """Return the smallest box around all true pixels; None if there are none."""
        rows, columns = (np.flatnonzero(marked.any(axis=axis)) for axis in (1, 0))
        if not rows.size:
            return None
        return cls(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)

    def scaled(self, of: tuple[int, int], to: tuple[int, int]) -> Self:
        """Scale the box from shape ``of`` to shape ``to``, including partially covered pixels."""
        (height, width), (rows, columns) = of, to
        return type(self)(
            self.top * rows // height,
            -(-self.bottom * rows // height),
            self.left * columns // width,
            -(-self.right * columns // width),
        )

    def joined(self, other: Box) -> Self:
        """Return the smallest box that contains both."""
        return type(self)(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )


@dataclass(frozen=True, slots=True)
class Transform:
    """Crop, rescale with fixed aspect ratio, mirror, and pad at the right and bottom.

    Attributes:
        rows: Height of the file's image in pixels.
        columns: Width of the file's image.
        top: First row of the crop.
        bottom: Row after the last row of the crop.
        left: First column of the crop.
        right: Column after the last column of the crop.
        flipped: Whether the image is mirrored to place the chest wall on the left.
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
        """Height and width of the content in the square grid; the rest is padding."""
        height, width = self.bottom - self.top, self.right - self.left
        return max(1, round(height * self.scale)), max(1, round(width * self.scale))

    def apply(self, image: npt.NDArray[Any], interpolation: int | None = None) -> npt.NDArray[Any]:
        """Transform an image ``(rows, columns)`` to ``(size, size)``.

        Args:
            image: The image, uint16 or float32; the type is preserved.
            interpolation: An OpenCV interpolation flag; None averages areas when shrinking and
                interpolates bilinearly when enlarging.
        """
        return self._on_square(_resized(self._crop(image), self.shape, interpolation))

    def apply_mask(self, mask: Mask) -> Mask:
        """Transform a mask to ``(size, size)`` bool: true where at least half a pixel is marked.

        A finding that would vanish, such as a calcification, keeps the pixel it covers most.
        """
        crop = self._crop(mask)
        content = np.zeros(self.shape, bool)
        if box := Box.around(crop):
            rows, columns = (
                _touched(box[i : i + 2], self.shape[i // 2], crop.shape[i // 2]) for i in (0, 2)
            )
            content[rows, columns] = _marked(_shares(crop, box, self.shape, columns)[rows])
        return self._on_square(content)

    def apply_view(self, view: Mask) -> Mask:
        """Transform a mask on a reduced view of the whole image to ``(size, size)`` bool.

        Bilinear interpolation smooths the steps between the view's pixels.
        """
        height, width = self.shape
        down, first_row = _centres(self.top, self.bottom, height, view.shape[0] / self.rows)
        across, first_column = _centres(self.left, self.right, width, view.shape[1] / self.columns)
        content = cv2.warpAffine(
            view.astype(np.uint8) * np.uint8(255),
            np.array([[across, 0, first_column], [0, down, first_row]]),
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return self._on_square(content >= 128)

    def apply_strictly(self, mask: Mask) -> Mask:
        """Transform a mask to ``(size, size)`` bool: true only where a pixel is entirely true."""
        crop = np.ascontiguousarray(self._crop(mask)).view(np.uint8)
        reach = 2 * math.ceil(0.5 / self.scale) + 1
        eroded = cv2.erode(crop, np.ones((reach, reach), np.uint8))
        content = _resized(eroded, self.shape, cv2.INTER_NEAREST_EXACT)
        return self._on_square(content.view(np.bool_))

    def invert(self, square: npt.NDArray[Any]) -> Pixels:
        """Transform a map from the square grid back to ``(rows, columns)`` float32.

        Pixels outside the crop are 0. A mask becomes fractions; threshold them at 0.5.
        """
        height, width = self.shape
        content = self._mirrored(square[:height, :width].astype(np.float32))
        image: Pixels = np.zeros((self.rows, self.columns), np.float32)
        crop = self._crop(image)
        crop[...] = _resized(content, crop.shape, None)
        return image

    def to_json(self) -> dict[str, Any]:
        """Convert the transform to a JSON-serialisable dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Restore a transform from the output of :meth:`to_json`.

        Raises:
            TypeError: A field is missing or unknown.
        """
        return cls(**content)

    def _crop(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return image[self.top : self.bottom, self.left : self.right]

    def _mirrored(self, content: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return content[:, ::-1] if self.flipped else content

    def _on_square(self, content: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Mirror and pad; mirroring after rescaling gives the same result on fewer pixels."""
        height, width = self.shape
        square = np.zeros((self.size, self.size), content.dtype)
        square[:height, :width] = self._mirrored(content)
        return square


def choose_transform(
    breast: Mask,
    laterality: Laterality | None,
    size: int,
    shape: tuple[int, int] | None = None,
    finding: Mask | None = None,
) -> Transform:
    """Choose the transform that places a breast on a square grid with the chest wall on the left.

    Args:
        breast: ``(h, w)`` bool, not empty: the breast on the file's grid, or on a reduced view of
            the whole image. The crop is its box plus a small margin.
        laterality: The breast's side, used only if the pixels do not show where the chest wall is.
        size: Side of the square grid in pixels.
        shape: ``(rows, columns)`` of the file's image, if ``breast`` is a view of it.
        finding: ``(rows, columns)`` bool, which must lie within the crop as well.
    """
    rows, columns = shape or breast.shape
    view_box = Box.around(breast)
    assert view_box is not None
    box = view_box.scaled(breast.shape, (rows, columns))
    if finding is not None and (marked := Box.around(finding)):
        box = box.joined(marked)
    margin = round(MARGIN * max(box.bottom - box.top, box.right - box.left))
    return Transform(
        rows=rows,
        columns=columns,
        top=max(0, box.top - margin),
        bottom=min(rows, box.bottom + margin),
        left=max(0, box.left - margin),
        right=min(columns, box.right + margin),
        flipped=_chest_wall_is_right(
            breast[view_box.top : view_box.bottom, view_box.left : view_box.right], laterality
        ),
        size=size,
    )


def _chest_wall_is_right(box: Mask, laterality: Laterality | None) -> bool:
    """Return whether the chest wall, where the breast ends straight rather than in a tip, is right.

    Pixels take precedence over laterality because exports and films are often mirrored. Without
    either, the half with more breast wins. By convention, a right breast has its chest wall at the
    right.
    """
    strip = max(1, round(0.04 * box.shape[1]))
    straighter_right = float(box[:, -strip:].mean() - box[:, :strip].mean())
    if abs(straighter_right) >= 0.05:
        return straighter_right > 0
    if laterality is not None:
        return laterality == "R"
    half = (box.shape[1] + 1) // 2
    return bool(box[:, -half:].sum() > box[:, :half].sum())


def _centres(first: int, end: int, count: int, ratio: float) -> tuple[float, float]:
    """Locate on a view of the image the centres of ``count`` pixels that span ``first..end``.

    Returns:
        Their spacing and the position of the first, in pixels of the view; 0 is the centre of the
        view's first pixel.
    """
    distance = (end - first) / count * ratio
    return distance, first * ratio + distance / 2 - 0.5


def _touched(extent: tuple[int, ...], new: int, old: int) -> slice:
    """Return the pixels of a resized axis that an extent of the old axis can contribute to."""
    first, end = extent
    return slice(max(0, (first - 1) * new // old), min(new, -(-(end + 1) * new // old)))


def _shares(crop: Mask, box: Box, shape: tuple[int, int], columns: slice) -> Pixels:
    """Resize a crop that is false outside a box to the fraction of each pixel that is marked.

    Only the rows of the box and then the given columns are resized: a finding is small, and the
    whole crop of a full-size image would take 14 ms.

    Returns:
        ``(height, n)`` float32 in 0..1: the given columns of the resized crop.
    """
    height, width = shape
    interpolation = _interpolation(crop.shape, shape)
    marked = crop[box.top : box.bottom].astype(np.float32)
    across = _resized(marked, (len(marked), width), interpolation)[:, columns]
    down = np.zeros((crop.shape[0], across.shape[1]), np.float32)
    down[box.top : box.bottom] = across
    shares: Pixels = _resized(down, (height, across.shape[1]), interpolation)
    return shares


def _marked(share: Pixels) -> Mask:
    """Keep pixels that are at least half marked, and the best pixel of each vanishing piece."""
    kept: Mask = np.asarray(share >= 0.5)
    _, pieces = cv2.connectedComponents((share > 0).astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero((share > 0) & np.isin(pieces, pieces[kept], invert=True))
    strongest_first = np.argsort(-share[rows, columns], kind="stable")
    rows, columns = rows[strongest_first], columns[strongest_first]
    _, first = np.unique(pieces[rows, columns], return_index=True)
    kept[rows[first], columns[first]] = True
    return kept


def _interpolation(old: tuple[int, ...], new: tuple[int, ...]) -> int:
    shrinks = new[0] < old[0] or new[1] < old[1]
    return int(cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _resized(
    image: npt.NDArray[Any], shape: tuple[int, ...], interpolation: int | None
) -> npt.NDArray[Any]:
    if interpolation is None:
        interpolation = _interpolation(image.shape, shape)
    resized: npt.NDArray[Any] = cv2.resize(image, shape[::-1], interpolation=interpolation)
    return resized
