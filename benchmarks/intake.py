"""A mammogram's way from disk to the cache and back, beside a plain pydicom + scikit-image script.

One full-size phantom is written in every transfer syntax. Ours reads it as ``data prepare`` does,
through the decoding process; the peer decodes with pydicom's own plugins (where these are GPL, with
our decoder) and goes on in floating point at full size. In turns, A B A B, one thread.
Usage: python benchmarks/intake.py [--rows 3328] [--columns 2560] [--size 1536] [--repeats 5]
       [--files 2000] [--format table|json]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from intake_chain import Laps, medians, stage, total
from pydicom.pixels import apply_voi_lut
from rich.console import Console
from rich.table import Table
from skimage import filters, measure, transform

from mamfed_client.cache import Store, digest
from mamfed_client.data import Source, prepare_folder
from mamfed_client.decode import Decoder
from mamfed_client.decoding.codecs import stored_values
from mamfed_client.mammogram import Mammogram
from mamfed_client.preprocess import prepare
from mamfed_client.voi import to_grey
from mamfed_common.samples import FULL_SCALE
from mamfed_simulations.dicom_file import write_dicom
from mamfed_simulations.hostile import write_intake_folder
from mamfed_simulations.looks import apply_look
from mamfed_simulations.phantom import draw_patient
from mamfed_simulations.vendors import VENDORS

SYNTAXES = (
    "explicit",
    "deflated",
    "rle",
    "jpeg-lossless-sv1",
    "jpeg-ls",
    "jpeg-2000-lossless",
    "jpeg-2000",
)
REACH = {"explicit": 10, "jpeg-2000-lossless": 3}
"""How many times faster than the peer the whole chain is meant to be."""


def write_phantom(folder: Path, rows: int, columns: int) -> dict[str, Path]:
    """Write one phantom of the first vendor in each transfer syntax."""
    look = VENDORS["aurora"]
    look = replace(look, detector=replace(look.detector, rows=rows, columns=columns))
    rng = np.random.default_rng(0)
    (phantom,) = draw_patient(rng, (rows, columns), look.population, malignant=True, views=("CC",))
    pixels = apply_look(phantom, look, rng)
    paths = {}
    for syntax in SYNTAXES:
        paths[syntax] = folder / f"{syntax}.dcm"
        spacing_mm = look.detector.spacing_mm
        write_dicom(
            paths[syntax],
            pixels,
            phantom,
            look,
            patient_id="SYN",
            spacing_mm=spacing_mm,
            syntax=syntax,
        )
    return paths


def through_the_process(path: Path, size: int, decoder: Decoder) -> Laps:
    """Read and prepare a file as ``data prepare`` does, but for hashing pixels and writing."""
    laps = Laps()
    with stage(laps, "whole chain"):
        mammogram, _ = decoder.mammogram(path)
        prepare(mammogram, None, size)
    return laps


def plainly(path: Path, size: int) -> Laps:
    """Do the same as a script with pydicom and scikit-image does, in floating point."""
    laps = Laps()
    with stage(laps, "whole chain"):
        dataset = pydicom.dcmread(path)
        try:
            stored = dataset.pixel_array
        except (NotImplementedError, RuntimeError, AttributeError):  # only GPL plugins would
            stored = stored_values(dataset)
        image = apply_voi_lut(stored, dataset).astype(np.float32)
        image = (image - image.min()) / (image.max() - image.min())
        labels = measure.label(image > filters.threshold_otsu(image))
        region = max(measure.regionprops(labels), key=lambda region: region.area)
        top, left, bottom, right = region.bbox
        scale = size / max(bottom - top, right - left)
        shape = (round((bottom - top) * scale), round((right - left) * scale))
        transform.resize(image[top:bottom, left:right], shape, anti_aliasing=True)
    return laps


def stages(path: Path, size: int, store: Store) -> Laps:
    """Run the steps of one file in this process, one by one."""
    laps = Laps()
    with stage(laps, "read + header"):
        dataset = pydicom.dcmread(path)
    with stage(laps, "decode"):
        stored = stored_values(dataset)
    with stage(laps, "grey scale"):
        grey, valid = to_grey(stored, dataset)
    with stage(laps, "breast, crop, resize"):
        sample, transform = prepare(Mammogram(grey, valid), None, size)
    with stage(laps, "write"):
        store.add(digest(path.name, "", None, size), sample, transform)
    laps["after decoding"] = total([laps["grey scale"], laps["breast, crop, resize"]])
    return laps


def compare(paths: dict[str, Path], size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Time the whole chain on each syntax, ours and the peer's in turns, in wall milliseconds."""
    found = {}
    with Decoder() as decoder:
        for syntax, path in paths.items():
            chains: dict[str, Callable[[], Laps]] = {
                "ours": lambda path=path: through_the_process(path, size, decoder),
                "peer": lambda path=path: plainly(path, size),
            }
            laps = medians(chains, repeats)
            ours, peer = (laps[name]["whole chain"].wall_ms for name in ("ours", "peer"))
            found[syntax] = {"ours_ms": ours, "peer_ms": peer, "ratio": peer / ours}
    return found


