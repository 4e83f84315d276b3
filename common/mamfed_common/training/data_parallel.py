"""Train a round on several devices, one process each, with torch's DistributedDataParallel.

The processes share every batch and end with equal weights. The leader (rank 0) alone has the global
weights, saves the round and returns its result. It starts the workers with :func:`launch`, which
sends each its order through a pipe; workers call :func:`join_group`. DistributedDataParallel
averages the gradients after each step. The processes rendezvous in a private folder and communicate
over the loopback interface only; no message is a pickle.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]  # not in its stubs
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mamfed_common.config import Config
from mamfed_common.training.batches import BatchShard
from mamfed_common.training.round_checkpoint import RoundPosition, pack_progress, unpack_progress

logger = logging.getLogger(__name__)

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
INTERFACES = {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
"""Without these, gloo and NCCL would listen on the hospital's network."""
RENDEZVOUS = "rendezvous"
POSITION = "position"


class ProcessRank(Config):
    """A process's place in its group.

    Attributes:
        rank: Number of the process; 0 is the leader.
        world_size: Number of processes.
        device: Device that the process trains on.
        folder: The group's private folder, in which the processes rendezvous.
    """

    rank: int
    world_size: int
    device: str
    folder: Path


class ProcessGroup:
    """The processes that train a round together; this base class is a single process.

    Attributes:
        share: This process's images of each batch.
    """

    share = BatchShard()

    def join(self, loss: nn.Module) -> nn.Module:
        """Wrap a step's loss so that its gradients are the mean over the group."""
        return loss

    def begin(
        self, network: nn.Module, optimizer: Optimizer, position: RoundPosition
    ) -> RoundPosition:
        """Copy the leader's weights, optimizer state and position; return the position."""
        return position

    def mean(self, loss: Tensor) -> float:
        """Return the group's mean of a scalar."""
        return float(loss.detach())


ALONE: ProcessGroup = ProcessGroup()


class _DeviceGroup(ProcessGroup):
    """Several processes, each on its own device."""

    def __init__(self, place: ProcessRank) -> None:
        self.share = BatchShard(place.rank, place.world_size)
        self._device = torch.device(place.device)

    def join(self, loss: nn.Module) -> nn.Module:
        """Wrap the loss in DDP, which also copies the leader's weights to every process."""
        # Kernels with one input channel have equivalent strides that compare as different.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return DistributedDataParallel(loss)

    def begin(
        self, network: nn.Module, optimizer: Optimizer, position: RoundPosition
    ) -> RoundPosition:
        """Send (leader) or receive (worker) weights, AdamW's moments and the position."""
        content = b""
        if self.share.rank == 0:
            position_tensor = torch.tensor(position, dtype=torch.float64)
            content = save(pack_progress(network, optimizer) | {POSITION: position_tensor})
        tensors = load(self._from_leader(content))
        epoch, step, loss_sum = tensors.pop(POSITION).tolist()
        if self.share.rank:
            unpack_progress(tensors, network, optimizer)
        return RoundPosition(int(epoch), int(step), loss_sum)

    def mean(self, loss: Tensor) -> float:
        """Average a scalar over the group."""
        total = loss.detach().clone()
        dist.all_reduce(total)
        return float(total) / self.share.world_size

    def _from_leader(self, content: bytes) -> bytes:
        length = torch.tensor([len(content)], device=self._device)
        dist.broadcast(length, 0)
        sent = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else None
        if sent is None:
            sent = torch.empty(int(length), dtype=torch.uint8)
        sent = sent.to(self._device)
        dist.broadcast(sent, 0)
        return sent.cpu().numpy().tobytes()


@contextmanager
def join_group(place: ProcessRank) -> Iterator[ProcessGroup]:
    """Join a group that another process leads."""
    rendezvous_store(place).set(ready_key(place), "")
    with joined_group(place) as process_group:
        yield process_group


@contextmanager
def joined_group(place: ProcessRank) -> Iterator[ProcessGroup]:
    """Initialise torch's process group on this process's device, and destroy it afterwards."""
    device = torch.device(place.device)
    os.environ.update(INTERFACES)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        BACKENDS[device.type],
        store=rendezvous_store(place),
        rank=place.rank,
        world_size=place.world_size,
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield _DeviceGroup(place)
    finally:
        dist.destroy_process_group()


def rendezvous_store(place: ProcessRank) -> FileStore:
    """Return the file store through which a group's processes find each other."""
    return FileStore(str(place.folder / RENDEZVOUS))  # without a world size it keeps its file


def ready_key(place: ProcessRank) -> str:
    """Return the key that a worker sets in the store when it is about to join."""
    return f"ready {place.rank}"
