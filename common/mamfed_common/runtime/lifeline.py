"""A pipe that ends child processes when the process that started them ends, even by SIGKILL.

The parent passes one end of a pipe to its children. The kernel closes the parent's end when the
parent exits, and each child notices it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LIFELINE = "MAMFED_LIFELINE"
"""Environment variable with the file descriptor that closes when the supervisor exits."""

ORPHANED = 70
"""Exit code of a child whose supervisor has exited."""


@contextmanager
def open_lifeline() -> Iterator[int]:
    """Yield the file descriptor for children, which closes when this process ends."""
    lifeline, our_end = os.pipe()
    try:
        yield lifeline
    finally:
        os.close(our_end)
        os.close(lifeline)


def hold_lifeline() -> bool:
    """Exit this process as soon as its supervisor exits; return whether there is a supervisor.

    A child calls this first. It also works after a SIGKILL, because the kernel then closes the
    supervisor's end of a pipe.
    """
    text = os.environ.pop(LIFELINE, "")
    if not text:
        return False
    lifeline = int(text)
    os.set_inheritable(lifeline, False)

    def wait_for_the_end() -> None:
        while os.read(lifeline, 1):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=wait_for_the_end, name="lifeline", daemon=True).start()
    return True
