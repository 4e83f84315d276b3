"""How busy this machine is: processor, memory, graphics card. Loads nothing heavy for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_bytes
from mamfed_common.runtime.child_processes import ask_process

GPU_SECONDS = 2.0
"""Longest that nvidia-smi may take; it hangs on a machine whose driver does."""
GPU_FIELDS = "name,utilization.gpu,memory.used,memory.total"
MAX_GPUS = 16
PROC = Path("/proc")


class Gpu(NamedTuple):
    """One graphics card: its name, its use in per cent, and its memory in MiB."""

    name: str
    percent: int
    used_mib: int
    total_mib: int


class MachineView(NamedTuple):
    """How busy this machine is now.

    Attributes:
        cores: Processor cores.
        load: Processes that ran or waited for a core, mean of the last minute.
        memory_used: Share of the memory in use, 0..1; None if unknown.
        memory_bytes: The machine's memory; 0 if unknown.
        gpus: Its graphics cards, as nvidia-smi lists them.
        disk_free: Free bytes on the disk of the site's home.
        disk_bytes: Size of that disk.
    """

    cores: int
    load: float
    memory_used: float | None
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    disk_free: int
    disk_bytes: int

    @property
    def busy(self) -> float:
        """Share of the cores in use, 0..1."""
        return min(1.0, self.load / self.cores)


def machine_view(folder: Path) -> MachineView:
    """Measure this machine; ``folder`` is on the disk that matters."""
    disk = shutil.disk_usage(folder)
    used, total = _memory()
    return MachineView(
        cores=os.cpu_count() or 1,
        load=os.getloadavg()[0],
        memory_used=used,
        memory_bytes=total,
        gpus=gpus(),
        disk_free=disk.free,
        disk_bytes=disk.total,
    )


def _memory() -> tuple[float | None, int]:
    """Return the share of the memory in use, and the memory in bytes (``/proc/meminfo``)."""
    try:
        lines = read_bytes(PROC / "meminfo", DOCUMENT_BYTES).decode().splitlines()
        sizes = {
            name: int(rest.split()[0]) << 10 for name, _, rest in (x.partition(":") for x in lines)
        }
        return 1 - sizes["MemAvailable"] / sizes["MemTotal"], sizes["MemTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return None, 0


def gpus(program: str = "nvidia-smi") -> tuple[Gpu, ...]:
    """Return the graphics cards; none where the program is missing, fails or hangs."""
    path = shutil.which(program)
    if path is None:
        return ()
    command = [path, f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = ask_process(command, GPU_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if done.returncode:
        return ()
    cards = (_gpu(line) for line in done.stdout.splitlines()[:MAX_GPUS])
    return tuple(card for card in cards if card is not None)


def _gpu(line: str) -> Gpu | None:
    try:
        name, percent, used, total = (part.strip() for part in line.split(","))
        return Gpu(name[:60], int(percent), int(used), int(total))
    except ValueError:  # a card that does not report its use says [N/A]
        return None
