"""Export as ``model.ts``, for libtorch and PyTorch; it runs without mamfed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mamfed_server.export.checks import Images, Predictor
from mamfed_server.export.network import ExportModel, ExportNetwork

FILE = "model.ts"
METADATA_FILE = "preprocessing.json"
"""Name of an extra file inside ``model.ts`` with the same contents."""


def write(folder: Path, model: ExportModel) -> None:
    """Write a trace with dynamic batch, height and width."""
    save_trace(ExportNetwork(model.network), folder / FILE, model)


def load(folder: Path) -> Predictor:
    """Load the file with PyTorch."""
    network = torch.jit.load(str(folder / FILE), map_location="cpu")  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def predict(images: Images) -> list[np.ndarray]:
        outputs = network(torch.from_numpy(images))
        arrays = [outputs] if isinstance(outputs, Tensor) else outputs
        return [array.numpy() for array in arrays]

    return predict


@torch.no_grad()
def save_trace(network: nn.Module, path: Path, model: ExportModel) -> None:
    """Trace a network and save it with its preprocessing."""
    with warnings.catch_warnings():
        # Tracing fixes the check that sides are multiples, as intended.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            network.eval(), model.example(), check_trace=False
        )
        extra = {METADATA_FILE: json.dumps(model.preprocessing)}
        torch.jit.save(traced, str(path), _extra_files=extra)
