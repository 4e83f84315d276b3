"""Compare ``federation.wire: compact`` with ``float32``: bytes of a round, time and rounding.

Usage: python -m benchmarks.federation.wire [--runs 7] [--lossless CHECKPOINT.safetensors]

The network is that of the default plan. A round is one task to a site and its answer; both are
packed and read as server and site do. Rounding errors are given as a share of the bound stated in
``mamfed_common.protocol.quantization``. --lossless also shows how far zlib, bz2 and lzma compress a
trained checkpoint's float32 values, as stored and sorted by byte.
"""

from __future__ import annotations

import argparse
import bz2
import lzma
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.lib.harness import record, take_turns
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import State, state_of
from mamfed_common.plan import FederationPlan, Stage, TrainingPlan, Wire
from mamfed_common.protocol.messages import (
    pack,
    pack_task,
    unpack_update,
    unpack_weights,
    wire_bytes,
)
from mamfed_common.protocol.quantization import update_to_send
from mamfed_common.protocol.tasks import TrainReport, TrainTask

REPORT = TrainReport(num_examples={"benign": 30}, loss=0.5)
CHANGE = 1e-3
"""Standard deviation of the change by training; does not affect bytes or time."""


def task_of(wire: Wire) -> TrainTask:
    plan = TrainingPlan(federation=FederationPlan(wire=wire))
    return TrainTask(plan=plan, stage=Stage.FINETUNING, server_round=1)


def moved(state: State, seed: int) -> State:
    """Return weights similar to those after training."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: tensor + CHANGE * torch.randn(tensor.shape, generator=draw)
        for name, tensor in state.items()
    }


def show_bytes(start: State) -> None:
    """Record the bytes of a task and its answer."""
    sizes: dict[Wire, tuple[int, int]] = {}
    for wire in ("float32", "compact"):
        down = wire_bytes(pack_task(task_of(wire), start))
        up = wire_bytes(pack(REPORT, update_to_send(moved(start, 1), start, wire)))
        sizes[wire] = down, up
        print(f"{wire}: {down:,} bytes to a site, {up:,} back")
    ours, peer = sum(sizes["compact"]), sum(sizes["float32"])
    record(
        "bytes of a round, to a site and back", [ours], [peer], peer_name="float32", unit="bytes"
    )


def show_time(start: State, runs: int) -> None:
    """Record the time to pack and read a task and its answer, both sides together."""

    def round_trip(wire: Wire) -> None:
        task = task_of(wire)
        received = unpack_weights(pack_task(task, start), task, start)
        trained = {name: tensor + CHANGE for name, tensor in received.items()}
        unpack_update(pack(REPORT, update_to_send(trained, received, wire)), start, wire)

    calls = {wire: lambda wire=wire: round_trip(wire) for wire in ("compact", "float32")}
    seconds = take_turns(calls, runs=runs)
    record(
        "a round packed and read, both sides together",
        seconds["compact"],
        seconds["float32"],
        peer_name="float32",
        unit="s",
    )


def show_rounding(start: State) -> None:
    """Record the largest rounding error of a weight and of a change, as a share of its bound."""
    task = task_of("compact")
    received = unpack_weights(pack_task(task, start), task, start)
    zero = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    change = {name: tensor - start[name] for name, tensor in moved(start, 1).items()}
    sent = pack(REPORT, update_to_send(change, zero, "compact"))
    found = unpack_update(sent, zero, "compact").state
    down, up = 0.0, 0.0
    for name, weight in start.items():
        if weight.ndim < 2:
            assert torch.equal(received[name], weight)
            assert torch.equal(found[name], change[name])
            continue
        bound = (weight.double().abs() / 2**11).clamp(min=2.0**-25)
        down = max(down, float(((received[name].double() - weight).abs() / bound).max()))
        bound = change[name].double().abs().flatten(1).amax(1, keepdim=True) / 254
        error = (found[name].double() - change[name]).abs().flatten(1)
        up = max(up, float((error / bound).max()))
    for name, share in (("a weight sent to a site", down), ("a change sent back", up)):
        record(
            f"largest rounding of {name}",
            [share],
            [1],
            peer_name="the stated bound",
            unit="of the bound",
        )


def show_lossless(path: Path) -> None:
    """Print how far general-purpose compressors shrink trained weights."""
    state = load_file(path)
    values = np.concatenate([state[name].numpy().ravel() for name in sorted(state)])
    by_byte = np.ascontiguousarray(values.view(np.uint8).reshape(-1, 4).T).tobytes()
    for name, compress in (("zlib", zlib.compress), ("bz2", bz2.compress), ("lzma", lzma.compress)):
        plain, sorted_ = len(compress(values.tobytes())), len(compress(by_byte))
        print(f"{name}: {plain / values.nbytes:.3f}, sorted by byte {sorted_ / values.nbytes:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--lossless", type=Path, metavar="CHECKPOINT")
    given = parser.parse_args()
    start = moved(state_of(build_network(TrainingPlan().network, 0)), 0)
    show_bytes(start)
    show_time(start, given.runs)
    show_rounding(start)
    if given.lossless:
        show_lossless(given.lossless)


if __name__ == "__main__":
    main()
