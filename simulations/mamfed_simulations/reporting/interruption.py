"""After Ctrl-C, print what was saved and the command that resumes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mamfed_common.runtime.terminal import print_lines


@contextmanager
def kept_on_interrupt(kept: Callable[[], Iterable[str]], option: str = "") -> Iterator[None]:
    """If Ctrl-C ends the block, print what was saved and how to resume, then re-raise.

    Args:
        kept: Returns lines that describe what is saved at the time of the call.
        option: Extra option that the command needs to resume, if any.
    """
    try:
        yield
    except KeyboardInterrupt:
        print_lines([*kept(), f"resume with: {command_line(option)}"])
        raise


def command_line(option: str = "") -> str:
    """Return this process's command line, with ``option`` appended if it is missing."""
    arguments = sys.argv[1:]
    extra = [option] if option and option not in arguments else []
    return shlex.join([Path(sys.argv[0]).name, *arguments, *extra])
