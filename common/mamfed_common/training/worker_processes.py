"""Start, watch and stop the worker processes of a round on several devices."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import torch
import torch.distributed as dist

from mamfed_common.errors import RunError
from mamfed_common.runtime.child_processes import how_it_ended, module_command, start_process
from mamfed_common.runtime.lifeline import LIFELINE
from mamfed_common.runtime.places import temporary_folder
from mamfed_common.training.data_parallel import (
    INTERFACES,
    ProcessGroup,
    ProcessRank,
    joined_group,
    ready_key,
    rendezvous_store,
)

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2

END_SECONDS = 10.0
"""Time that a worker may take to exit after the last step, and a crash to be noticed."""

STUCK_SECONDS = 60.0

STUCK = 75
"""Exit code of a leader that hangs after a worker crashed (EX_TEMPFAIL)."""


@contextmanager
def launch(
    module: str, devices: Sequence[torch.device], order: Callable[[ProcessRank], str]
) -> Iterator[ProcessGroup]:
    """Start a worker on each device but the first, and lead the group until the block ends.

    All workers have exited afterwards.

    Args:
        module: Module that a worker runs with ``python -m``. It reads its order from stdin and
            calls :func:`join_group`.
        devices: Devices to train on; this process uses the first.
        order: Returns the order of the worker at a rank, as text.

    Raises:
        RunError: A worker exited before the round was done.
        SetupError: There is no folder for temporary files.
    """
    with TemporaryDirectory(prefix="mamfed-", dir=temporary_folder()) as folder:  # 0700
        places = [
            ProcessRank(rank=rank, world_size=len(devices), device=str(device), folder=Path(folder))
            for rank, device in enumerate(devices)
        ]
        with _Workers(module, places[1:], order), joined_group(places[0]) as process_group:
            yield process_group


class _Workers:
    """The worker processes that the leader starts."""

    def __init__(
        self, module: str, places: Sequence[ProcessRank], order: Callable[[ProcessRank], str]
    ) -> None:
        self._module = module
        self._places = places
        self._order = order
        self._processes: list[subprocess.Popen[bytes]] = []
        self._over = threading.Event()

    def __enter__(self) -> _Workers:
        """Start all workers, wait until they are ready to join, and then watch them."""
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
        threading.Thread(target=self._watch, name="workers", daemon=True).start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Stop the workers; turn an error that a worker's crash caused here into one line."""
        self._over.set()
        lost = self._lost(END_SECONDS) if isinstance(error, RuntimeError) else ""
        self._end(0 if error else END_SECONDS)
        if lost:
            raise RunError(lost) from None

    def _watch(self) -> None:
        """Abort the group if a worker crashes, and exit if that does not wake this process.

        gloo notices a crash by itself; NCCL would wait for minutes, in a call that no signal
        interrupts.
        """
        while not self._over.wait(LOOK_SECONDS):
            if lost := self._lost():
                if not self._over.wait(END_SECONDS):
                    _abort()
                if not self._over.wait(STUCK_SECONDS):
                    logger.error("%s; this process hangs and exits as well", lost)
                    os._exit(STUCK)
                return

    def _wait_until_ready(self) -> None:
        store = rendezvous_store(self._places[0])
        while not store.check([ready_key(place) for place in self._places]):
            if lost := self._lost(at_all=True):
                raise RunError(lost)
            sleep(LOOK_SECONDS)

    def _lost(self, patience_seconds: float = 0.0, *, at_all: bool = False) -> str:
        """Describe a worker that failed, or with ``at_all`` that exited; empty if none did.

        A worker that a signal ended comes first: the others failed because of it.
        """
        deadline = monotonic() + patience_seconds
        while True:
            codes = [process.poll() for process in self._processes]
            ended = [(c, i) for i, c in enumerate(codes) if c or (at_all and c is not None)]
            if ended:
                code, index = min(ended)
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
    """Start a worker that exits when this process does, and send it its order."""
    process = start_process(
        module_command(module),
        folder=Path.cwd(),  # relative paths in the order mean the same as here
        env={**os.environ, **INTERFACES, LIFELINE: str(lifeline)},
        stdin=subprocess.PIPE,
        stderr=None,  # inherited; stdout may carry a command's result
        pass_fds=(lifeline,),
    )
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pipe.write(order.encode())
    except BrokenPipeError:
        pass  # it has exited; the wait for the workers reports that
    return process


def _abort() -> None:
    try:
        group = dist.group.WORLD
        if group is not None:
            group.abort()
    except (RuntimeError, ValueError) as error:
        logger.warning("cannot abort the process group: %s", type(error).__name__)
