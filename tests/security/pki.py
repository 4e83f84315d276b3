"""Attack a federation by its keys and certificates: ``python tests/security/pki.py``.

A real coordinator process with real TLS; certificates expire, are rotated, renewed, replaced and
revoked while it runs, clocks differ, and key files are readable by others. ``--quick`` makes the
same attempts against the same listener and registry in this process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.processes.deployment import Deployment  # noqa: E402
from tests.processes.phantoms import small_plan  # noqa: E402
from tests.security.lib.attempts import Attempts  # noqa: E402
from tests.security.lib.attempts_keys import attempts  # noqa: E402
from tests.security.lib.door import Door  # noqa: E402
from tests.security.lib.keys_scene import Keys, make_site  # noqa: E402
from tests.unit.client.loopback import Coordinator  # noqa: E402

from mamfed_client.site.settings import SiteHome  # noqa: E402
from mamfed_server.settings import ServerHome  # noqa: E402

SITES = ("north", "south", "east", "west")
SLOW = ("rotated", "damaged server")
"""Attempts that wait for the process to look at its files, every five seconds."""


def main() -> None:
    """Make all attempts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=21, help="printed; nothing here is random")
    parser.add_argument("--quick", action="store_true", help="in this process")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    notes = Attempts()
    with tempfile.TemporaryDirectory(prefix="mamfed-pki-") as name:
        with (_in_process if arguments.quick else _as_process)(Path(name)) as keys:
            for title, attempt in attempts():
                if arguments.quick and any(word in title for word in SLOW):
                    continue
                try:
                    flaw = attempt(keys)
                except Exception as error:
                    flaw = f"{type(error).__name__}: {error}"
                notes.note(title, flaw)
    notes.finish()


@contextmanager
def _in_process(folder: Path) -> Iterator[Keys]:
    coordinator = Coordinator(folder / "server")
    try:
        keys = Keys(Door(coordinator.port, coordinator.home.ca), coordinator.home, folder)
        for name in SITES:
            make_site(keys, name, SiteHome(folder / "sites" / name))
        yield keys
    finally:
        coordinator.close()


@contextmanager
def _as_process(folder: Path) -> Iterator[Keys]:
    with Deployment(folder, {}) as running:
        home = ServerHome(running.server_home)
        keys = Keys(Door(running.port, home.ca), home, folder)
        for name in SITES:
            make_site(keys, name, SiteHome(folder / "sites" / name))
        plan = folder / "plan.yaml"
        plan.write_text(small_plan().to_yaml())
        running.start_server(plan)
        running.wait_for_listener()
        yield keys


if __name__ == "__main__":
    main()
