"""The runs of a coordinator's home at a glance, and a run's result in a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mamfed_common.checkpoint import load_checkpoint, save_checkpoint
from mamfed_common.errors import DataError, MamfedError, OutputError
from mamfed_common.files import private_directory
from mamfed_common.plan import Stage, read_plan
from mamfed_server.choosing import chosen_round
from mamfed_server.runs import PLAN, ROUNDS, SUMMARY, RunFolder


def overview(runs: Path, active: str | None) -> list[dict[str, Any]]:
    """Describe every run in a folder, the oldest first.

    Args:
        runs: The folder of run folders.
        active: The run that a server works on now.

    Returns:
        One mapping a run: ``run``, ``status`` (``finished``, ``failed``, ``stopped``, ``running``,
        ``interrupted`` where its server died), ``reason``, ``rounds``, ``rounds_planned``,
        ``pooled_validation_dice`` of the chosen round, ``plan_sha256``.
    """
    plans = sorted(runs.glob(f"*/{PLAN}"), key=lambda path: path.stat().st_mtime_ns)
    return [_describe(path.parent, path.parent.name == active) for path in plans]


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
    row: dict[str, Any] = {"run": folder.name, "reason": "", "pooled_validation_dice": None}
    try:
        plan = read_plan(folder / PLAN)
        rounds = run.rounds()
        chosen = chosen_round(rounds, ended_well=False)
        row["pooled_validation_dice"] = chosen and chosen.pooled_validation_dice
        row |= {
            "plan_sha256": plan.sha256(),
            "rounds": len(rounds),
            "rounds_planned": sum(plan.stage(stage).rounds for stage in Stage),
        }
    except MamfedError as error:
        return row | {
            "status": "damaged",
            "reason": str(error),
            "plan_sha256": "",
            "rounds": 0,
            "rounds_planned": 0,
        }
    return row | _ending(run, is_active)


def _ending(run: RunFolder, is_active: bool) -> dict[str, Any]:
    if is_active:
        return {"status": "running"}
    try:
        summary = run.read_summary()
    except DataError:
        return {"status": "interrupted"}
    return {"status": summary["status"], "reason": summary["reason"]}
