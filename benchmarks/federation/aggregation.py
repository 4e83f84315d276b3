"""Measure the averaging of updates: mamfed's blocks of files beside Flower's function.

Usage: python -m benchmarks.federation.aggregation [--millions 30] [--replies 10 50] [--runs 5]

Both average the same number of float32 values in 30 arrays. Our updates lie where the server keeps
them, in files in Linux's page cache; Flower's ``aggregate_arrayrecords`` gets ArrayRecords in
memory. Needs about twice the size of the updates in memory: 13 GB for 50 replies of 30 million.

- Time, alternating in one process, also beside the time in which this machine copies as many bytes
  as the average must move: every reply read once, the mean written once.
- Peak memory, each in its own process: VmHWM of /proc, which includes mapped file pages, minus the
  memory after imports. Flower needs all replies at once by design, so its peak beyond the replies
  is given as well.
- The path of one reply, from the bytes on the wire through the checks to a file, beside the same
  checks written plainly.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from safetensors.torch import load, save
from torch import Tensor

from benchmarks.lib.harness import peak_mib, record, resident_mib, restart_peak, take_turns
from mamfed_common.model.state_dict import State
from mamfed_common.protocol.messages import ARRAYS, WEIGHTS, pack
from mamfed_common.protocol.tasks import TrainReport
from mamfed_server.aggregation.update_store import UpdateFolder
from mamfed_server.aggregation.validation import read_update

ARRAYS_OF_A_MODEL = 30
COPIED = 250_000_000
"""Number of values in the copy that measures the machine: 1 GB read and 1 GB written."""
FLOWER = "Flower's aggregate_arrayrecords"


@cache
def drawn(values: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(values, dtype=np.float32))


def update(values: int, seed: int) -> State:
    """Return one site's weights."""
    return in_arrays(drawn(values) * (1 + seed / 100))


def in_arrays(flat: Tensor) -> State:
    """Split values ``(N,)`` into a model's arrays."""
    parts = flat.tensor_split(ARRAYS_OF_A_MODEL)
    return {f"w{number}": part for number, part in enumerate(parts)}


def keep_updates(folder: UpdateFolder, values: int, replies: int) -> dict[str, float]:
    """Store updates as the server does; return each site's share."""
    folder.clear()
    for seed in range(replies):
        folder.keep(f"site-{seed:02}", update(values, seed))
    os.sync()  # else the disk is busy while the average is timed
    return shares_of(replies)


def shares_of(replies: int) -> dict[str, float]:
    """Return the shares of sites with 1, 2, 3 ... examples."""
    total = replies * (replies + 1) / 2
    return {f"site-{seed:02}": (seed + 1) / total for seed in range(replies)}


def flower_replies(values: int, replies: int) -> Iterator[RecordDict]:
    """Yield replies as Flower's strategy holds them."""
    for seed in range(replies):
        arrays = {name: Array(t.numpy().copy()) for name, t in update(values, seed).items()}
        metrics = MetricRecord({"num-examples": seed + 1})
        yield RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})


def show_time(folder: UpdateFolder, values: int, replies: int, runs: int) -> None:
    """Record the time of an average beside Flower's, and beside a copy of as many bytes."""
    shares, like = keep_updates(folder, values, replies), in_arrays(drawn(values))
    others = list(flower_replies(values, replies))
    source, target = torch.ones(COPIED), torch.ones(COPIED)
    calls = {
        "ours": lambda: folder.average(shares, like),
        FLOWER: lambda: aggregate_arrayrecords(others, "num-examples"),
        "copy": lambda: target.copy_(source),
    }
    seconds = take_turns(calls, runs=runs)
    name = f"aggregation, {replies} replies of {values / 1e6:g} M float32"
    record(name, seconds["ours"], seconds[FLOWER], peer_name=FLOWER, unit="s")
    share = (replies + 1) * values / (2 * COPIED)
    at_best = [share * copy for copy in seconds["copy"]]
    limit = f"{name}, beside copy bandwidth"
    record(limit, seconds["ours"], at_best, peer_name="bytes / copy bandwidth", unit="s")


def show_memory(folder: Path, values: int, replies: int) -> None:
    """Record the peak of an average beside Flower's, with its replies and beyond them."""
    keep_updates(UpdateFolder(folder), values, replies)
    given = ["--millions", f"{values / 1e6:g}", "--replies", str(replies), "--folder", str(folder)]
    ours = [peak_mib(__spec__.name, *given, "--peak", "ours")]
    name = f"aggregation, {replies} replies of {values / 1e6:g} M float32, peak memory"
    for peak, peer_name in (
        ("flower", f"{FLOWER}, replies included"),
        ("beyond", f"{FLOWER}, beyond its replies"),
    ):
        theirs = [peak_mib(__spec__.name, *given, "--peak", peak)]
        record(name, ours, theirs, peer_name=peer_name, unit="MiB")


def print_peak(what: str, folder: UpdateFolder, values: int, replies: int) -> None:
    """Average in this fresh process; print by how many MiB its peak memory rose."""
    shares = shares_of(replies)
    like = in_arrays(torch.empty(values, device="meta"))
    before = restart_peak()
    if what == "ours":
        folder.average(shares, like)
    else:
        others = list(flower_replies(values, replies))
        before = restart_peak() if what == "beyond" else before
        aggregate_arrayrecords(others, "num-examples")
    print(resident_mib("VmHWM") - before)


def show_way(folder: UpdateFolder, path: Path, values: int, runs: int) -> None:
    """Record how long a reply takes from the bytes on the wire to a stored file."""
    start = update(values, 0)
    content = pack(TrainReport(num_examples={"benign": 7}, loss=1), update(values, 1))

    def ours() -> None:
        folder.keep("site-00", read_update(content, start, {"benign": 7}).state)

    def plainly() -> None:
        state = load(content[ARRAYS][WEIGHTS].data)
        assert all(torch.isfinite(tensor).all() for tensor in state.values())
        sum(float((state[name].double() - start[name].double()).square().sum()) for name in start)
        path.write_bytes(save(state))

    folder.clear()
    seconds = take_turns({"ours": ours, "plainly": plainly}, runs=runs)
    name = f"one reply of {values / 1e6:g} M float32, from the wire to a kept file"
    record(name, seconds["ours"], seconds["plainly"], peer_name="written plainly", unit="s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=float, default=30)
    parser.add_argument("--replies", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="folder for updates; default: a temporary one")
    parser.add_argument("--peak", choices=["ours", "flower", "beyond"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    values = int(given.millions * 1e6)
    if given.peak:
        print_peak(given.peak, UpdateFolder(given.folder), values, given.replies[0])
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = UpdateFolder(Path(name))
        for replies in given.replies:
            show_memory(Path(name), values, replies)
            show_time(folder, values, replies, given.runs)
        show_way(folder, Path(name) / "plain.safetensors", values, given.runs)


if __name__ == "__main__":
    main()
