"""Export as ``model.safetensors``, only the weights, and ``network.json``, their network.

After a run with stage 1, ``painter.safetensors`` contains the weights of the same network that draw
healthy tissue (``mamfed_common.training.repaint``).

A checkpoint's header also contains the plan, the names of the sites, refused sites with reasons,
and each site's validation. This export omits them, so that it can be shared where the sites' names
must not be. Names and values of the weights are those of the checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.model.state_dict import state_of
from mamfed_common.runtime.files import write_atomic
from mamfed_server.export.checks import Images, Predictor
from mamfed_server.export.network import ExportModel, ExportNetwork

FILE, NETWORK_FILE = "model.safetensors", "network.json"
PAINTER_FILE = "painter.safetensors"


def write(folder: Path, model: ExportModel) -> None:
    """Write the weights and the arguments of :class:`NetworkConfig`."""
    save_file(state_of(model.network), folder / FILE)
    if model.painter is not None:
        save_file(model.painter, folder / PAINTER_FILE)
    text = model.facts.plan.network.model_dump_json(indent=2)
    write_atomic(folder / NETWORK_FILE, text + "\n")


def load(folder: Path) -> Predictor:
    """Build the network from only these two files."""
    config = NetworkConfig(**json.loads((folder / NETWORK_FILE).read_text()))
    original = MalignancyNetwork(config)
    original.load_state_dict(load_file(folder / FILE))
    network = ExportNetwork(original)

    @torch.no_grad()
    def predict(images: Images) -> list[np.ndarray]:
        outputs = network(torch.from_numpy(images))
        arrays = [outputs] if isinstance(outputs, Tensor) else outputs
        return [array.numpy() for array in arrays]

    return predict
