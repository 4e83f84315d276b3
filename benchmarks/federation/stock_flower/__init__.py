"""Run a stock Flower deployment (1.41-1.42) by its own commands, as the peer of ``round.py``.

``flower-superlink`` and two ``flower-supernode``, which start a process for each message, FedAvg
and a ClientApp that imports torch and adds noise (``app/``). It has neither TLS nor node keys.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from tests.processes.deployment import BIN, free_port, wait_until

APP = Path(__file__).with_name("app")


def flowers_ends(folder: Path, trained: int, evaluated: int) -> list[float]:
    """Run it; return when each round ended, those of one exchange first, then those of two."""
    port, ends = free_port(), folder / "ends"
    with ExitStack() as running:
        running.enter_context(
            process(folder, "link", "flower-superlink", "--insecure", "--port", port)
        )
        wait_until(lambda: listens(port), "Flower's SuperLink listens", 60)
        for name in ("one", "two"):
            running.enter_context(
                process(
                    folder, name, "flower-supernode", "--insecure",
                    "--superlink", f"127.0.0.1:{port}", "--port", free_port(),
                )
            )  # fmt: skip
        submit(port, {"trained": trained, "evaluated": evaluated, "ends": str(ends)})
        wait_until(lambda: count_lines(ends) >= trained + evaluated, "Flower's rounds")
    return [float(line) for line in ends.read_text().split()]


@contextmanager
def process(folder: Path, name: str, *argv: object) -> Iterator[None]:
    """Run one of Flower's commands, its home and its output in a folder."""
    environment = {**os.environ, "FLWR_HOME": str(folder / f"{name}.home")}
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    with (folder / f"{name}.out").open("wb") as out:
        started = subprocess.Popen(
            [BIN / str(argv[0]), *map(str, argv[1:])],
            env=environment,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        started.terminate()
        started.wait(60)
        with suppress(ProcessLookupError):  # a ClientApp of a round that was cut short
            os.killpg(started.pid, signal.SIGKILL)


def listens(port: int) -> bool:
    """Tell whether something takes connections on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def count_lines(path: Path) -> int:
    """Count the lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def submit(port: int, config: dict[str, object]) -> None:
    """Build the bundle and start a run, as ``flwr run`` does, without its configuration file."""
    from flwr.cli.build import build_fab_from_files
    from flwr.common.serde import fab_to_proto, user_config_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.fab import Fab
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    modules = {f"stock/{path.name}": path.read_bytes() for path in APP.glob("*.py")}
    about = {"pyproject.toml": (APP / "pyproject.toml").read_bytes(), "stock/__init__.py": b""}
    fab, _ = build_fab_from_files({**about, **modules})
    client = ControlHttpClient.from_server_address(
        server_address=f"127.0.0.1:{port}",
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="mamfed benchmark")],
    )
    bundle = fab_to_proto(Fab(sha256(fab).hexdigest(), fab, {}))
    client.StartRun(StartRunRequest(fab=bundle, override_config=user_config_to_proto(config)))
