"""What ``mamfed-server show`` says of a run, whether it has ended or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mamfed_server.run.state import RunStatus
from mamfed_server.run_folder.attendance import due, updates_in_words


def lines(found: RunStatus) -> list[str]:
    """Return it for people, a line each: state, rounds, who is missing, results, warnings."""
    counted = found.attendance()
    said = [f"{found.run}: {found.doing()}", f"  {found.progress()}, {updates_in_words(counted)}"]
    for record in found.rounds:
        dice = record.mean_validation_dice
        result = "" if dice is None else f", validation Dice {dice:.3f}"
        sites = f"{len(record.accepted)} of {due(record, counted)} sites"
        said.append(f"  {record.stage} {record.server_round}: {sites}{result}")
    said += [f"  {line.words()}" for line in counted if line.missed]
    summary = found.summary or {}
    said += [_arm(name, result) for name, result in summary.get("arms", {}).items()]
    said += [f"  warning: {warning}" for warning in summary.get("warnings", ())]
    chosen = f": {summary['checkpoint_chosen_by']}" if "checkpoint_chosen_by" in summary else ""
    kept = f"{found.kept.path} ({found.kept.words()}){chosen}" if found.kept else "none"
    return [*said, f"  checkpoint: {kept}"]


def _arm(name: str, result: Mapping[str, Any]) -> str:
    dice, at_half = result["mean_dice"], result.get("mean_dice_at_half")
    beside = "" if at_half in (None, dice) else f" ({at_half:.3f} at 0.5)"
    return f"  {name}: mean Dice {'n/a' if dice is None else f'{dice:.3f}'}{beside}"