def read_samples(folder: Path, size: int, count: int = 50) -> float:
    """Read samples warm from the cache and make them float32; images a second in one thread."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 65536, (size, size), np.uint16)
    field = grey > 20000
    sample, transform = prepare(Mammogram(cv2.GaussianBlur(grey, (0, 0), 9)), None, size)
    entries = [
        Store(folder).add(
            digest(str(number), "", None, size), sample._replace(field=field), transform
        )
        for number in range(count)
    ]

    def read() -> Laps:
        laps = Laps()
        with stage(laps, "read"):
            for entry in entries:
                loaded = entry.load("")
                np.multiply(loaded.image, np.float32(1 / FULL_SCALE), dtype=np.float32)
        return laps

    return count / medians({"ours": read}, 5)["ours"]["read"].wall_ms * 1e3


def prepare_twice(folder: Path, files: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Prepare a folder of small phantoms, 1 in 40 of them bad, and prepare it again."""
    write_intake_folder(folder / "site", files, files // 40, 0)
    laps: Laps = {}
    for name in ("first", "second"):
        with stage(laps, name):
            _, counts = prepare_folder(Source(folder / "site"), folder / "out", size=256)
    return {name: lap.wall_ms / 1e3 for name, lap in laps.items()}, counts


def run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run everything."""
    with tempfile.TemporaryDirectory() as name:
        folder, size = Path(name), arguments.size
        paths = write_phantom(folder, arguments.rows, arguments.columns)
        store = Store(folder / "samples")
        split = {
            syntax: medians({"ours": lambda path=path: stages(path, size, store)}, 5)["ours"]
            for syntax, path in paths.items()
        }
        seconds, counts = prepare_twice(folder, arguments.files)
        return {
            "image": [arguments.rows, arguments.columns],
            "size": size,
            "repeats": arguments.repeats,
            "megabytes": {s: path.stat().st_size / 1e6 for s, path in paths.items()},
            "chain": compare(paths, size, arguments.repeats),
            "stages": {s: {n: lap.cpu_ms for n, lap in laps.items()} for s, laps in split.items()},
            "prepare_seconds": seconds,
            "prepare_files": counts["files"],
            "prepare_rejected": sum(counts["rejected"].values()),
            "samples_a_second": read_samples(folder / "cache", 1536),
        }


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console()
    rows, columns = found["image"]
    image = f"{rows} x {columns} 12-bit -> {found['size']}"
    chain = Table("syntax", "MB", "ours ms", "images/s", "peer ms", "ratio", "meant", title=image)
    for syntax, row in found["chain"].items():
        chain.add_row(
            syntax,
            f"{found['megabytes'][syntax]:.1f}",
            f"{row['ours_ms']:.0f}",
            f"{1e3 / row['ours_ms']:.1f}",
            f"{row['peer_ms']:.0f}",
            f"{row['ratio']:.1f} x",
            f"{REACH[syntax]} x" if syntax in REACH else "",
        )
    console.print(chain)
    names = list(next(iter(found["stages"].values())))
    split = Table("CPU ms", *names, title="where the time goes, in one process")
    for syntax, laps in found["stages"].items():
        split.add_row(syntax, *(f"{laps[name]:.1f}" for name in names))
    console.print(split)
    seconds = found["prepare_seconds"]
    console.print(
        f"prepare {found['prepare_files']} files, {found['prepare_rejected']} rejected: "
        f"{seconds['first']:.1f} s, again {seconds['second']:.1f} s ({os.cpu_count()} cores)\n"
        f"samples of 1536 x 1536 from the cache, as float32: {found['samples_a_second']:.0f}/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3328)
    parser.add_argument("--columns", type=int, default=2560)
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    found = run_all(arguments)
    if arguments.format == "json":
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
