"""The gate of a site: it applies the site's policy to every request (``admission.py``) and answer.

Every answer passes through :meth:`Gate.release`, which writes the audit log before it returns the
answer: what cannot be recorded does not leave.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import RecordDict
from torch import Tensor

from mamfed_client.disclosure.active_policy import ActivePolicy, ReloadingPolicy
from mamfed_client.disclosure.admission import Admission
from mamfed_client.disclosure.answered import AnsweredQuestions, Asked
from mamfed_client.disclosure.audit_fields import array_entry, request_fields, size_of
from mamfed_client.disclosure.audit_log import AuditLog, Kind
from mamfed_client.disclosure.open_gate import OpenGate
from mamfed_client.disclosure.patients_behind import PatientsBehind, scored_on, trained_on
from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.disclosure.privacy import arrays_to_send, protect, read_secret
from mamfed_client.disclosure.privacy_ledger import PatientBudget, PrivacyLedger
from mamfed_client.disclosure.questions import Questions
from mamfed_client.disclosure.release import allowed_of
from mamfed_client.disclosure.round_patients import PatientsOfRound
from mamfed_client.disclosure.spent_by_log import spent_by_log
from mamfed_client.preparation.cohort import SplitImage
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import RecentRefusal, update_status
from mamfed_common.config import Config
from mamfed_common.metrics.scores import ImageScore
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.state_dict import State
from mamfed_common.protocol.messages import pack
from mamfed_common.protocol.tasks import EvaluateTask, PlanRequest, Query, RefusalCode, TrainTask
from mamfed_common.security.keys import read_key

__all__ = ["Gate", "OpenGate", "open_gate"]

logger = logging.getLogger(__name__)

KINDS: dict[type[PlanRequest], Kind] = {
    Query: "describe",
    TrainTask: "train",
    EvaluateTask: "evaluate",
}


class Gate(OpenGate):
    """The gate of a real site."""

    def __init__(
        self,
        read_policy: Callable[[], ActivePolicy],
        plans: PlanStore,
        log: AuditLog,
        memory: AnsweredQuestions,
        secret: bytes,
        now: Callable[[], datetime] = datetime.now,
        on_refusal: Callable[[RecentRefusal | None], None] = lambda refusal: None,
        ledger: PrivacyLedger | None = None,
    ) -> None:
        """Guard a site.

        Args:
            read_policy: Returns the policy now in force; called for every message.
            plans: The plans received and the decisions about them.
            log: The audit log.
            memory: The questions answered so far.
            secret: Secret from which noise and the hashes of patients are drawn.
            now: Returns the local time.
            on_refusal: Called with the reason when a request is refused, with None when one is
                admitted.
            ledger: What differential privacy has spent; None: beside the audit log.

        Raises:
            SetupError: The policy cannot be read.
        """
        self._admission = Admission(read_policy, plans, now)
        self._log = log
        self._questions = Questions(memory, plans)
        self._secret = secret
        self._on_refusal = on_refusal
        self._ledger = ledger or PrivacyLedger(log.path.with_name("privacy.json"))
        self._request: PlanRequest | None = None

    def admit(self, request: PlanRequest) -> None:
        """Admit a request, before anything is loaded for it (:meth:`Admission.admit`).

        Raises:
            PolicyRefusal: The site may not follow its plan now, or no answer could leave.
        """
        self._request = request
        self._questions.take()
        self._admission.admit(request)
        self.report_refusal(None)

    def report_refusal(self, refusal: RecentRefusal | None) -> None:
        """Report why a request is refused; None: one was admitted."""
        self._on_refusal(refusal)

    def admit_cases(self, cases: int, patients: PatientsOfRound | None = None) -> None:
        """Admit a training on so many images (:meth:`Admission.admit_cases`).

        Raises:
            PolicyRefusal: There are fewer images or patients than the policy requires.
        """
        self._admission.admit_cases(cases, patients)

    def patient_budget(self) -> PatientBudget | None:
        """Return the policy's rule for the privacy of patients and what it has spent.

        Raises:
            PolicyRefusal: The policy cannot be read.
            SetupError: The ledger lacks what the audit log says was spent.
            AuditError: The audit log cannot be read.
        """
        rule = self._admission.reload().policy.privacy.patients
        if rule is None:
            return None
        self._ledger.check_covers(spent_by_log(self._log.path))
        return PatientBudget(rule, self._ledger)

    def answered(
        self,
        request: Asked,
        weights: Mapping[str, Tensor],
        painter: Mapping[str, Tensor] | None = None,
    ) -> RecordDict | None:
        """Return the score that left for the same question before; None if it has to be made.

        A round that is asked again is trained again, or taken from ``state``, and must come to the
        same answer (:meth:`release`).

        Raises:
            PolicyRefusal: The plan asked the same with other weights, or the year's budget is
                spent.
        """
        active = self._admission.reload()
        found = self._questions.look_up(active.policy, request, weights, painter)
        if found is None or not found.body:
            return None
        self._admission.check_plan(active, request, None)
        score = allowed_of(active.policy, request, SiteScore.model_validate_json(found.body))
        return self._recorded(active, request, pack(score), score, again=True)

    def behind(
        self, images: Iterable[SplitImage], scores: Sequence[ImageScore] | None = None
    ) -> PatientsBehind | None:
        """Return the patients behind an answer, by keyed hashes, for :meth:`release`."""
        if scores is None:
            return trained_on(images, self._secret)
        return scored_on(images, scores, self._secret)

    def release(
        self,
        request: PlanRequest,
        answer: Config,
        state: Mapping[str, Tensor] | None = None,
        global_state: Mapping[str, Tensor] | None = None,
        behind: PatientsBehind | None = None,
    ) -> RecordDict:
        """Remove from an answer what may not leave, record the rest, and return it.

        Args:
            request: The request.
            answer: The full answer.
            state: The trained weights, if the answer has any.
            global_state: The weights from which the training started.
            behind: The patients behind the answer (:meth:`behind`); a description has none.

        Raises:
            PolicyRefusal: The answer may not leave, or the plan was refused in the meantime.
            AuditError: The audit log cannot be written.
        """
        active = self._admission.reload()
        self._admission.check_plan(active, request, None)
        few = self._questions.too_few(active.policy, request, behind)
        released, sent = allowed_of(active.policy, request, answer, few), State()
        if state is not None:
            assert global_state is not None
            if names := active.policy.release.withheld(state):
                raise PolicyRefusal(RefusalCode.MAY_NOT_LEAVE, f"array {names[0]!r}")
            privacy, wire = active.policy.privacy, request.plan.federation.wire
            state = protect(state, global_state, privacy, self._secret)
            sent = arrays_to_send(state, global_state, wire, privacy)
        content = pack(released, sent or None)
        again = self._questions.remember(request, released, sent, behind, few)
        facts = _facts_behind(behind, few)
        return self._recorded(active, request, content, released, sent, again=again, **facts)

    def release_code(self, code: RefusalCode) -> RefusalCode:
        """Record and return a code that leaves in place of an answer."""
        request, question = self._request, self._questions.take()
        self._request = None
        fields = request_fields(request, question) if request else {}
        fields |= _policy_fields(self._admission.active)
        self._log.append("fault", **fields, values={"fault": int(code)})
        return code

    def _recorded(
        self,
        active: ActivePolicy,
        request: PlanRequest,
        content: RecordDict,
        released: Config,
        sent: Mapping[str, Tensor] | None = None,
        **facts: Any,
    ) -> RecordDict:
        """Write an answer to the audit log, and return it."""
        self._log.append(
            KINDS[type(request)],
            **request_fields(request, self._questions.take()),
            **_policy_fields(active),
            weights=[array_entry(name, tensor) for name, tensor in (sent or {}).items()],
            bytes=size_of(content),
            values=released.model_dump(mode="json", exclude_none=True),
            **{key: value for key, value in facts.items() if value},
        )
        self._request = None
        return content


def open_gate(home: SiteHome) -> Gate:
    """Open the gate of a site's home.

    Raises:
        SetupError: ``site.yaml``, ``welcome.json`` or the noise secret cannot be used.
    """
    key = read_key(home.node_key, EllipticCurvePrivateKey) if home.node_key.exists() else None
    return Gate(
        ReloadingPolicy(home),
        PlanStore(home.plans),
        AuditLog(home.audit, key),
        AnsweredQuestions(home.answers),
        read_secret(home.keys / "noise.key"),
        on_refusal=lambda refusal: update_status(home, refusal=refusal),
        ledger=PrivacyLedger(home.privacy),
    )


def _policy_fields(active: ActivePolicy) -> dict[str, Any]:
    return {"policy_sha256": active.policy.sha256(), "to": active.federation}


def _facts_behind(behind: PatientsBehind | None, few: Mapping[str, str]) -> dict[str, Any]:
    return {"patients": behind.counts() if behind else None, "withheld": dict(few)}
