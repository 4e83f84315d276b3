"""The runs of a coordinator's home at a glance, and a run's result in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mamfed_common.checkpoint import load_checkpoint, save_checkpoint
from mamfed_common.errors import DataError, MamfedError, OutputError
from mamfed_common.files import private_directory
from mamfed_common.plan import read_plan
from mamfed_server.choosing import chosen_round
from mamfed_server.runs import PLAN, ROUNDS, SUMMARY, RunFolder

ENDED = ("finished", "failed", "stopped")


def overview(runs: Path, active: str | None) -> list[dict[str, Any]]:
    """Describe every run in a folder, the oldest first.

    Args:
        runs: The folder of run folders.
        active: The run that a server works on now.

    Returns:
        One mapping a run: ``run``, ``status`` (``finished``, ``failed``, ``stopped``, ``running``,
        ``interrupted`` where its server died, ``damaged`` where its plan cannot be read and nothing
        says how it ended), ``reason``, ``rounds``, ``rounds_planned`` (None where its plan cannot
        be read), ``pooled_validation_dice`` of the chosen round, ``plan_sha256``.
    """
    plans = sorted(runs.glob(f"*/{PLAN}"), key=lambda path: path.stat().st_mtime_ns)
    return [_describe(path.parent, path.parent.name == active) for path in plans]


def rounds_in_words(row: Mapping[str, Any]) -> str:
    """Say how far a described run came."""
    planned = row["rounds_planned"]
    return f"{row['rounds']} rounds" if planned is None else f"{row['rounds']} of {planned} rounds"


def export_run(folder: Path, checkpoint: str, out: Path) -> list[Path]:
    """Copy a run's checked weights, plan, rounds and summary.

    Args:
        folder: The run folder.
        checkpoint: ``best``, ``final`` or ``latest``.
        out: The folder to make.

    Returns:
        The files made.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
        OutputError: The folder exists with something in it, or cannot be made.
    """
    model = load_checkpoint(RunFolder(folder).checkpoint_path(checkpoint))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: exists and is not an empty folder; choose another")
    try:
        private_directory(out)
        save_checkpoint(out / "model.safetensors", model)
        for name in (PLAN, ROUNDS, SUMMARY):
            if (folder / name).is_file():
                shutil.copy(folder / name, out / name)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from None
    return sorted(out.iterdir())


def _describe(folder: Path, is_active: bool) -> dict[str, Any]:
    run = RunFolder(folder)
    rounds = run.rounds()
    chosen = chosen_round(rounds, ended_well=False)
    row: dict[str, Any] = {"run": folder.name, "rounds": len(rounds)}
    row["pooled_validation_dice"] = chosen and chosen.pooled_validation_dice
    row |= _ending(run, is_active)
    try:
        plan = read_plan(folder / PLAN)
    except MamfedError as error:  # damaged, or written by another version of mamfed
        status = row["status"] if row["status"] in ENDED else "damaged"
        return row | {"status": status, "reason": str(error), "rounds_planned": None}
    return row | {
        "plan_sha256": row["plan_sha256"] or plan.sha256(),
        "rounds_planned": plan.rounds,
    }


def _ending(run: RunFolder, is_active: bool) -> dict[str, Any]:
    unknown = {"status": "running" if is_active else "interrupted", "reason": "", "plan_sha256": ""}
    if is_active:
        return unknown
    try:
        summary = run.read_summary()
    except DataError:
        return unknown
    return unknown | {key: summary[key] for key in unknown if key in summary}
