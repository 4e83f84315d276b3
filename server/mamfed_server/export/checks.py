"""Does an export say what PyTorch says? On the images that are given, or on a drawn one.

The reference is the checkpoint's own network in double precision, the same on every machine. How
far the export is from float32, by which mamfed predicts, is told beside it.
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
"""Largest absolute difference from PyTorch that an export may have, in any output."""
SEED = 20261124

Images = npt.NDArray[np.float32]
"""``(N, 1, H, W)``, 0..1."""
Outputs = tuple[Images, ...]
Predictor = Callable[[Images], Sequence[npt.NDArray[np.float32]]]
OnBatch = Callable[[], None]


class OutputDifference(NamedTuple):
    """How far an export is from PyTorch: largest absolute differences over all outputs.

    Attributes:
        float64: From the network in double precision.
        float32: From the network as mamfed runs it on a CPU.
        shapes: The shape of every batch that was compared.
    """

    float64: float
    float32: float
    shapes: tuple[tuple[int, ...], ...]


def batches_of(model: ExportModel, images: Sequence[Images]) -> list[Images]:
    """Return what to compare on: each image, and the first two sizes smaller, twice in one batch.

    Args:
        model: What is exported.
        images: ``(H, W)`` each.
    """
    multiple = model.multiple
    singles = [padded(image, multiple)[None, None] for image in images]
    height, width = (max(2, side // multiple // 2) for side in singles[0].shape[2:])
    small = cv2.resize(images[0], ((width + 1) * multiple, height * multiple))
    return [*singles, np.stack([small, small[::-1]])[:, None].astype(np.float32)]


def padded(image: Images, multiple: int) -> Images:
    """Repeat the last row and column of ``(H, W)`` until both sides are multiples, two at least."""
    wanted = [max(2, -(-side // multiple)) * multiple for side in image.shape]
    missing = [(0, to - side) for to, side in zip(wanted, image.shape, strict=True)]
    return np.pad(image, missing, mode="edge")


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
        found = [np.asarray(output) for output in predict(batch)]
        expected = (_run(double, batch.astype(np.float64)), _run(model.network, batch))
        worst = np.maximum(worst, [_largest(found, one) for one in expected])  # NaN stays NaN
        if on_batch:
            on_batch()
    shapes = tuple(batch.shape for batch in batches)
    difference = OutputDifference(float(worst[0]), float(worst[1]), shapes)
    if not difference.float64 <= TOLERANCE:
        raise OutputError(
            f"the export differs from PyTorch by {difference.float64:.1e}, allowed are "
            f"{TOLERANCE:.0e}; nothing was written. Other images? See --images"
        )
    return difference


@torch.no_grad()
def _run(network: MalignancyNetwork, batch: npt.NDArray[np.floating]) -> list[np.ndarray]:
    logits, redrawn = network.explain(torch.from_numpy(batch))
    outputs = [logits.sigmoid()] if redrawn is None else [logits.sigmoid(), redrawn]
    return [output.numpy() for output in outputs]


def _largest(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    if [one.shape for one in found] != [one.shape for one in expected]:
        return float("nan")
    pairs = zip(found, expected, strict=True)
    return float(np.max([np.abs(one.astype(np.float64) - two).max() for one, two in pairs]))


def read_images(folder: Path) -> list[Images]:
    """Read every PNG of a folder: prepared images, 8 or 16 bits grey, as ``(H, W)`` in 0..1.

    Raises:
        DataError: There is none, or one is no grey PNG.
    """
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise DataError(f"{folder}: no *.png there; expected prepared images, 8 or 16 bits grey")
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
    """Draw something like a breast, ``(size, size)``: tissue of several scales, and one mass."""
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
