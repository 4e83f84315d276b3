"""Measure inference of one image: onnxruntime on the exported file beside PyTorch.

Usage: python -m benchmarks.network.onnx_inference [--image FILE.png] [--sizes 512 1536]
       [--repeats 7]

Both run in one process. The network is that of the default plan with random weights, which cost the
same as trained ones. With --image, a grey PNG of a real mammogram, the largest difference of the
outputs refers to that image.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch

from mamfed_common.checkpoint import CheckpointFacts
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_server.export import onnx_file
from mamfed_server.export.checks import Images, compare, drawn_image
from mamfed_server.export.network import ExportModel
from mamfed_server.export.preprocessing import preprocessing_of

THREADS = 2


def default_model() -> ExportModel:
    """Build the default plan's network, untrained."""
    plan = TrainingPlan()
    facts = CheckpointFacts(
        plan=plan, plan_sha256=plan.sha256(), stage=Stage.FINETUNING, server_round=1
    )
    return ExportModel(build_network(plan.network, 0).eval(), facts, preprocessing_of(facts))


def session_of(model: ExportModel, folder: Path) -> onnxruntime.InferenceSession:
    """Export a network and load it with as many threads as PyTorch has."""
    onnx_file.write(folder, model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    # Two idle pools that spin would take each other's cores here; in a process of its own it may.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = folder / onnx_file.FILE
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def read(path: Path | None, size: int) -> Images:
    """Return a real image or a drawn one, ``(1, 1, size, size)`` in 0..1."""
    if path is None:
        return drawn_image(size)[None, None]
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert grey is not None, path
    image = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)
    return (image.astype(np.float32) / 255)[None, None]


def measure(
    model: ExportModel, session: onnxruntime.InferenceSession, image: Images, repeats: int
) -> tuple[list[float], list[float]]:
    """Time both in turn, A B A B; the first of each is warm-up and left out."""
    tensor, ours, peer = torch.from_numpy(image), [], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        session.run(None, {"image": image})
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        with torch.no_grad():
            model.network(tensor)
        peer.append(time.perf_counter() - started)
    return ours[1:], peer[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1536])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    model = default_model()
    with tempfile.TemporaryDirectory() as folder:
        session = session_of(model, Path(folder))
        for size in arguments.sizes:
            image = read(arguments.image, size)
            ours, peer = measure(model, session, image, arguments.repeats)
            seconds, peer_seconds = statistics.median(ours), statistics.median(peer)
            difference = compare(model, lambda x: session.run(None, {"image": x}), [image])
            print(
                f"{size} x {size}, {THREADS} threads: onnxruntime {seconds:.3f} s, "
                f"PyTorch {peer_seconds:.3f} s, ratio {seconds / peer_seconds:.2f} "
                f"(runs {min(ours):.3f}..{max(ours):.3f}, {min(peer):.3f}..{max(peer):.3f}); "
                f"largest difference {difference.float64:.1e} from double precision, "
                f"{difference.float32:.1e} from PyTorch's float32"
            )


if __name__ == "__main__":
    main()
