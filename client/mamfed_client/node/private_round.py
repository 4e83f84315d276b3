"""A round of training under ``policy.privacy.patients``: charged first, then trained, then sent."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import NamedTuple

from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.disclosure.privacy_ledger import Charge, PatientBudget
from mamfed_client.site.policy import PatientPrivacy
from mamfed_client.training.private import PatientDraw, draw_of
from mamfed_client.training.round_executor import RoundExecutor
from mamfed_common.model.state_dict import State
from mamfed_common.protocol.tasks import PrivacySpent, RefusalCode
from mamfed_common.training.batches import Batches
from mamfed_common.training.inference import OnStep
from mamfed_common.training.optimizer_state import OptimizerStateStore
from mamfed_common.training.round_checkpoint import RoundCheckpointer, TrainingResult

logger = logging.getLogger(__name__)


class PrivateResult(NamedTuple):
    """A round's result, and what this site's rounds have spent with it."""

    result: TrainingResult
    spent: PrivacySpent


def train_private_round(
    budget: PatientBudget,
    name: str,
    executor: RoundExecutor,
    state: State,
    batches: Batches,
    *,
    on_step: OnStep | None,
    checkpointer_of: Callable[[str], RoundCheckpointer | None],
    optimizer_state: OptimizerStateStore | None,
) -> PrivateResult:
    """Train a round within the site's budget, or return its saved result at no further cost.

    Args:
        budget: The policy's rule and the ledger.
        name: Everything that decides the round except the rule.
        executor: What trains.
        state: The weights to start from.
        batches: The images of the round.
        on_step: Called after each step.
        checkpointer_of: Returns what saves a round of a name.
        optimizer_state: Restores and saves AdamW's moments.

    Raises:
        PolicyRefusal: The round would exceed the policy's epsilon, or delta means nothing here.
        SetupError: The ledger cannot be used, or a saved result is not charged in it.
    """
    rule, draw = budget.rule, draw_of(batches, budget.rule)
    _check_delta(rule, draw)
    own_name = _name_under(rule, draw, name)
    checkpointer = checkpointer_of(own_name)
    result = checkpointer.result() if checkpointer else None
    charge = Charge(
        noise_multiplier=rule.noise_multiplier, sample_rate=max(draw.rates), steps=draw.steps
    )
    if result is None:
        secret = budget.ledger.begin(own_name, charge, rule)
        result = executor.train_patients(
            state,
            batches,
            draw,
            rule,
            secret,
            on_step=on_step,
            checkpointer=checkpointer,
            optimizer_state=optimizer_state,
        )
    budget.ledger.end(charge)
    spent = budget.spent()
    logger.info(
        "privacy of patients: epsilon %.4g of %.4g at delta %g after %d steps on %d patients",
        *(spent.epsilon, rule.max_epsilon, spent.delta, draw.steps, len(draw.patients)),
    )
    return PrivateResult(result, spent)


def _check_delta(rule: PatientPrivacy, draw: PatientDraw) -> None:
    if rule.delta * len(draw.patients) >= 1:
        raise PolicyRefusal(
            RefusalCode.PRIVACY_SPENT,
            f"policy.privacy.patients.delta is {rule.delta:g}, expected less than 1 / "
            f"{len(draw.patients)}, one divided by the number of patients",
        )


def _name_under(rule: PatientPrivacy, draw: PatientDraw, name: str) -> str:
    private = f"{rule.noise_multiplier!r} {rule.clip_norm!r} {max(draw.rates)!r} {draw.steps}"
    return hashlib.sha256(f"private {private} {name}".encode()).hexdigest()
