"""A run of scripted sites in a forked child that SIGKILLs itself at one of its file operations."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.server.sites import Sites, final, run

from mamfed_common.errors import MamfedError
from mamfed_common.plan import TrainingPlan
from mamfed_server.run_folder.folder import RunFolder

OPERATIONS = ("open", "fsync", "replace", "rename", "unlink")
"""The steps of every write of a run folder."""


def result(folder: Path) -> tuple[object, ...]:
    """Return what must not depend on whether a run was killed."""
    done = RunFolder(folder)
    return (
        {name: final(done, name) for name in ("latest", "best", "final")},
        [(str(r.stage), r.server_round, r.accepted, r.validation) for r in done.rounds()],
        done.read_summary()["status"],
    )


def in_child(plan: TrainingPlan, folder: Path, deadly: int | None) -> tuple[int, int]:
    """Run or resume in a forked child that dies before its ``deadly``-th file operation.

    Returns:
        The signal that ended it (0: it ended by itself), and its number of operations if it did.
    """
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        _run_and_exit(plan, folder, deadly, sink)
    os.close(sink)
    with os.fdopen(source) as counted:
        told = counted.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status), 0
    assert os.WEXITSTATUS(status) == 0, f"the run in {folder} failed: {told}"
    return 0, int(told)


def _run_and_exit(plan: TrainingPlan, folder: Path, deadly: int | None, sink: int) -> None:
    calls = [0]

    def deadly_version(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **kwargs)

        return call

    for name in OPERATIONS:
        setattr(os, name, deadly_version(getattr(os, name)))
    code = 0
    try:
        run(Sites(), plan, folder, resume=True)
        told = str(calls[0])
    except MamfedError as error:
        code, told = 1, str(error)
    os.write(sink, told.encode())
    os._exit(code)
