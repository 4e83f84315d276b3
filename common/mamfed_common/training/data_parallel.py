"""A round on several devices: a process each, which share every batch and end with equal weights.

One process leads: it alone has the round's starting weights, keeps the round and gives its result.
It starts its partners by :func:`launch`, which tells each what to do through a pipe; they come in
by :func:`join_group`. torch's DistributedDataParallel averages the gradients after each step.
Processes meet in a private folder and speak over the loopback interface alone; no message is a
pickle.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]  # not in its stubs
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mamfed_common.config import Config
from mamfed_common.errors import RunError
from mamfed_common.runtime.child_processes import how_it_ended, module_command, start_process
from mamfed_common.runtime.places import temporary_folder
from mamfed_common.runtime.process_supervisor import LIFELINE
from mamfed_common.training.batches import BatchShard
from mamfed_common.training.round_checkpoint import RoundPosition, pack_progress, unpack_progress

logger = logging.getLogger(__name__)

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
INTERFACES = {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
"""Without these, gloo and NCCL listen on the interface that leads to the hospital's network."""
RENDEZVOUS = "rendezvous"
LOOK_SECONDS = 0.2
END_SECONDS = 10.0
"""How long a partner may take to end after the last step, or a death to be noticed."""
STUCK_SECONDS = 60.0
STUCK = 75
"""Exit code of a leader that a partner's death has left waiting for ever (EX_TEMPFAIL)."""
POSITION = "position"


class ProcessRank(Config):
    """One process's place in a team.

    Attributes:
        rank: Which it is; 0 leads.
        world_size: How many there are.
        device: Where it trains.
        folder: Where they meet, a folder of their own.
    """

    rank: int
    world_size: int
    device: str
    folder: Path


class ProcessGroup:
    """The processes that train a round together: here, one process alone.

    Attributes:
        share: Which images of each batch are this process's.
    """

    share = BatchShard()

    def join(self, loss: nn.Module) -> nn.Module:
        """Return the loss of a step such that its gradients are the whole team's mean."""
        return loss

    def begin(
        self, network: nn.Module, optimizer: Optimizer, position: RoundPosition
    ) -> RoundPosition:
        """Put this process where the leader is, and return its position."""
        return position

    def mean(self, loss: Tensor) -> float:
        """Return the team's mean of a scalar."""
        return float(loss.detach())


ALONE = ProcessGroup()


class _DeviceGroup(ProcessGroup):
    """Several processes, each on a device."""

    def __init__(self, place: ProcessRank) -> None:
        self.share = BatchShard(place.rank, place.world_size)
        self._device = torch.device(place.device)

    def join(self, loss: nn.Module) -> nn.Module:
        """Wrap the loss; the leader's weights become everybody's."""
        # Kernels with one input channel have strides that mean the same and compare as different.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return DistributedDataParallel(loss)

    def begin(
        self, network: nn.Module, optimizer: Optimizer, position: RoundPosition
    ) -> RoundPosition:
        """Send or receive weights, the optimizer's moments and the position."""
        content = b""
        if self.share.rank == 0:
            where = {POSITION: torch.tensor(position, dtype=torch.float64)}
            content = save(pack_progress(network, optimizer) | where)
        tensors = load(self._from_leader(content))
        epoch, step, loss_sum = tensors.pop(POSITION).tolist()
        if self.share.rank:
            unpack_progress(tensors, network, optimizer)
        return RoundPosition(int(epoch), int(step), loss_sum)

    def mean(self, loss: Tensor) -> float:
        """Add up what every process has."""
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
def launch(
    module: str, devices: Sequence[torch.device], order: Callable[[ProcessRank], str]
) -> Iterator[ProcessGroup]:
    """Start a partner on each device but the first, and lead them; all have ended afterwards.

    Args:
        module: What a partner runs: ``python -m`` it. It reads its order from stdin and calls
            :func:`join_group`.
        devices: Where to train, this process on the first.
        order: Writes what a partner at a place is told.

    Raises:
        RunError: A partner ended before the work was done.
        SetupError: There is no folder for temporary files.
    """
    with TemporaryDirectory(prefix="mamfed-", dir=temporary_folder()) as folder:  # 0700
        places = [
            ProcessRank(rank=rank, world_size=len(devices), device=str(device), folder=Path(folder))
            for rank, device in enumerate(devices)
        ]
        with _Workers(module, places[1:], order), _joined(places[0]) as process_group:
            yield process_group


