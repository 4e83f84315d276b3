"""The files of a run that can be downloaded, and the plans that can be started."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mamfed_common.errors import MamfedError
from mamfed_server.admission.registry import active_sites
from mamfed_server.report.plan_page import page
from mamfed_server.run.plan_checks import read_new_plan
from mamfed_server.run_folder.folder import PLAN, ROUNDS, SUMMARY, RunFolder
from mamfed_server.settings import ServerHome

KINDS = {
    "checkpoints/*.safetensors": "Checkpoint",
    "checkpoints/*.json": "Checkpoint's facts",
    "export/*/*": "Export",
    "report.html": "Report",
    "*.png": "Figure of the report",
    PLAN: "Plan",
    ROUNDS: "Rounds",
    SUMMARY: "Summary",
    "events.jsonl": "Event log",
}
"""Patterns of the files in a run folder that may be downloaded, and what they are."""
MOST_PLANS = 50


class RunFile(NamedTuple):
    """A file of a run.

    Attributes:
        name: Its path in the run folder.
        kind: What it is.
        size: In bytes.
    """

    name: str
    kind: str
    size: int


def run_called(home: ServerHome, run: str) -> Path:
    """Return a run's folder.

    Raises:
        MamfedError: There is none of this name.
    """
    folder = home.runs / run
    if Path(run).name != run or not RunFolder(folder).holds_run():
        raise MamfedError("found no such run; the list is on the page Results")
    return folder


def files_of(folder: Path) -> list[RunFile]:
    """Return what a run offers, checkpoints first; links are left out."""
    found: dict[str, RunFile] = {}
    for pattern, kind in KINDS.items():
        for path in sorted(folder.glob(pattern)):
            hidden = path.name.startswith(".")
            if path.is_file() and not path.is_symlink() and not hidden:
                name = path.relative_to(folder).as_posix()
                found.setdefault(name, RunFile(name, kind, path.stat().st_size))
    return list(found.values())


def file_called(folder: Path, name: str) -> Path:
    """Return one of :func:`files_of`.

    Raises:
        MamfedError: There is none of this name.
    """
    if name not in {each.name for each in files_of(folder)}:
        raise MamfedError("found no such file in the run")
    return folder / name


def plans_of(home: ServerHome) -> list[str]:
    """Return the YAML files that may be plans: of the home, and of its folder ``plans``."""
    found = [*home.path.glob("[!.]*.y*ml"), *(home.path / "plans").glob("[!.]*.y*ml")]
    names = [p.relative_to(home.path).as_posix() for p in found if p != home.settings_path]
    return sorted(names)[:MOST_PLANS]


def plan_lines(home: ServerHome, name: str) -> list[str]:
    """Check a plan; return what it will do, how long it takes and what it tolerates.

    Raises:
        MamfedError: There is none of this name, or it cannot be started.
    """
    if name not in plans_of(home):
        raise MamfedError("found no such plan in the home")
    plan = read_new_plan(home.path / name)
    return page(plan, active_sites(home), home.runs)
