"""Export as ``model.onnx``, for onnxruntime and other ONNX readers; it runs without mamfed."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch

from mamfed_server.export.checks import Images, Predictor
from mamfed_server.export.network import IMAGE, ExportModel, ExportNetwork

FILE = "model.onnx"
OPSET = 20
METADATA_KEY = "mamfed"


def write(folder: Path, model: ExportModel) -> None:
    """Write the graph with dynamic batch, height and width; verify it with ONNX's own checker."""
    multiple = model.multiple
    batch, height, width = (
        torch.export.Dim(name, min=least) for name, least in (("n", 1), ("h", 2), ("w", 2))
    )
    program = _export_quietly(
        model,
        {0: batch, 2: multiple * height, 3: multiple * width},
    )
    _name_dimensions(program)
    _strip_local_paths(program)
    onnx.helper.set_model_props(program, _metadata(model))
    program.producer_name, program.producer_version = "mamfed", model.facts.mamfed_version
    onnx.checker.check_model(program, full_check=True)
    onnx.save(program, folder / FILE)


def load(folder: Path) -> Predictor:
    """Load the file with onnxruntime, for the comparison with PyTorch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])

    def predict(images: Images) -> list[np.ndarray]:
        return cast(list[np.ndarray], session.run(None, {IMAGE: images}))

    return predict


def _export_quietly(model: ExportModel, sizes: dict[int, object]) -> onnx.ModelProto:
    """Export without torch's output on stdout and in the log, which does not concern users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            program = torch.onnx.export(
                ExportNetwork(model.network),
                (model.example(),),
                input_names=[IMAGE],
                output_names=list(model.outputs),
                dynamic_shapes={IMAGE: sizes},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        finally:
            logging.disable(logging.NOTSET)
    assert program is not None, "dynamo always returns the program"
    return program.model_proto


def _name_dimensions(program: onnx.ModelProto) -> None:
    """Replace the exporter's expressions for dynamic dimensions with plain names."""
    for value in (*program.graph.input, *program.graph.output):
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[axis].dim_param = name


def _strip_local_paths(program: onnx.ModelProto) -> None:
    """Remove stack traces and class names, which contain the coordinator's paths."""
    del program.metadata_props[:]
    del program.graph.metadata_props[:]
    graph = program.graph
    parts: list[Any] = [*graph.node, *graph.initializer, *graph.input, *graph.output]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    # Unused, and named by the exporter's expressions.
    del graph.value_info[:]


def _metadata(model: ExportModel) -> dict[str, str]:
    """Return all facts as JSON under one key, and the main ones as separate texts."""
    flat = ("use", "threshold", "multiple", "image_size", "plan_sha256", "weights_sha256")
    texts = {f"{METADATA_KEY}.{key}": str(model.preprocessing[key]) for key in flat}
    return {METADATA_KEY: json.dumps(model.preprocessing)} | texts