@contextmanager
def join_group(place: ProcessRank) -> Iterator[ProcessGroup]:
    """Take a place in a team that another process leads."""
    _store(place).set(_ready(place), "")
    with _joined(place) as process_group:
        yield process_group


@contextmanager
def _joined(place: ProcessRank) -> Iterator[ProcessGroup]:
    device = torch.device(place.device)
    os.environ.update(INTERFACES)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        BACKENDS[device.type],
        store=_store(place),
        rank=place.rank,
        world_size=place.world_size,
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield _DeviceGroup(place)
    finally:
        dist.destroy_process_group()


class _Workers:
    """The processes that follow this one."""

    def __init__(
        self, module: str, places: Sequence[ProcessRank], order: Callable[[ProcessRank], str]
    ) -> None:
        self._module = module
        self._places = places
        self._order = order
        self._processes: list[subprocess.Popen[bytes]] = []
        self._over = threading.Event()

    def __enter__(self) -> _Workers:
        """Start them all, wait until they are about to join, and watch them from then on."""
        lifeline, self._our_end = os.pipe()
        try:
            for place in self._places:
                self._processes.append(_start(self._module, self._order(place), lifeline))
            self._wait_until_ready()
        except BaseException:
            self._end(0)
            raise
        finally:
            os.close(lifeline)
        threading.Thread(target=self._watch, name="partners", daemon=True).start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End them; what a partner's death has broken here becomes one line."""
        self._over.set()
        lost = self._lost(END_SECONDS) if isinstance(error, RuntimeError) else ""
        self._end(0 if error else END_SECONDS)
        if lost:
            raise RunError(lost) from None

    def _watch(self) -> None:
        """End the group where a partner dies, and this process where that does not wake it.

        gloo says so by itself; NCCL would wait for minutes, in a call that no signal interrupts.
        """
        while not self._over.wait(LOOK_SECONDS):
            if lost := self._lost():
                if not self._over.wait(END_SECONDS):
                    _abort()
                if not self._over.wait(STUCK_SECONDS):
                    logger.error("%s, and this process with it", lost)
                    os._exit(STUCK)
                return

    def _wait_until_ready(self) -> None:
        store = _store(self._places[0])
        while not store.check([_ready(place) for place in self._places]):
            if lost := self._lost(at_all=True):
                raise RunError(lost)
            sleep(LOOK_SECONDS)

    def _lost(self, patience_seconds: float = 0.0, *, at_all: bool = False) -> str:
        """Name a partner that failed, or that ended ``at_all``; empty where none has.

        One that a signal ended comes first: the others fail because it is gone.
        """
        deadline = monotonic() + patience_seconds
        while True:
            codes = [process.poll() for process in self._processes]
            found = [(c, i) for i, c in enumerate(codes) if c or (at_all and c is not None)]
            if found:
                code, index = min(found)
                return f"{self._places[index].device}: its process {how_it_ended(code)}"
            if monotonic() >= deadline:
                return ""
            sleep(LOOK_SECONDS)

    def _end(self, patience_seconds: float) -> None:
        for process in self._processes:
            try:
                process.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        os.close(self._our_end)


def _start(module: str, order: str, lifeline: int) -> subprocess.Popen[bytes]:
    """Start a partner that ends when this process does, and give it its order."""
    process = start_process(
        module_command(module),
        folder=Path.cwd(),  # what is relative in its order is so to this process's
        env={**os.environ, **INTERFACES, LIFELINE: str(lifeline)},
        stdin=subprocess.PIPE,
        stderr=None,  # this process's; stdout may be a command's result
        pass_fds=(lifeline,),
    )
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pipe.write(order.encode())
    except BrokenPipeError:
        pass  # it has ended, which is noticed where it is waited for
    return process


def _store(place: ProcessRank) -> FileStore:
    return FileStore(str(place.folder / RENDEZVOUS))  # without a number of users nobody removes it


def _ready(place: ProcessRank) -> str:
    return f"ready {place.rank}"


def _abort() -> None:
    try:
        group = dist.group.WORLD
        if group is not None:
            group.abort()
    except (RuntimeError, ValueError) as error:
        logger.warning("the group could not be ended: %s", type(error).__name__)
