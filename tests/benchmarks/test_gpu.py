"""The GPU's benchmark, tried on a CPU: the same code, but for memory and the 16 GB card."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.lib.limits import work
from benchmarks.network import gpu

ROOT = Path(__file__).parents[2]


def call(results, *options):
    environment = {**os.environ, "BENCH_RESULTS": str(results), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.network.gpu", *options]
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_cuda_nothing_is_measured_and_one_line_says_so(tmp_path):
    output = call(tmp_path / "results.json").stdout
    assert output == "no CUDA device here: nothing measured, nothing recorded\n"
    assert not (tmp_path / "results.json").exists()


def test_on_a_cpu_every_variant_and_batch_is_measured_beside_every_peer(tmp_path):
    sizes = ("--size", "64", "--batches", "1,2", "--runs", "2")
    options = ("--device", "cpu", *sizes, "--variants", "fp32,bf16 channels_last", "--profile")
    output = call(tmp_path / "results.json", *options).stdout
    results = json.loads((tmp_path / "results.json").read_text())
    found = {(result["name"], result["peer_name"]) for result in results}
    peers = ("MONAI BasicUNet", "smp.Unet(resnet34)", "nnU-Net PlainConvUNet")
    for variant in ("fp32", "bf16 channels_last"):
        for batch in (1, 2):
            rest = f"{variant}, batch {batch}, 64 x 64, CPU"
            assert {(f"training step, {rest}", peer) for peer in peers} <= found
            assert (f"training step over its limit, {rest}", "copy bandwidth") in found
    assert {("inference, fp32, batch 1, 64 x 64, CPU", peer) for peer in peers} <= found
    assert all(0 < result["ratio"] < float("inf") for result in results)
    assert len([line for line in output.splitlines() if "ms a step" in line]) == 5


@pytest.mark.parametrize("room", [0, 1, 2, 3, 13, 16, 63, 64, 1000])
def test_the_largest_batch_is_found_by_halves(room):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= room

    assert gpu.largest_batch(fits) == min(room, gpu.LARGEST_BATCH)
    assert len(tried) <= 12
    assert max(tried) <= gpu.LARGEST_BATCH


def test_each_convolution_moves_its_feature_maps_once():
    """16 in and 32 out, then 32 in and 16 out: three times in, twice out, four bytes each."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    # 3 x 3 from 1 to 2 channels, then 1 x 1 back: multiply-adds are two operations, thrice a step.
    operations = 3 * 2 * (32 * 9 + 16 * 2)
    assert work(network, 4) == (4 * (3 * 16 + 2 * 32 + 3 * 32 + 2 * 16), operations)


class TooLarge(nn.Conv2d):
    def forward(self, x):
        raise torch.OutOfMemoryError


def test_what_does_not_fit_is_named_and_left_out(capsys):
    bench = gpu.Bench(Namespace(device="cpu", size=64, runs=1, minutes=1))
    bench.networks["large"] = TooLarge(1, 1, 1)
    assert gpu.peak_mib_of(bench, "large", gpu.VARIANTS["fp32"], 2, True) == gpu.FAILED
    assert capsys.readouterr().out == "large, batch 2: out of memory\n"


def test_nothing_begins_when_the_time_is_up(capsys):
    bench = gpu.Bench(Namespace(device="cpu", size=64, runs=1, minutes=0))
    assert gpu.compare(bench, "fp32", 1, train=True) == gpu.FAILED
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "skipped, the time is up: mamfed, fp32, batch 1"
