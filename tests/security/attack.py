"""Attack a coordinator: ``python tests/security/attack.py``.

A real coordinator process with real TLS, limited to 1,024 open files, trains with three honest
sites while an approved site, a revoked one and strangers try all they can. Each attempt is a line;
the honest run must end well, and memory stay within 500 MB of idle. ``--quick`` makes the same
attempts against the same listener in this process, without training.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.processes.deployment import Deployment, wait_until  # noqa: E402
from tests.processes.intruder import (  # noqa: E402
    listeners,
    node_key_of,
    processes_below,
)
from tests.processes.phantoms import small_plan, write_phantoms  # noqa: E402
from tests.security.lib import (  # noqa: E402
    attempts_credentials,
    attempts_http,
    attempts_load,
    attempts_messages,
)
from tests.security.lib.attempts import Attempts  # noqa: E402
from tests.security.lib.door import Credentials, Door  # noqa: E402
from tests.security.lib.scene import Scene  # noqa: E402
from tests.unit.server.fleet.federation import LIMITS, Federation, Site  # noqa: E402

from mamfed_client.site.settings import SiteHome  # noqa: E402
from mamfed_common.plan import TrainingPlan  # noqa: E402
from mamfed_common.protocol.messages import pack  # noqa: E402
from mamfed_common.protocol.tasks import Query  # noqa: E402
from mamfed_server.fleet.link_transport import LinkTransport  # noqa: E402

OPEN_FILES = 1024
MEGABYTE = 10**6
MOST_MEGABYTES = 500
ROUNDS = 4
QUICK_IDLE = 300


def main() -> None:
    """Make all attempts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="in this process, without training")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    notes = Attempts()
    with tempfile.TemporaryDirectory(prefix="mamfed-attack-") as folder:
        (_quick if arguments.quick else _full)(Path(folder), arguments.seed, notes)
    notes.finish()


def _make(scene: Scene, notes: Attempts, idle: int) -> None:
    for attempt in (
        *attempts_http.attempts(),
        *attempts_credentials.attempts(),
        *attempts_messages.attempts(),
        *attempts_load.attempts(idle),
    ):
        try:
            flaw = attempt.run(scene)
        except Exception as error:
            flaw = f"{type(error).__name__}: {error}"
        notes.note(attempt.name, flaw, f"{resident(scene.pid) / MEGABYTE:.0f} MB")


def _quick(folder: Path, seed: int, notes: Attempts) -> None:
    limits = LIMITS._replace(body_bytes=8 * 2**20, body_seconds=2.0, answer_bytes=20 * 2**20)
    federation = Federation(folder, limits)
    try:
        mallory, victim, revoked = (_of(federation, n) for n in ("mallory", "victim", "revoked"))
        door = Door(federation.port, folder / "ca.pem")
        scene = Scene(door, os.getpid(), mallory, victim, revoked, folder, lambda: False, seed=seed)
        scene.connect()
        federation.roll.revoked.add("revoked")
        transport, nodes = LinkTransport(federation.link), scene.node_ids
        scene.has_left = lambda: nodes["victim"] not in transport.online()
        for node in nodes.values():
            transport.push(node, "query", pack(Query(plan=TrainingPlan())), 600.0)
        wait_until(scene.fetch, "both sites are asked", 10)
        _make(scene, notes, QUICK_IDLE)
        held = federation.link.exchanges.held_bytes()
        notes.note("nothing that was refused is kept", f"{held} bytes" if held else "")
    finally:
        federation.close()


def _of(federation: Federation, name: str) -> Credentials:
    site: Site = federation.site(name)
    return Credentials(name, *site.files, site.node)


def _full(folder: Path, seed: int, notes: Attempts) -> None:
    data = write_phantoms(folder / "phantoms", benign=3, malignant=4)
    some = next(iter(data.values()))
    plan = folder / "plan.yaml"
    plan.write_text(small_plan(pretraining=1, finetuning=ROUNDS - 1, join_seconds=5).to_yaml())
    with Deployment(folder, {**data, "mallory": some, "victim": some, "revoked": some}) as running:
        running.command(
            "mamfed-server", "sites", "revoke", "revoked", "--yes", "--home", running.server_home
        )  # fmt: skip
        running.start_server(plan)
        server = running.processes["server"]
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
        wait_until(lambda: _listens(running), "the coordinator listens")
        scene = _scene(running, folder, seed)
        idle_bytes = resident(scene.pid)
        watch = MemoryWatch(scene.pid)
        scene.connect()
        wait_until(scene.fetch, "both sites are asked", 60)
        for name in data:
            running.start_site(name)
        ports = listeners(processes_below(server.pid))
        flaw = "" if ports == [("0100007F", running.port)] else f"found {ports}"
        notes.note("the coordinator's processes listen at one port", flaw)
        _make(scene, notes, attempts_load.IDLE)
        _note_the_run(running, scene, notes)
        watch.note(notes, idle_bytes)


def _listens(running: Deployment) -> bool:
    """Return whether the server process has taken the status file over from its supervisor."""
    status = running.server_home / "status.json"
    return status.exists() and '"listening"' in status.read_text()


def _scene(running: Deployment, folder: Path, seed: int) -> Scene:
    def credentials(name: str) -> Credentials:
        home = SiteHome(running.site_home(name))
        return Credentials(name, home.certificate, home.tls_key, node_key_of(home))

    def has_left() -> bool:
        events = (running.run_folder() / "events.jsonl").read_text().splitlines()
        return any('"went"' in line and '"victim"' in line for line in events)

    status = running.server_home / "status.json"
    pid = int(json.loads(status.read_text())["pid"])
    return Scene(
        Door(running.port, running.server_home / "ca" / "ca.pem"),
        pid,
        *map(credentials, ("mallory", "victim", "revoked")),
        folder,
        has_left,
        log=running.server_home / "logs" / "server.log",
        seed=seed,
    )


def _note_the_run(running: Deployment, scene: Scene, notes: Attempts) -> None:
    """Note whether the honest run went on all the while, in one process, and ended well."""
    code = running.wait_for_end()
    accepted = [sorted(record["accepted"]) for record in running.rounds()]
    whole = len(accepted) == ROUNDS and all(len(sites) == 3 for sites in accepted)
    flaw = "" if code == 0 and whole else f"exit {code}, rounds {accepted}\n{running.story(5)}"
    notes.note("the honest run ends with all updates", flaw, f"{len(accepted)} rounds")
    text = (running.folder / "server.out").read_text()
    flaw = "it was started anew" if "restarting" in text else ""
    notes.note("the coordinator's process never died", flaw, f"pid {scene.pid}")


class MemoryWatch:
    """Samples a process's memory until it ends."""

    def __init__(self, pid: int) -> None:
        """Begin."""
        self._pid, self._most = pid, 0
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while now := resident(self._pid):
            self._most = max(self._most, now)
            time.sleep(0.2)

    def note(self, notes: Attempts, idle_bytes: int) -> None:
        """Note the largest memory."""
        grown = (self._most - idle_bytes) / MEGABYTE
        fact = f"idle {idle_bytes / MEGABYTE:.0f} MB, at most {self._most / MEGABYTE:.0f} MB"
        flaw = f"{fact}: {grown:.0f} MB more" if grown > MOST_MEGABYTES else ""
        notes.note("memory within 500 MB of idle", flaw, fact)


def resident(pid: int) -> int:
    """Return the memory that a process holds; 0 if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    main()
