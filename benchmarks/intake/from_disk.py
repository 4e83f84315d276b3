"""Measure the path of a mammogram from disk to a sample, beside a plain script.

One full-size 12-bit phantom is written in each transfer syntax. Ours reads it as ``data prepare``
does: hashed, decoded in the sandbox, cropped, rescaled and normalised, with its outline. The peer
is ``peers.plainly``, a pydicom + scikit-image script: ``dcmread``, ``pixel_array`` with whatever
decoder pydicom finds, ``apply_voi_lut``, MONOCHROME1 inverted, scaled to 0..1, ``threshold_otsu``,
``label``, the largest of ``regionprops``, ``resize`` with ``anti_aliasing``. It runs warm and can
use one thread only. Further comparisons:

- same output: the script also computes our outline, percentiles of the breast and hash;
- neither process nor hash: ours, in the script's own process;
- the least: the fastest possible crop, without process, hash, checks, outline or normalisation; the
  breast is located on every eighth pixel. It bounds the ratio.

Last, ``data prepare`` of many uncompressed files on all cores, beside the script in a loop that
saves its images. The time to start processes counts, so more ``--files`` show a larger gain. 2000
small files, 1 in 40 of them bad, run only on request.

Usage: python -m benchmarks.intake.from_disk [--syntaxes explicit rle jpeg-2000-lossless]
       [--vendor aurora] [--rows 3328] [--columns 2560] [--size 1536] [--threads 2] [--repeats 5]
       [--files 12] [--small-files 0]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pydicom
from rich.console import Console
from rich.table import Table

from benchmarks.intake.chain import Laps, medians, stage, total
from benchmarks.intake.peers import least, plain_sample, plainly
from benchmarks.lib.harness import record, take_turns
from mamfed_client.imaging.decoding.pixel_data import stored_values
from mamfed_client.imaging.dicom import read_dicom
from mamfed_client.imaging.grayscale import to_grey
from mamfed_client.imaging.mammogram import Mammogram
from mamfed_client.imaging.preprocess import prepare
from mamfed_client.preparation.commands import Source, prepare_folder
from mamfed_client.preparation.prepare_row import READING_VERSION
from mamfed_client.preparation.sample_store import SampleStore, digest
from mamfed_client.sandbox.decoder import Decoder
from mamfed_common.transforms.sample import FULL_SCALE, Sample
from mamfed_simulations.phantoms.corpus import write_intake_folder
from mamfed_simulations.phantoms.dicom_writer import write_dicom
from mamfed_simulations.phantoms.phantom import draw_patient
from mamfed_simulations.phantoms.transfer_syntaxes import SYNTAXES
from mamfed_simulations.phantoms.vendor_rendering import VendorLook, apply_look
from mamfed_simulations.phantoms.vendors import VENDORS, TableRow, write_table

PEER = "pydicom + scikit-image"
NAMES = {"explicit": "uncompressed", "rle": "RLE", "jpeg-2000-lossless": "JPEG 2000"}
"""Names of syntaxes in results; the others use the names of ``transfer_syntaxes.SYNTAXES``."""
LEAST = "the least"


def ours(path: Path, size: int, decoder: Decoder) -> Sample:
    """Read and prepare a file as ``data prepare`` does, without writing the sample."""
    mammogram, _ = decoder.mammogram(path)
    return prepare(mammogram, None, size)[0]


def unguarded(path: Path, size: int) -> Sample:
    """Do the same in this process and without the file's hash."""
    return prepare(read_dicom(path.read_bytes(), path.name), None, size)[0]


class Drawn:
    """A malignant phantom as a vendor's detector of a given size shows it."""

    def __init__(self, look: VendorLook, rows: int, columns: int) -> None:
        """Draw the phantom."""
        self.look = replace(look, detector=replace(look.detector, rows=rows, columns=columns))
        rng, shape = np.random.default_rng(0), (rows, columns)
        (self.phantom,) = draw_patient(rng, shape, look.population, malignant=True, views=("CC",))
        self.pixels = apply_look(self.phantom, self.look, rng)

    def write(self, path: Path, syntax: str, number: int = 0) -> Path:
        """Write it for one patient, shifted by ``number`` rows to make it a different image."""
        write_dicom(
            path,
            np.roll(self.pixels, number, axis=0),
            self.phantom,
            self.look,
            patient_id=f"SYN{number}",
            spacing_mm=self.look.detector.spacing_mm,
            syntax=syntax,
        )
        return path


