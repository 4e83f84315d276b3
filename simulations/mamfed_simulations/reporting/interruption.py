"""What Ctrl-C leaves: what is kept, and the command that goes on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mamfed_common.runtime.terminal import print_lines


@contextmanager
def kept_on_interrupt(kept: Callable[[], Iterable[str]], option: str = "") -> Iterator[None]:
    """Say what is kept and how to go on where Ctrl-C ends the block; then let it end.

    Args:
        kept: Returns lines of what is kept, as it is when they are asked for.
        option: What the same command needs beside to go on, if anything.
    """
    try:
        yield
    except KeyboardInterrupt:
        print_lines([*kept(), f"go on with: {command_line(option)}"])
        raise


def command_line(option: str = "") -> str:
    """Return this process's command as it was given, with one more option if it lacks that."""
    given = sys.argv[1:]
    more = [option] if option and option not in given else []
    return shlex.join([Path(sys.argv[0]).name, *given, *more])
