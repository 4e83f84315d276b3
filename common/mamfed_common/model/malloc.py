"""How much memory there is, and what the C library does with what a feature map no longer needs."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""``malloc.h`` of glibc."""
_KEPT_BYTES = 2**31 - 1
_TOP_PAD_BYTES = 64 << 20
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to 2 GiB, for its next feature maps.

    glibc gives every block of more than 32 MiB back at once, and the system clears the pages again
    when the next one is asked for: at 1536 x 1536 that is a sixth of a training step on a CPU, and
    half of one that is not streamed (``docs/decisions/0026-bands-of-rows.md``). Peak
    memory grows by about a sixth.

    Returns:
        Whether it does; False where the C library is not glibc, and nothing was changed.
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
    """Return how much memory new processes can have, also in a container; None if unknown."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return None
    try:  # a container's own limit, where it has one (cgroup v2)
        limit = int((_CGROUP / "memory.max").read_text())
        return min(available, max(0, limit - int((_CGROUP / "memory.current").read_text())))
    except (OSError, ValueError):
        return available
