"""The benchmarks of corruption and of batches, and the peer written for them, on small images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.network import models_genesis as peer

ROOT = Path(__file__).parents[2]


def results_of(tmp_path, name, *options):
    results = tmp_path / "results.json"
    environment = {**os.environ, "BENCH_RESULTS": str(results), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        f"benchmarks.network.{name}",
        "--size",
        "128",
        "--runs",
        "2",
        *options,
    ]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return {(r["name"], r["peer_name"]): r for r in json.loads(results.read_text())}


def test_corruption_is_measured_beside_the_peer_and_the_rate_aimed_at(tmp_path):
    found = results_of(tmp_path, "corruption", "--images", "2")
    name = "corruption + augmentation, 128 x 128, one core"
    assert {(name, "Models Genesis"), (name, "Models Genesis without shuffling")} <= found.keys()
    alone = ("corruption alone, 128 x 128, one core", "Models Genesis without shuffling")
    assert alone in found
    for stage in ("pretraining", "finetuning"):
        each = found[
            f"an image moved and altered, {stage}, 128 x 128, one core", "150 images/s a core"
        ]
        assert each["peer"] == 1 / 150
        assert all(ours > 0 for ours, _ in each["runs"])


def test_batches_are_measured_beside_the_step_that_they_feed(tmp_path):
    found = results_of(tmp_path, "batches", "--images", "3", "--threads", "1")
    for stage in ("pretraining", "finetuning"):
        waiting = found[f"waiting for a batch, {stage}, 128 x 128", "the step it feeds"]
        assert len(waiting["runs"]) == 2  # of three steps the first has nothing before it
        assert (f"making a batch, {stage}, 128 x 128", "the step it feeds") in found
        two = found[f"seconds an image, {stage}, 128 x 128, 2 threads", "1 thread"]
        one = found[f"seconds an image, {stage}, 128 x 128, 1 thread", "60 images/s"]
        assert two["peer"] == one["ours"]


def test_the_peers_curve_keeps_or_turns_the_order_of_greys():
    greys = np.linspace(0, 1, 500, dtype=np.float32)[None]
    turned = []
    for seed in range(40):
        bent = peer.bent(greys, np.random.default_rng(seed))
        assert bent.dtype == np.float32
        assert bent.min() >= 0
        assert bent.max() <= 1
        if bent[0, 0] < bent[0, -1]:
            assert (np.diff(bent[0]) >= 0).all()
        turned.append(bent[0, 0] > bent[0, -1])
    assert 10 <= sum(turned) <= 30


def test_the_peer_shuffles_within_small_blocks(monkeypatch):
    monkeypatch.setattr(peer, "BLOCKS", 1)
    image = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    shuffled = peer.shuffled(image, np.random.default_rng(1))
    assert sorted(shuffled.ravel()) == sorted(image.ravel())
    rows, columns = np.nonzero(shuffled != image)
    assert 0 < len(rows) < 100
    assert np.ptp(rows) < 10
    assert np.ptp(columns) < 10


def test_the_peer_paints_in_and_out_as_published():
    image = np.full((90, 90), 2, np.float32)
    inside = [
        (peer.inpainted(image.copy(), np.random.default_rng(s)) != 2).mean() for s in range(50)
    ]
    kept = [(peer.outpainted(image, np.random.default_rng(s)) == 2).mean() for s in range(50)]
    assert max(inside) <= 5 / 9
    assert 0.1 < np.mean(inside) < 0.4
    assert min(kept) >= (3 / 7) ** 2 * 0.9
    assert 0.4 < np.mean(kept) < 0.9


def test_the_peer_flips_the_clean_image_alike():
    image = np.random.default_rng(0).random((64, 64), np.float32)
    for seed in range(30):
        _, clean = peer.genesis(image, np.random.default_rng(seed), shuffle=False)
        ways = (image, image[::-1], image[:, ::-1], image[::-1, ::-1])
        assert any((clean == way).all() for way in ways)
