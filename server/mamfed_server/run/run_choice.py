"""Which run a start begins or goes on with, and what it would leave behind, in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mamfed_common.errors import MamfedError
from mamfed_common.plan import TrainingPlan, read_plan
from mamfed_server.run.overview import overview
from mamfed_server.run.resume import difference, keys_of_today
from mamfed_server.run.state import rounds_in_words
from mamfed_server.run_folder.folder import PLAN, RunFolder

MOST_NAMED = 3
"""Unfinished runs that are named one by one."""


def describe(folder: RunFolder, plan: TrainingPlan) -> str:
    """Say whether a run of this plan begins, goes on or is over already.

    Args:
        folder: The run's folder; a run in it is of the same plan.
        plan: Its plan.
    """
    words, name = f"plan {plan.sha256()}", folder.path.name
    if not folder.holds_run():
        return f"run {name} begins, {words}"
    if folder.is_finished():
        return f"run {name} is finished, {words}: nothing is trained; another --run begins anew"
    return f"run {name} goes on, {_progress(folder)} done, {words}"


def warn_of_older(folder: RunFolder) -> list[str]:
    """Say what a run that goes on takes of today's defaults, where an older mamfed began it."""
    if not folder.holds_run() or folder.is_finished():
        return []
    if not (keys := keys_of_today(folder.path / PLAN)):
        return []
    return [
        f"warning: run {folder.path.name} was begun by an older mamfed; what its plan does not say "
        f"goes by today's defaults from here on: {keys}"
    ]


def left_behind(runs: Path, run: str, plan: TrainingPlan) -> list[str]:
    """Name the runs of a home that are not finished, where another run begins beside them.

    Args:
        runs: The folder of run folders.
        run: The run to be started.
        plan: Its plan.

    Returns:
        A warning each, the latest first; none where the run goes on.
    """
    if RunFolder(runs / run).holds_run():
        return []
    rows = [row for row in overview(runs) if row["status"] != "finished"][::-1]
    warnings = [
        f"warning: run {row['run']} is not finished ({row['status']}, {_rounds(row)}) and "
        f"is left behind: {_against(runs / row['run'], plan)}"
        for row in rows[:MOST_NAMED]
    ]
    more = len(rows) - len(warnings)
    return warnings + [f"and {more} more: mamfed-server runs"] * bool(more)


def earlier_run(folder: RunFolder) -> str:
    """Say where an earlier run of a simulation goes when a new one begins; empty where none is."""
    if not folder.holds_run():
        return ""
    how = "" if folder.is_finished() else f", not finished ({_progress(folder)} done),"
    return f"the earlier run in {folder.path}{how} becomes {folder.next_place()}: a new run begins"


def _rounds(row: Mapping[str, Any]) -> str:
    return rounds_in_words(row["rounds"], row["rounds_planned"])


def _progress(folder: RunFolder) -> str:
    try:
        planned = read_plan(folder.path / PLAN).rounds
    except MamfedError:  # written by another version of mamfed
        planned = None
    return rounds_in_words(len(folder.rounds()), planned)


def _against(folder: Path, plan: TrainingPlan) -> str:
    """Say what differs and how the run goes on, or why it cannot."""
    try:
        kept = read_plan(folder / PLAN)
    except MamfedError as error:
        return f"it cannot go on: {error}"
    differs = difference(kept, plan) or "this start gives another --run"
    return f"{differs}; mamfed-server resume {folder.name} goes on with it"
