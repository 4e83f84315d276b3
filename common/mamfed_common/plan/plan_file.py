"""Read plans from YAML text and from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mamfed_common.domain import Stage
from mamfed_common.errors import PlanError
from mamfed_common.plan.stage_plan import ROUND_LENGTHS
from mamfed_common.plan.training_plan import TrainingPlan, validate_plan
from mamfed_common.runtime.documents import parse_yaml
from mamfed_common.runtime.file_kinds import FileKind, expecting
from mamfed_common.runtime.files import reason
from mamfed_common.runtime.text import NotTextError, read_text


def parse_plan(text: str, origin: str) -> TrainingPlan:
    """Parse a plan from YAML (or JSON, which is YAML); ``origin`` names its source in errors.

    A stage with only some of its keys takes the other values from the default plan.

    Raises:
        PlanError: The text is not YAML, has a duplicate key, or is not a plan.
    """
    values = parse_yaml(text, origin, PlanError)
    if isinstance(values, dict):
        partial = [key for key in map(str, Stage) if isinstance(values.get(key), dict)]
        values = {**values, **{key: _filled(key, values[key]) for key in partial}}
    return validate_plan(values, origin)


def _filled(stage: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a stage with the default plan's values; a given length replaces the default's."""
    default = TrainingPlan.model_fields[stage].default.model_dump()
    dropped = ROUND_LENGTHS if ROUND_LENGTHS & values.keys() else frozenset()
    return {key: value for key, value in default.items() if key not in dropped} | dict(values)


def read_plan(path: Path) -> TrainingPlan:
    """Read a plan file.

    Raises:
        PlanError: The file cannot be read or is not a plan.
    """
    with expecting(FileKind.PLAN, path):
        try:
            text = read_text(path)
        except (OSError, NotTextError) as error:
            raise PlanError(f"{path}: cannot read the plan: {reason(path, error)}") from None
        return parse_plan(text, str(path))
