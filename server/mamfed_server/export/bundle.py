"""Export as a MONAI bundle, following MONAI's Bundle Specification; it runs without mamfed.

``configs/inference.json`` loads ``models/model.ts``, which contains its own code. The specification
also requires ``models/model.pt``: tensors by name, without anything that unpickling could execute
(readable with ``torch.load(..., weights_only=True)``).
"""

from __future__ import annotations

import json
from importlib.metadata import distribution
from pathlib import Path

import monai
import numpy as np
import torch

from mamfed_common.errors import OutputError
from mamfed_common.model.state_dict import state_of
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_server.export import torchscript
from mamfed_server.export.checks import Images, Predictor
from mamfed_server.export.network import MALIGNANCY, ExportModel, ExportNetwork, StackedNetwork

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
NAMES = {
    "MONAI": "monai_version",
    "torch": "pytorch_version",
    "numpy": "numpy_version",
}


def write(folder: Path, model: ExportModel) -> None:
    """Write the folders ``configs``, ``models`` and ``docs``, and the licence file."""
    configs, models, docs = (private_directory(folder / n) for n in ("configs", "models", "docs"))
    write_atomic(configs / "metadata.json", json.dumps(_metadata(model), indent=2) + "\n")
    write_atomic(configs / "inference.json", json.dumps(_inference(model), indent=2) + "\n")
    network = StackedNetwork(ExportNetwork(model.network))
    torchscript.save_trace(network, models / "model.ts", model)
    torch.save(state_of(model.network), models / "model.pt")
    write_atomic(docs / "README.md", "See ../README.md and ../MODEL_CARD.md.\n")
    write_atomic(folder / "LICENSE", _licence())


def load(folder: Path) -> Predictor:
    """Load the network named in ``configs/inference.json`` with MONAI's own parser."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(json.loads((folder / "configs" / "inference.json").read_text()))
    parser["bundle_root"], parser["device"] = str(folder), "$torch.device('cpu')"
    network = parser.get_parsed_content("network_def")

    @torch.no_grad()
    def predict(images: Images) -> list[np.ndarray]:
        stacked = network(torch.from_numpy(images)).numpy()
        return [stacked[:, channel : channel + 1] for channel in range(stacked.shape[1])]

    return predict


def _inference(model: ExportModel) -> dict[str, object]:
    """Return the configuration: it reads prepared PNG images and writes malignancy as ``.npy``."""
    return {
        "imports": ["$import glob", "$import os", "$import torch", "$import numpy"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "paths": "$sorted(glob.glob(@dataset_dir + '/*.png'))",
        "full_scale": FULL_SCALE,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "LoadImage",
                    # By default, MONAI reads a PNG as (W, H).
                    "reader": {"_target_": "PILReader", "reverse_indexing": False},
                    "image_only": True,
                    "ensure_channel_first": True,
                },
                {
                    "_target_": "Lambda",
                    "func": "$lambda image: image / @full_scale(image.meta['filename_or_obj'])",
                },
                {"_target_": "DivisiblePad", "k": model.multiple, "method": "end", "mode": "edge"},
                {"_target_": "EnsureType", "dtype": "$torch.float32", "track_meta": False},
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "predict": (
            "$lambda path: @inferer(@preprocessing(path)[None].to(@device), @network_def)"
            f"[0, {model.outputs.index(MALIGNANCY)}].cpu().numpy()"
        ),
        "save": (
            "$lambda path: numpy.save(os.path.join(@output_dir, "
            "os.path.basename(path)[:-4] + '.npy'), @predict(path))"
        ),
        "run": [
            "$os.makedirs(@output_dir, exist_ok=True)",
            "$@network_def.eval()",
            "$torch.set_grad_enabled(False)",
            "$[@save(path) for path in @paths]",
        ],
    }


FULL_SCALE = (
    "$lambda path: {b'\\x08\\x00': 255.0, b'\\x10\\x00': 65535.0}"
    ".get(open(path, 'rb').read(26)[24:]) or (_ for _ in ()).throw("
    "ValueError(path + ': expected a grey PNG of 8 or 16 bits'))"
)
"""Return a file's white level from its header (PNG 11.2.2: bit depth in byte 24, grey = 0 in 25).

``export --images`` does the same. The pixel values would not do: those of a dark 16-bit image may
all fit in 8 bits.
"""


def _metadata(model: ExportModel) -> dict[str, object]:
    facts, versions = model.facts, _versions()
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"weights {facts.weights_sha256[:12]}"},
        **versions,
        "required_packages_version": {},
        "supported_apps": {},
        "name": "mamfed malignancy",
        "task": "Segmentation of suspected malignancy in one mammogram",
        "description": "A U-Net of a mamfed run; MODEL_CARD.md says more. "
        + str(model.preprocessing["use"]),
        "authors": "mamfed",
        "copyright": "the sites of the run",
        "data_source": "see MODEL_CARD.md",
        "data_type": "png",
        "image_classes": "single channel mammogram, prepared as preprocessing.json says",
        "label_classes": "single channel mask of malignant findings",
        "pred_classes": "channel 0: probability of malignancy",
        "eval_metrics": {},
        "intended_use": str(model.preprocessing["use"]),
        "references": [],
        "network_data_format": {
            "inputs": {"image": _data_format("image", 1, model, {"0": "image"})},
            "outputs": {
                "pred": _data_format(
                    "probabilities",
                    len(model.outputs),
                    model,
                    {str(number): name for number, name in enumerate(model.outputs)},
                )
            },
        },
    }


def _data_format(
    kind: str, channels: int, model: ExportModel, channel_def: dict[str, str]
) -> dict[str, object]:
    least = 2 * model.multiple
    return {
        "type": "image" if kind == "image" else "probabilities",
        "format": "magnitude" if kind == "image" else "segmentation",
        "modality": "MG",
        "num_channels": channels,
        "spatial_shape": [f"{least} * n", f"{least} * n"],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": channel_def,
    }


def _versions() -> dict[str, str]:
    modules = {"MONAI": monai.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return {NAMES[name]: version.partition("+")[0] for name, version in modules.items()}


def _licence() -> str:
    """Return mamfed's licence text from the installed package."""
    for path in distribution("mamfed").files or ():
        if path.name == "LICENSE":
            return path.read_text()
    raise OutputError("the installed package mamfed has no LICENSE file; reinstall mamfed")
