"""The page of ``mamfed-server start --dashboard``: a child process that never touches the run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from rich.console import Console

from mamfed_common.runtime.bounded import KEY_BYTES, read_bytes
from mamfed_common.runtime.child_processes import module_command
from mamfed_common.runtime.process_supervisor import Child, child_environment, supervise
from mamfed_server.settings import ServerHome

ADDRESS_FILE = "dashboard.url"
LOG = "dashboard.log"
PATIENCE_SECONDS = 60.0


@contextmanager
def page_beside(
    home: ServerHome, port: int, every_seconds: float, console: Console
) -> Iterator[None]:
    """Serve the page on loopback while the block runs; its crashes do not end the run.

    Args:
        home: The coordinator's home.
        port: Port of the page.
        every_seconds: How often it reads the home while somebody looks.
        console: Where its address is printed.
    """
    stopping = threading.Event()
    path = home.path.absolute()
    (path / ADDRESS_FILE).unlink(missing_ok=True)
    child = Child(
        "dashboard",
        module_command(
            "mamfed_server.dashboard.process",
            str(path), "127.0.0.1", str(port), str(every_seconds),
        ),
        home.logs / LOG,
        child_environment(path / "flower"),
        path,
    )  # fmt: skip
    threads = [
        threading.Thread(target=lambda: supervise([child], together=False, stopping=stopping)),
        threading.Thread(target=_say_address, args=(path / ADDRESS_FILE, stopping, console)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        (path / ADDRESS_FILE).unlink(missing_ok=True)  # a killed page leaves it


def _say_address(file: Path, stopping: threading.Event, console: Console) -> None:
    """Print the address in a terminal; elsewhere, as in a journal, only where it stands."""
    deadline = monotonic() + PATIENCE_SECONDS
    while not file.exists():
        if stopping.wait(0.2):
            return
        if monotonic() > deadline:
            console.print(f"no dashboard: see logs/{LOG}")
            return
    where = (
        read_bytes(file, KEY_BYTES).decode().strip()
        if console.is_terminal
        else f"its address is in {file}"
    )
    console.print(f"dashboard: {where}")
