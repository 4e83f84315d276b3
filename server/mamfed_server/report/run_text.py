"""The text of ``mamfed-server show``, for a run that has ended or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mamfed_server.run.state import RunStatus
from mamfed_server.run_folder.attendance import due, updates_in_words


def lines(run: RunStatus) -> list[str]:
    """Return the lines: state, rounds, missing sites, results, warnings, checkpoint."""
    attendance = run.attendance()
    result = [f"{run.run}: {run.doing()}", f"  {run.progress()}, {updates_in_words(attendance)}"]
    for record in run.rounds:
        dice = record.mean_validation_dice
        score = "" if dice is None else f", validation Dice {dice:.3f}"
        sites = f"{len(record.accepted)} of {due(record, attendance)} sites"
        result.append(f"  {record.stage} {record.server_round}: {sites}{score}")
    result += [f"  {line.words()}" for line in attendance if line.missed]
    summary = run.summary or {}
    result += [_arm(name, values) for name, values in summary.get("arms", {}).items()]
    result += [f"  warning: {warning}" for warning in summary.get("warnings", ())]
    chosen = f": {summary['checkpoint_chosen_by']}" if "checkpoint_chosen_by" in summary else ""
    kept = f"{run.kept.path} ({run.kept.words()}){chosen}" if run.kept else "none"
    return [*result, f"  checkpoint: {kept}"]


def _arm(name: str, result: Mapping[str, Any]) -> str:
    dice, at_half = result["mean_dice"], result.get("mean_dice_at_half")
    beside = "" if at_half in (None, dice) else f" ({at_half:.3f} at 0.5)"
    return f"  {name}: mean Dice {'n/a' if dice is None else f'{dice:.3f}'}{beside}"
