"""The benchmark of the intake, and the plain script that it is measured beside, on small images."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("skimage")

from benchmarks.intake import peers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path):
    """Write a phantom as a vendor does; borealis has MONOCHROME1 and padding."""
    from benchmarks.intake.from_disk import VENDORS, Drawn

    def write(vendor):
        return Drawn(VENDORS[vendor], 416, 320).write(tmp_path / "a.dcm", "explicit")

    return write


@pytest.mark.parametrize("vendor", ["aurora", "borealis"])
def test_script_and_quickest_crop_find_the_breast(write, vendor):
    image = peers.plainly(write(vendor), 128)
    assert image.dtype == np.float32
    assert image.shape[0] == 128 > image.shape[1]
    assert image[64, -10:].mean() > 2 * image[:10, :10].mean()  # chest wall right, air top left
    quickest = peers.least(write(vendor), 128)
    assert quickest.dtype == np.uint16
    np.testing.assert_allclose(quickest.shape, image.shape, atol=12)
    assert quickest[64, -10:].mean() > 2 * quickest[:10, :10].mean()


def test_the_same_output_has_outline_percentiles_and_hash(write):
    path = write("aurora")
    image, field, sha256 = peers.plain_sample(path, 128)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.shape == field.shape
    assert field.dtype == bool
    assert not image[~field].any()
    assert (image[field].min(), image[field].max()) == (0, 1)


def test_the_benchmark_records_each_comparison(tmp_path):
    results = tmp_path / "results.json"
    environment = {**os.environ, "BENCH_RESULTS": str(results), "OMP_NUM_THREADS": "1"}
    options = "--rows 416 --columns 320 --size 128 --repeats 2 --files 2 --syntaxes rle".split()
    command = [sys.executable, "-m", "benchmarks.intake.from_disk", *options]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    names = [(r["name"], r["peer_name"]) for r in json.loads(results.read_text())]
    script = "pydicom + scikit-image"
    prepared = f"data prepare, 2 uncompressed files of 416 x 320, {os.cpu_count()} cores"
    assert names == [
        ("intake, RLE 416 x 320", script),
        ("intake, RLE 416 x 320", f"{script}, same output"),
        ("intake, RLE 416 x 320, neither process nor hash", script),
        ("intake, RLE 416 x 320, the least", script),
        (prepared, f"{script} in a loop, one thread"),
    ]
