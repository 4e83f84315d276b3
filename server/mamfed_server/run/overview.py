"""List the runs of a coordinator's home, and copy a run's results to a separate folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mamfed_common.checkpoint import load_checkpoint, save_checkpoint
from mamfed_common.errors import DataError
from mamfed_common.runtime.bounded import STATE_BYTES, read_bytes
from mamfed_common.runtime.files import cannot_write, write_atomic
from mamfed_common.runtime.lock import LOCK, exclusive_folder
from mamfed_common.runtime.output_checks import check_folder
from mamfed_server.run.state import run_status_of
from mamfed_server.run_folder.folder import PLAN, ROUNDS, SUMMARY, RunFolder


def overview(runs: Path) -> list[dict[str, Any]]:
    """Describe every run in a folder, oldest first.

    Args:
        runs: The folder of run folders.

    Returns:
        One mapping per run: ``run``, ``status`` (``state.RunState``, or ``damaged`` if the plan
        cannot be read and there is no summary), ``reason``, ``doing`` in words, ``rounds``,
        ``rounds_planned`` (None if the plan cannot be read), ``pooled_validation_dice`` of the
        chosen round, ``checkpoint``, ``plan_sha256``.
    """
    plans = sorted(runs.glob(f"*/{PLAN}"), key=lambda path: path.stat().st_mtime_ns)
    return [_describe(path.parent) for path in plans]


def export_run(folder: Path, checkpoint: str, out: Path) -> list[Path]:
    """Copy a run's verified weights, plan, rounds and summary.

    Args:
        folder: The run folder.
        checkpoint: ``best``, ``final`` or ``latest``.
        out: The output folder.

    Returns:
        The files written.

    Raises:
        CheckpointError: The checkpoint is missing or damaged.
        OutputError: The output folder is not empty or cannot be created.
        SetupError: Another export is writing to it.
    """
    model = load_checkpoint(RunFolder(folder).checkpoint_path(checkpoint))
    check_folder(out, _holds_lock_alone, "unfinished export")
    try:
        with exclusive_folder(out, "another export"):
            check_folder(out, _holds_lock_alone, "unfinished export")
            for name in (PLAN, ROUNDS, SUMMARY):
                if (folder / name).is_file():
                    write_atomic(out / name, read_bytes(folder / name, STATE_BYTES))
            save_checkpoint(out / "model.safetensors", model)
    except OSError as error:
        raise cannot_write(out, error) from None
    return sorted(out.iterdir())


def _holds_lock_alone(out: Path) -> bool:
    return all(path.name == LOCK for path in out.iterdir())


def _describe(folder: Path) -> dict[str, Any]:
    try:
        status = run_status_of(folder)
    except DataError as error:
        return {
            "run": folder.name,
            "status": "damaged",
            "reason": str(error),
            "doing": "damaged",
            "rounds": len(RunFolder(folder).rounds()),
            "rounds_planned": None,
            "pooled_validation_dice": None,
            "checkpoint": None,
            "plan_sha256": "",
        }
    is_damaged = status.plan is None and status.summary is None
    return {
        "run": folder.name,
        "status": "damaged" if is_damaged else str(status.state),
        "reason": status.reason,
        "doing": "damaged" if is_damaged else status.doing(),
        "rounds": len(status.rounds),
        "rounds_planned": status.plan and status.plan.rounds,
        "pooled_validation_dice": status.dice,
        "checkpoint": str(status.kept.path) if status.kept else None,
        "plan_sha256": status.plan_sha256,
    }
