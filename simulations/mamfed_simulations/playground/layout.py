"""The folder of a playground, and what is remembered of it in ``playground.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mamfed_common.config import Config
from mamfed_common.errors import SetupError
from mamfed_common.runtime.documents import read_json
from mamfed_common.runtime.files import write_atomic
from mamfed_common.runtime.lock import LOCK
from mamfed_simulations.phantoms.vendors import VENDORS

MARK = "playground.json"
SITES = tuple(VENDORS)


class Remembered(Config):
    """What ``playground.json`` holds.

    Attributes:
        made_by: Tells that this command made the folder.
        port: Where the coordinator listens.
        ready: Whether everything is set up.
        runs: How many runs were planned.
    """

    made_by: str = "mamfed-simulate playground"
    port: int = 0
    ready: bool = False
    runs: int = 0


@dataclass(frozen=True)
class Layout:
    """The paths of a playground."""

    path: Path

    @property
    def phantoms(self) -> Path:
        """Return the folder of the hospitals' mammograms."""
        return self.path / "phantoms"

    @property
    def server(self) -> Path:
        """Return the coordinator's home."""
        return self.path / "coordinator"

    @property
    def logs(self) -> Path:
        """Return the folder of what the commands said."""
        return self.path / "logs"

    def site(self, name: str) -> Path:
        """Return a site's home."""
        return self.path / "sites" / name

    def plan(self, run: int) -> Path:
        """Return the plan of a run, counted from 1."""
        return self.path / f"plan-{run}.yaml"

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that keep secret and cache inside the folder."""
        return {
            "MAMFED_SECRET": str(self.path / "secret"),
            "MAMFED_CACHE": str(self.path / "cache"),
        }

    def remembered(self) -> Remembered:
        """Return what is remembered; nothing for a new folder.

        Raises:
            SetupError: The file is damaged.
        """
        path = self.path / MARK
        return read_json(Remembered, path) if path.exists() else Remembered()

    def remember(self, remembered: Remembered) -> None:
        """Write what is to be remembered."""
        write_atomic(self.path / MARK, remembered.model_dump_json(indent=2) + "\n")


def is_playground(folder: Path) -> bool:
    """Return whether ``mamfed-simulate playground`` made a folder, or is about to."""
    if (folder / LOCK).exists():
        return True
    try:
        return (folder / MARK).is_file() and bool(Layout(folder).remembered())
    except SetupError:
        return False


def run_name(run: int) -> str:
    """Return the name of a run, counted from 1."""
    return f"play-{run}"
