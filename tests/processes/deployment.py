"""A coordinator and its sites as separate processes over TLS on loopback, driven by their commands.

Nothing here reaches into a process: what a hospital and a coordinator type is what is run.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 240.0


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    done: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS, pause: float = 0.1
) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)


class Deployment:
    """One coordinator and some sites, each in a folder of its own.

    Attributes:
        folder: Holds ``server/`` and ``sites/NAME/``.
        port: Where the coordinator listens.
        processes: What runs, by name; ``server`` is the coordinator.
    """

    def __init__(self, folder: Path, data: Mapping[str, Path], *, threads: int = 1) -> None:
        """Make the homes and enrol all sites, by their commands.

        Args:
            folder: Where everything goes.
            data: Each site's name and the folder of its mammograms.
            threads: CPU threads of each site.
        """
        self.folder, self.threads = folder, threads
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **os.environ,
            "MAMFED_SECRET": str(folder / "secret"),
            "MAMFED_CACHE": str(folder / "cache"),
        }
        self.server_home = folder / "server"
        self.command(
            "mamfed-server", "init", self.server_home, "--name", "Test", "--host", "127.0.0.1",
            "--bind", "127.0.0.1", "--port", self.port,
        )  # fmt: skip
        for name, mammograms in data.items():
            self.make_site(name, mammograms)
            self.enrol(name)

    def site_home(self, name: str) -> Path:
        """Return a site's home."""
        return self.folder / "sites" / name

    def make_site(self, name: str, mammograms: Path) -> None:
        """Make a site's home: it lets a model and metrics out, and takes plans within bounds.

        Phantom hospitals are tiny, so their scores leave over a single patient.
        """
        self.command(
            "mamfed-client", "init", self.site_home(name), "--name", name,
            "--data", mammograms.absolute(), "--allow-model", "--allow-metrics",
        )  # fmt: skip
        self.change_settings(name, threads=self.threads)
        least = {"min_patients_to_report": 1, "min_patients_a_round": 1}
        self.change_policy(name, plans={"approval": "within-bounds"}, **least)

    def enrol(self, name: str) -> None:
        """Let a site ask, the coordinator approve, and the site join."""
        home, welcome = self.site_home(name), self.folder / f"{name}.welcome.json"
        self.command("mamfed-client", "enroll", "--home", home)
        self.command(
            "mamfed-server", "sites", "approve", home / "request.json",
            "--home", self.server_home, "--yes", "--out", welcome,
        )  # fmt: skip
        self.command("mamfed-client", "join", welcome, "--home", home, "--yes")

    def change_settings(self, name: str, **values: object) -> None:
        """Replace keys of a site's ``site.yaml``."""
        path = self.site_home(name) / "site.yaml"
        settings = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**settings, **values}))

    def change_policy(self, name: str, **parts: object) -> None:
        """Replace values of a site's policy, and keys of its parts."""
        path = self.site_home(name) / "site.yaml"
        policy = yaml.safe_load(path.read_text())["policy"]
        for part, values in parts.items():
            whole = isinstance(values, dict)
            policy[part] = {**(policy.get(part) or {}), **values} if whole else values
        self.change_settings(name, policy=policy)

    def command(
        self, *argv: object, code: int = 0, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of mamfed's commands to its end and expect an exit code."""
        program, *arguments = map(str, argv)
        done = subprocess.run(
            [BIN / program, *arguments],
            env={**self.environment, **changes},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start_server(self, plan: Path, run: str = "run") -> None:
        """Start the coordinator."""
        self.start(
            "server", "mamfed-server", "start", "--plan", plan, "--run", run,
            "--home", self.server_home,
        )  # fmt: skip

    def wait_for_listener(self) -> None:
        """Wait until the coordinator takes connections."""

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(listens, "the coordinator listens")

    def start_site(self, name: str) -> None:
        """Start a site."""
        self.start(name, "mamfed-client", "start", "--home", self.site_home(name))

    def start(self, name: str, program: str, *argv: object) -> None:
        """Start a command and keep its output in ``NAME.out``."""
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [BIN / program, *map(str, argv)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for_end(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until the coordinator ends; return its exit code."""
        try:
            return self.processes["server"].wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the run did not end\n{self.story()}") from None

    def run_folder(self, run: str = "run") -> Path:
        """Return a run's folder."""
        return self.server_home / "runs" / run

    def rounds(self, run: str = "run") -> list[dict[str, object]]:
        """Return what ``rounds.jsonl`` holds."""
        path = self.run_folder(run) / "rounds.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def weights_sha256(self, run: str = "run", checkpoint: str = "final") -> str:
        """Return the name of a checkpoint's weights."""
        path = self.run_folder(run) / "checkpoints" / f"{checkpoint}.json"
        return str(json.loads(path.read_text())["weights_sha256"])

    def story(self, lines: int = 25) -> str:
        """Return the ends of all logs, for a test's failure."""
        logs = [*self.folder.glob("*.out"), *self.folder.glob("**/logs/*.log")]
        ends = ["\n".join(log.read_text(errors="replace").splitlines()[-lines:]) for log in logs]
        return "\n".join(f"=== {log}\n{end}" for log, end in zip(logs, ends, strict=True))

    def stop(self, name: str) -> int:
        """Ask a process to end; return its exit code."""
        process = self.processes.pop(name)
        if process.poll() is None:
            process.terminate()
        return process.wait(40)

    def close(self) -> None:
        """End everything that was started here."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self.processes.clear()

    def __enter__(self) -> Deployment:
        """Use as a context manager: everything ends with it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self.close()


def simulated_sha256(folder: Path, plan: Path, data: Mapping[str, Path], threads: int = 1) -> str:
    """Run the same federation by ``mamfed-simulate`` and return the name of its final weights."""
    sites = [argument for n, path in data.items() for argument in ("--site", f"{n}={path}")]
    environment = {
        **os.environ,
        "MAMFED_SECRET": str(folder / "secret"),
        "MAMFED_CACHE": str(folder / "cache"),
    }
    subprocess.run(
        [
            BIN / "mamfed-simulate", "run", *sites, "--plan", plan, "--threads", str(threads),
            "--out", folder / "simulated",
        ],
        env=environment,
        check=True,
        capture_output=True,
    )  # fmt: skip
    final = folder / "simulated" / "checkpoints" / "final.json"
    return str(json.loads(final.read_text())["weights_sha256"])
