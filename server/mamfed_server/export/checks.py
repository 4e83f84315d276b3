"""Compare an export with PyTorch, on given images or on a generated one.

The reference is the checkpoint's own network in double precision, which is the same on every
machine. The difference from float32, which mamfed uses for prediction, is reported as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mamfed_common.errors import DataError, OutputError
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_server.export.network import ExportModel

TOLERANCE = 1e-4
"""Maximum absolute difference from PyTorch in any output of an export."""
SEED = 20261124

Images = npt.NDArray[np.float32]
"""``(N, 1, H, W)``, 0..1."""
Outputs = tuple[Images, ...]
Predictor = Callable[[Images], Sequence[npt.NDArray[np.float32]]]
OnBatch = Callable[[], None]


class OutputDifference(NamedTuple):
    """The largest absolute differences between an export and PyTorch over all outputs.

    Attributes:
        float64: From the network in double precision.
        float32: From the network as mamfed runs it on a CPU.
        shapes: The shape of every batch that was compared.
    """

    float64: float
    float32: float
    shapes: tuple[tuple[int, ...], ...]


def batches_of(model: ExportModel, images: Sequence[Images]) -> list[Images]:
    """Return the batches to compare: each image, and a batch of two reduced copies of the first.

    Args:
        model: The model to export.
        images: Each ``(H, W)``.
    """
    multiple = model.multiple
    singles = [padded(image, multiple)[None, None] for image in images]
    height, width = (max(2, side // multiple // 2) for side in singles[0].shape[2:])
    small = cv2.resize(images[0], ((width + 1) * multiple, height * multiple))
    return [*singles, np.stack([small, small[::-1]])[:, None].astype(np.float32)]


def padded(image: Images, multiple: int) -> Images:
    """Repeat the last row and column of ``(H, W)`` to multiples of ``multiple``, at least two."""
    sides = [max(2, -(-side // multiple)) * multiple for side in image.shape]
    padding = [(0, to - side) for to, side in zip(sides, image.shape, strict=True)]
    return np.pad(image, padding, mode="edge")


def compare(
    model: ExportModel,
    predict: Predictor,
    batches: Sequence[Images],
    on_batch: OnBatch | None = None,
) -> OutputDifference:
    """Run an export and PyTorch on the same batches.

    Raises:
        OutputError: They differ by more than :data:`TOLERANCE`.
    """
    double = copy.deepcopy(model.network).double()
    worst = np.zeros(2)
    for batch in batches:
        actual = [np.asarray(output) for output in predict(batch)]
        references = (_run(double, batch.astype(np.float64)), _run(model.network, batch))
        largest = [_largest_difference(actual, expected) for expected in references]
        worst = np.maximum(worst, largest)  # NaN stays NaN
        if on_batch:
            on_batch()
    shapes = tuple(batch.shape for batch in batches)
    difference = OutputDifference(float(worst[0]), float(worst[1]), shapes)
    if not difference.float64 <= TOLERANCE:
        raise OutputError(
            f"the export differs from PyTorch by {difference.float64:.1e}, expected at most "
            f"{TOLERANCE:.0e}; nothing was written. Try other images with --images"
        )
    return difference


@torch.no_grad()
def _run(network: MalignancyNetwork, batch: npt.NDArray[np.floating]) -> list[np.ndarray]:
    logits, redrawn = network.explain(torch.from_numpy(batch))
    outputs = [logits.sigmoid()] if redrawn is None else [logits.sigmoid(), redrawn]
    return [output.numpy() for output in outputs]


def _largest_difference(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    if [array.shape for array in actual] != [array.shape for array in expected]:
        return float("nan")
    pairs = zip(actual, expected, strict=True)
    return float(np.max([np.abs(one.astype(np.float64) - other).max() for one, other in pairs]))


def read_images(folder: Path) -> list[Images]:
    """Read all PNG files of a folder, prepared images in 8- or 16-bit grey, as ``(H, W)`` in 0..1.

    Raises:
        DataError: There is no PNG file, or one is not grey.
    """
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise DataError(f"{folder}: found no *.png, expected prepared images in 8- or 16-bit grey")
    return [_read(path) for path in paths]


def _read(path: Path) -> Images:
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 2 or stored.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path}: expected a grey PNG of 8 or 16 bits, as `mamfed-client data show --sample` "
            "writes them"
        )
    image: Images = stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max)
    return image


def drawn_image(size: int, seed: int = SEED) -> Images:
    """Generate a breast-like image, ``(size, size)``: tissue of several scales and one mass."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:size, :size].astype(np.float32) / size
    tissue = np.zeros((size, size), np.float32)
    for cells in (4, 16, 64):
        coarse = rng.random((cells, cells), dtype=np.float32)
        tissue += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) / 4
    mass = np.exp(-((row - 0.45) ** 2 + (column - 0.3) ** 2) / 0.003)
    breast = (row - 0.5) ** 2 / 0.24 + column**2 / 0.5 < 1
    image: Images = np.clip(tissue + 0.5 * mass, 0, 1).astype(np.float32) * breast
    return image
