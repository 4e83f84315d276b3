"""Settings of the C library's allocator, and the memory that is available."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Parameters of ``mallopt``, from glibc's ``malloc.h``."""
_KEPT_BYTES = 2**31 - 1
_TOP_PAD_BYTES = 64 << 20
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def keep_freed_memory() -> bool:
    """Let this process keep up to 2 GiB of freed memory for its next feature maps or images.

    glibc returns every block of more than 32 MiB to the system at once, and the system clears the
    pages again for the next block. At 1536 x 1536 this takes almost half of a training step's CPU
    time (``docs/decisions/0073-whole-maps-again.md``). Keeping the memory may raise the peak.
    In a thread, glibc does so for blocks of any size that lie at the end of its arena.

    Returns:
        Whether the setting took effect; False, with nothing changed, if the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        (_M_TOP_PAD, _TOP_PAD_BYTES),
    )
    return all([bool(mallopt(parameter, value)) for parameter, value in settings])


def available_bytes() -> int | None:
    """Return the bytes available to new processes, also in a container; None if unknown."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return None
    try:  # the container's own limit, if any (cgroup v2)
        limit = int((_CGROUP / "memory.max").read_text())
        return min(available, max(0, limit - int((_CGROUP / "memory.current").read_text())))
    except (OSError, ValueError):
        return available
