"""Find a run; say which run a start begins or resumes, and which unfinished runs it abandons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mamfed_common.errors import MamfedError, RunError
from mamfed_common.plan import TrainingPlan, read_plan
from mamfed_server.run.overview import overview
from mamfed_server.run.resume import difference, keys_of_today
from mamfed_server.run.state import rounds_in_words
from mamfed_server.run_folder.folder import PLAN, RunFolder

MAX_NAMED = 3
"""Maximum unfinished runs named one by one."""


def describe(folder: RunFolder, plan: TrainingPlan) -> str:
    """Return whether a run of this plan starts, resumes or is already finished.

    Args:
        folder: The run's folder; a run in it has the same plan.
        plan: The plan.
    """
    plan_name, name = f"plan {plan.sha256()}", folder.path.name
    if not folder.holds_run():
        return f"run {name} starts, {plan_name}"
    if folder.is_finished():
        return (
            f"run {name} is already finished, {plan_name}: nothing to train; give another --run to "
            "start a new one"
        )
    return f"run {name} resumes, {_progress(folder)} done, {plan_name}"


def warn_of_older(folder: RunFolder) -> list[str]:
    """Return a warning if a resumed run was started by an older mamfed with other defaults."""
    if not folder.holds_run() or folder.is_finished():
        return []
    if not (keys := keys_of_today(folder.path / PLAN)):
        return []
    return [
        f"warning: run {folder.path.name} was started by an older mamfed; keys that its plan does "
        f"not set now take today's defaults: {keys}"
    ]


def left_behind(runs: Path, run: str, plan: TrainingPlan) -> list[str]:
    """Return a warning for each unfinished run of a home that a new run would abandon.

    Args:
        runs: The folder of run folders.
        run: The run to be started.
        plan: Its plan.

    Returns:
        The warnings, latest run first; none if the run to be started is resumed.
    """
    if RunFolder(runs / run).holds_run():
        return []
    rows = [row for row in overview(runs) if row["status"] != "finished"][::-1]
    warnings = [
        f"warning: run {row['run']} is unfinished ({row['status']}, {_rounds(row)}) and "
        f"stays as it is: {_difference(runs / row['run'], plan)}"
        for row in rows[:MAX_NAMED]
    ]
    more = len(rows) - len(warnings)
    return warnings + [f"and {more} more; list them with mamfed-server runs"] * bool(more)


def earlier_run(folder: RunFolder) -> str:
    """Return where a new simulation moves the earlier run in its folder; empty: there is none."""
    if not folder.holds_run():
        return ""
    state = "" if folder.is_finished() else f", unfinished ({_progress(folder)} done),"
    return (
        f"the earlier run in {folder.path}{state} becomes {folder.next_place()}; a new run starts"
    )


def _rounds(row: Mapping[str, Any]) -> str:
    return rounds_in_words(row["rounds"], row["rounds_planned"])


def _progress(folder: RunFolder) -> str:
    try:
        planned = read_plan(folder.path / PLAN).rounds
    except MamfedError:  # such as a plan of another version of mamfed
        planned = None
    return rounds_in_words(len(folder.rounds()), planned)


def _difference(folder: Path, plan: TrainingPlan) -> str:
    """Return how a run differs from the one to be started and how to resume it, or why not."""
    try:
        kept = read_plan(folder / PLAN)
    except MamfedError as error:
        return f"it cannot be resumed: {error}"
    differs = difference(kept, plan) or "this start names another --run"
    return f"{differs}; to resume it: mamfed-server resume {folder.name}"


def find_run(run: str, runs: Path) -> Path:
    """Return the folder of a run, given its path or its name in ``runs``.

    Raises:
        RunError: There is no such run.
    """
    for folder in (Path(run), runs / run):
        if RunFolder(folder).holds_run():
            return folder
    raise RunError(f"{run}: no run folder (it has no {PLAN}) and no run in {runs}")
