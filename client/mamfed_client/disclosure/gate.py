"""The gate of a site: what the site's policy lets in and out, and the record of what left.

Every answer passes :meth:`Gate.release`, which writes the audit line before it hands the answer
on: what could not be recorded does not leave.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import torch
from flwr.app import RecordDict
from torch import Tensor

from mamfed_client.disclosure.active_policy import ActivePolicy, ReloadingPolicy
from mamfed_client.disclosure.audit_log import ArrayEntry, AuditLog, Kind
from mamfed_client.disclosure.plan_admission import PolicyRefusal, check_plan
from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.disclosure.privacy import arrays_to_send, protect, read_secret
from mamfed_client.disclosure.release import allowed_of, check_personal, why_withheld
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import RecentRefusal, update_status
from mamfed_common.config import Config
from mamfed_common.errors import SetupError
from mamfed_common.model.state_dict import State
from mamfed_common.protocol.messages import BODY, JSON, pack, wire_bytes
from mamfed_common.protocol.quantization import update_to_send
from mamfed_common.protocol.tasks import EvaluateTask, PlanRequest, Query, RefusalCode, TrainTask
from mamfed_common.security.signing import is_signed

logger = logging.getLogger(__name__)

KINDS: dict[type[PlanRequest], Kind] = {
    Query: "describe",
    TrainTask: "train",
    EvaluateTask: "evaluate",
}


class OpenGate:
    """The gate of a simulated site, whose data lies on the researcher's own machine."""

    def admit(self, order: PlanRequest) -> None:
        """Admit everything."""

    def admit_cases(self, cases: int) -> None:
        """Admit any number."""

    def release(
        self,
        order: PlanRequest,
        answer: Config,
        state: Mapping[str, Tensor] | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> RecordDict:
        """Release everything."""
        if state is None:
            return pack(answer)
        assert start is not None
        return pack(answer, update_to_send(state, start, order.plan.federation.wire))

    def not_answered(self, refusal: RecentRefusal | None) -> None:
        """Take note of why a request is not answered: a simulation says it at its end."""

    def release_fault(self, fault: RefusalCode) -> RefusalCode:
        """Release only that there was a fault: a simulation's text is on the same screen."""
        return RefusalCode.FAILED


class Gate(OpenGate):
    """The gate of a real site."""

    def __init__(
        self,
        rules: Callable[[], ActivePolicy],
        plans: PlanStore,
        log: AuditLog,
        noise_secret: bytes,
        now: Callable[[], datetime] = datetime.now,
        on_refusal: Callable[[RecentRefusal | None], None] = lambda refusal: None,
    ) -> None:
        """Guard a site.

        Args:
            rules: Returns the rules as they are now; called for every message.
            plans: The plans that came and what was decided about them.
            log: The record of what left.
            noise_secret: What noise is drawn from, see ``protection.protect``.
            now: Tells the local time.
            on_refusal: Called with why a request is not answered, with None when one is let in.

        Raises:
            SetupError: The rules cannot be read.
        """
        self._rules = rules
        self._last = rules()
        self._plans = plans
        self._log = log
        self._noise_secret = noise_secret
        self._now = now
        self._on_refusal = on_refusal
        self._order: PlanRequest | None = None

    def admit(self, order: PlanRequest) -> None:
        """Let a request in, before anything is loaded for it.

        The one that brings the final model is let in even where no score may leave: the model is
        this site's too. Its answer is refused then.

        Raises:
            Refused: Its plan may not be followed here now, or the answer could not leave.
        """
        self._order = order
        rules = self._read_rules()
        if is_signed(order.plan, order.signature, rules.trusted_keys):
            self._plans.remember(order.plan)
        self._check_plan(rules, order, self._now())
        check_personal(rules.policy, order)
        withheld = why_withheld(rules.policy, order)
        if withheld and not _brings_the_final_model(order):
            raise PolicyRefusal(RefusalCode.MAY_NOT_LEAVE, withheld)
        self.not_answered(None)

    def not_answered(self, refusal: RecentRefusal | None) -> None:
        """Show why a request is not answered; None: one is let in."""
        self._on_refusal(refusal)

    def admit_cases(self, cases: int) -> None:
        """Let training begin.

        Raises:
            Refused: There are fewer images than the policy asks for.
        """
        least = self._read_rules().policy.min_training_cases
        if cases < least:
            raise PolicyRefusal(
                RefusalCode.TOO_FEW_CASES, f"found {cases} training images, expected {least}"
            )

    def release(
        self,
        order: PlanRequest,
        answer: Config,
        state: Mapping[str, Tensor] | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> RecordDict:
        """Take from an answer what may not leave, record the rest, and hand it on.

        Args:
            order: What was asked.
            answer: What this site would say.
            state: Its trained weights, where that is the answer.
            start: The weights that they were trained from.

        Raises:
            Refused: The answer may not leave, or the plan was refused in the meantime.
            AuditError: The record cannot be written.
        """
        rules = self._read_rules()
        self._check_plan(rules, order, None)
        released, sent = allowed_of(rules.policy, order, answer), State()
        if state is not None:
            assert start is not None
            if names := rules.policy.release.withheld(state):
                raise PolicyRefusal(RefusalCode.MAY_NOT_LEAVE, f"array {names[0]!r}")
            privacy, wire = rules.policy.privacy, order.plan.federation.wire
            state = protect(state, start, privacy, self._noise_secret)
            sent = arrays_to_send(state, start, wire, privacy)
        content = pack(released, sent or None)
        self._log.append(
            KINDS[type(order)],
            **_of_order(order),
            **_of_rules(rules),
            weights=[_array_entry(name, tensor) for name, tensor in sent.items()],
            bytes=_size(content),
            values=released.model_dump(mode="json", exclude_none=True),
        )
        self._order = None
        return content

    def release_fault(self, fault: RefusalCode) -> RefusalCode:
        """Record a code that leaves in place of an answer; return it."""
        order, self._order = self._order, None
        facts = _of_order(order) if order else {}
        self._log.append("fault", **facts, **_of_rules(self._last), values={"fault": int(fault)})
        return fault

    def _read_rules(self) -> ActivePolicy:
        try:
            self._last = self._rules()
        except SetupError as error:
            raise PolicyRefusal(RefusalCode.POLICY_UNREADABLE, str(error)) from None
        return self._last

    def _check_plan(self, rules: ActivePolicy, order: PlanRequest, now: datetime | None) -> None:
        decisions = self._plans.decisions()
        check_plan(rules.policy, order.plan, order.signature, rules.trusted_keys, decisions, now)
        if isinstance(order, TrainTask):
            rounds = order.plan.stage(order.stage).rounds
            if order.server_round > rounds:
                raise PolicyRefusal(
                    RefusalCode.PLAN_OUTSIDE_POLICY,
                    f"asked for round {order.server_round} of a stage of {rounds}",
                )


def open_gate(home: SiteHome) -> Gate:
    """Make the gate of a site's home.

    Raises:
        SetupError: ``site.yaml``, ``welcome.json`` or the secret of the noise cannot be used.
    """
    return Gate(
        ReloadingPolicy(home),
        PlanStore(home.plans),
        AuditLog(home.audit),
        read_secret(home.keys / "noise.key"),
        on_refusal=lambda refusal: update_status(home, refusal=refusal),
    )


def _brings_the_final_model(order: PlanRequest) -> bool:
    return isinstance(order, EvaluateTask) and order.part == "test"


def _of_order(order: PlanRequest) -> dict[str, Any]:
    facts: dict[str, Any] = {"plan_sha256": order.plan.sha256()}
    if isinstance(order, TrainTask):
        facts |= {"stage": order.stage.value, "round": order.server_round}
    if isinstance(order, EvaluateTask) and order.model == "personal":
        facts["model"] = order.model
    return facts


def _of_rules(rules: ActivePolicy) -> dict[str, Any]:
    return {"policy_sha256": rules.policy.sha256(), "to": rules.federation}


def _array_entry(name: str, tensor: Tensor) -> ArrayEntry:
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return ArrayEntry(name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=data.nbytes)


def _size(content: RecordDict) -> int:
    return wire_bytes(content) + len(str(content.config_records[BODY][JSON]).encode())