def compare(path: Path, name: str, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Time all ways to read one file alternately; record them and return the seconds."""
    size = arguments.size
    with Decoder(threads=arguments.threads) as decoder:
        calls = {
            "ours": partial(ours, path, size, decoder),
            PEER: partial(plainly, path, size),
            "same output": partial(plain_sample, path, size),
            "neither process nor hash": partial(unguarded, path, size),
            LEAST: partial(least, path, size),
        }
        seconds = take_turns(calls, runs=arguments.repeats)
    record(name, seconds["ours"], seconds[PEER], peer_name=PEER, unit="s")
    same = f"{PEER}, same output"
    record(name, seconds["ours"], seconds["same output"], peer_name=same, unit="s")
    for variant in ("neither process nor hash", LEAST):
        record(f"{name}, {variant}", seconds[variant], seconds[PEER], peer_name=PEER, unit="s")
    return seconds


def stages(path: Path, size: int, store: SampleStore) -> Laps:
    """Run the steps of one file in this process, one by one."""
    laps = Laps()
    with stage(laps, "SHA-256"):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with stage(laps, "read + header"):
        dataset = pydicom.dcmread(path)
    with stage(laps, "decode"):
        stored = stored_values(dataset)
    with stage(laps, "grey scale"):
        grey, valid = to_grey(stored, dataset)[:2]
    with stage(laps, "breast, crop, resize"):
        sample, way = prepare(Mammogram(grey, valid), None, size)
    with stage(laps, "write"):
        store.add(digest(sha256, "", None, size, READING_VERSION), sample, way)
    laps["after decoding"] = total([laps["grey scale"], laps["breast, crop, resize"]])
    return laps


def compare_many(drawn: Drawn, folder: Path, arguments: argparse.Namespace) -> None:
    """Record the time of ``data prepare`` on many full-size files beside the script's loop."""
    (folder / "site" / "images").mkdir(parents=True)
    paths = [
        drawn.write(folder / "site" / "images" / f"{number}.dcm", "explicit", number)
        for number in range(arguments.files)
    ]
    write_table(folder / "site" / "labels.csv", [labelled(path) for path in paths])

    def prepare_all() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        _, counts = prepare_folder(Source(folder / "site"), folder / "out", size=arguments.size)
        assert not counts["rejected"], counts

    def loop() -> None:
        for path in paths:
            np.save(folder / f"{path.stem}.npy", plainly(path, arguments.size))

    seconds = take_turns({"ours": prepare_all, "loop": loop}, runs=arguments.repeats)
    files = f"{arguments.files} uncompressed files of {arguments.rows} x {arguments.columns}"
    name = f"data prepare, {files}, {os.cpu_count()} cores"
    peer = f"{PEER} in a loop, one thread"
    record(name, seconds["ours"], seconds["loop"], peer_name=peer, unit="s")


def labelled(path: Path) -> TableRow:
    """Return a manifest row that calls a file a patient's benign image."""
    patient = f"SYN{path.stem}"
    image = f"images/{path.name}"
    return TableRow(image, "", patient, "R", "CC", "benign", 2, "b", "", "", "", "synthetic")


def prepare_twice(folder: Path, files: int) -> None:
    """Prepare a folder of small phantoms, 1 in 40 of them bad, and prepare it again."""
    write_intake_folder(folder / "small", files, files // 40, 0)
    laps: Laps = {}
    for name in ("first", "again"):
        with stage(laps, name):
            _, counts = prepare_folder(Source(folder / "small"), folder / "small-out", size=256)
    rejected = sum(counts["rejected"].values())
    taken = ", ".join(f"{name} {lap.wall_ms / 1e3:.1f} s" for name, lap in laps.items())
    print(f"prepare {counts['files']} small files, {rejected} rejected: {taken}")


def samples_a_second(folder: Path, size: int, count: int = 50) -> float:
    """Read samples warm from the cache and make them float32, in one thread."""
    grey = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 65536, (size, size), "u2"), (0, 0), 9
    )
    sample, way = prepare(Mammogram(grey), None, size)
    names = [digest(str(number), "", None, size, READING_VERSION) for number in range(count)]
    entries = [SampleStore(folder).add(name, sample, way) for name in names]

    def read() -> None:
        for entry in entries:
            np.multiply(entry.load("").image, np.float32(1 / FULL_SCALE), dtype=np.float32)

    return count / statistics.median(take_turns({"read": read})["read"])


def run_all(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure everything and print the tables."""
    drawn = Drawn(VENDORS[arguments.vendor], arguments.rows, arguments.columns)
    image = f"{arguments.rows} x {arguments.columns}"
    if arguments.vendor != "aurora":
        image += f", {arguments.vendor}"
    store, seconds, split = SampleStore(folder / "samples"), {}, {}
    for syntax in arguments.syntaxes:
        path = drawn.write(folder / f"{syntax}.dcm", syntax)
        name = f"intake, {NAMES.get(syntax, syntax)} {image}"
        seconds[syntax] = compare(path, name, arguments)
        split[syntax] = medians([stages(path, arguments.size, store) for _ in range(6)][1:])
    show(
        f"ms, {image} -> {arguments.size}, {arguments.threads} thread(s)",
        {
            syntax: {name: 1e3 * statistics.median(taken) for name, taken in calls.items()}
            for syntax, calls in seconds.items()
        },
    )
    show(
        "CPU ms by stage, in one process",
        {
            syntax: {name: lap.cpu_ms for name, lap in laps.items()}
            for syntax, laps in split.items()
        },
    )
    if arguments.files:
        compare_many(drawn, folder, arguments)
    if arguments.small_files:
        prepare_twice(folder, arguments.small_files)
    print(
        f"samples of 1536 x 1536 read as float32: {samples_a_second(folder / 'cache', 1536):.0f}/s"
    )


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print a table with one line per syntax."""
    grid = Table("syntax", *next(iter(rows.values())), title=title)
    for syntax, row in rows.items():
        grid.add_row(syntax, *(f"{value:.1f}" for value in row.values()))
    Console(width=120).print(grid)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--syntaxes", nargs="+", metavar="NAME", choices=SYNTAXES, default=list(NAMES)
    )
    parser.add_argument("--vendor", choices=VENDORS, default="aurora")
    parser.add_argument("--rows", type=int, default=3328)
    parser.add_argument("--columns", type=int, default=2560)
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--small-files", type=int, default=0)
    arguments = parser.parse_args()
    cv2.setNumThreads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        run_all(arguments, Path(name))


if __name__ == "__main__":
    main()
