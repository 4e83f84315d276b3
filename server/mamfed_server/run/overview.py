"""The runs of a coordinator's home at a glance, and a run's result in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mamfed_common.checkpoint import load_checkpoint, save_checkpoint
from mamfed_common.errors import DataError
from mamfed_common.runtime.files import cannot_write, write_atomic
from mamfed_common.runtime.lock import LOCK, exclusive_folder
from mamfed_common.runtime.output_checks import check_folder
from mamfed_server.run.state import run_status_of
from mamfed_server.run_folder.folder import PLAN, ROUNDS, SUMMARY, RunFolder


def overview(runs: Path) -> list[dict[str, Any]]:
    """Describe every run in a folder, the oldest first.

    Args:
        runs: The folder of run folders.

    Returns:
        One mapping a run: ``run``, ``status`` (``standing.RunState``, or ``damaged`` where its plan
        cannot be read and nothing says how it ended), ``reason``, ``doing`` in words, ``rounds``,
        ``rounds_planned`` (None where its plan cannot be read), ``pooled_validation_dice`` of the
        chosen round, ``checkpoint``, ``plan_sha256``.
    """
    plans = sorted(runs.glob(f"*/{PLAN}"), key=lambda path: path.stat().st_mtime_ns)
    return [_describe(path.parent) for path in plans]


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
        SetupError: Another export works in it.
    """
    model = load_checkpoint(RunFolder(folder).checkpoint_path(checkpoint))
    check_folder(out, _holds_lock_alone, "unfinished export")
    try:
        with exclusive_folder(out, "another export"):
            check_folder(out, _holds_lock_alone, "unfinished export")
            for name in (PLAN, ROUNDS, SUMMARY):
                if (folder / name).is_file():
                    write_atomic(out / name, (folder / name).read_bytes())
            save_checkpoint(out / "model.safetensors", model)
    except OSError as error:
        raise cannot_write(out, error) from None
    return sorted(out.iterdir())


def _holds_lock_alone(out: Path) -> bool:
    return all(path.name == LOCK for path in out.iterdir())


def _describe(folder: Path) -> dict[str, Any]:
    try:
        found = run_status_of(folder)
    except DataError as error:
        nothing = dict.fromkeys(("rounds_planned", "pooled_validation_dice", "checkpoint"))
        said = {"status": "damaged", "reason": str(error), "doing": "damaged", "plan_sha256": ""}
        return {"run": folder.name, "rounds": len(RunFolder(folder).rounds()), **said, **nothing}
    is_damaged = found.plan is None and found.summary is None
    return {
        "run": folder.name,
        "status": "damaged" if is_damaged else str(found.state),
        "reason": found.reason,
        "doing": "damaged" if is_damaged else found.doing(),
        "rounds": len(found.rounds),
        "rounds_planned": found.plan and found.plan.rounds,
        "pooled_validation_dice": found.dice,
        "checkpoint": str(found.kept.path) if found.kept else None,
        "plan_sha256": found.plan_sha256,
    }
