"""Overrides of single values of a plan on a command line, such as ``finetuning.rounds=20``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mamfed_common.errors import PlanError
from mamfed_common.plan.stage_plan import ROUND_LENGTHS
from mamfed_common.plan.training_plan import TrainingPlan, validate_plan
from mamfed_common.runtime.documents import did_you_mean, known_keys, parse_yaml

OPTION = "--set"


def with_overrides(plan: TrainingPlan, settings: Sequence[str]) -> TrainingPlan:
    """Return a plan with some values replaced, in the order given.

    Args:
        plan: The plan.
        settings: ``KEY=VALUE`` texts, with dots in the key and the value as in a plan file. Setting
            one of the two lengths of a round removes the other.

    Raises:
        PlanError: A setting has no ``=``, its key is unknown, or its value is not allowed.
    """
    if not settings:
        return plan
    values = plan.model_dump(mode="json")
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise PlanError(f"{OPTION} {text!r}: expected KEY=VALUE, as in finetuning.rounds=20")
        listed = parse_yaml(f"[{value}]", f"{OPTION} {text!r}", PlanError)
        _put(values, key.strip().split("."), listed)
    return validate_plan(values, OPTION)


def _put(values: dict[str, Any], keys: Sequence[str], listed: list[Any]) -> None:
    """Replace one nested value; a new last key is left to validation, which refuses it."""
    *parents, last = keys
    for depth, parent in enumerate(parents):
        if not isinstance(values.get(parent), dict):
            hint = did_you_mean(parent, known_keys(TrainingPlan, keys[:depth]))
            known = parent in values
            name = ".".join(keys if known else keys[: depth + 1])
            raise PlanError(f"{OPTION}: unknown key {name!r}{'' if known else hint}")
        values = values[parent]
    values[last] = listed[0] if len(listed) == 1 else listed
    if last in ROUND_LENGTHS and values[last] is not None:
        values.update(dict.fromkeys(ROUND_LENGTHS - {last}))
