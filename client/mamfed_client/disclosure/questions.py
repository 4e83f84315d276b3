"""Whether a question may be answered: once, within the year's budget, and over enough patients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from torch import Tensor

from mamfed_client.disclosure.answered import (
    TIME,
    Answered,
    AnsweredQuestions,
    Asked,
    Question,
    question_of,
    split_sha256,
)
from mamfed_client.disclosure.patients_behind import GROUPS, PatientsBehind, is_too_few
from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.site.policy import Policy
from mamfed_common.config import Config
from mamfed_common.model.state_dict import State, state_sha256
from mamfed_common.protocol.tasks import EvaluateTask, PlanRequest, Query, RefusalCode, TrainTask
from mamfed_common.runtime.fingerprint import sha256_of
from mamfed_common.runtime.wording import counted


class Questions:
    """The question of the message at hand, and the memory of those before it."""

    def __init__(self, memory: AnsweredQuestions, plans: PlanStore) -> None:
        """Look questions up in a memory; ``plans`` counts the approvals that open it again."""
        self._memory = memory
        self._plans = plans
        self._asked: Question | None = None

    def take(self) -> Question | None:
        """Return the question of the message at hand, and forget it."""
        asked, self._asked = self._asked, None
        return asked

    def look_up(
        self,
        policy: Policy,
        request: Asked,
        weights: Mapping[str, Tensor],
        painter: Mapping[str, Tensor] | None,
    ) -> Answered | None:
        """Return the earlier answer to a question; None if it is new and may be asked.

        Raises:
            PolicyRefusal: The plan asked the same with other weights, or the year's budget is
                spent.
        """
        self._asked = question_of(request, weights, painter)
        found = self._memory.find(request.plan, self._approvals(request), self._asked)
        if found is None:
            self._memory.check_budget(policy.bounds, request)
        return found

    def too_few(
        self, policy: Policy, request: PlanRequest, behind: PatientsBehind | None
    ) -> dict[str, str]:
        """Return the counts of an answer that rest on too few patients, each with the reason."""
        minimum = policy.min_patients_to_report
        if isinstance(request, Query) or minimum == 1:
            return {}
        assert behind is not None, "the patients behind an answer are counted before it leaves"
        few = {}
        for group, count in GROUPS.items():
            patients = getattr(behind, group)
            if is_too_few(patients, minimum):
                few[count] = f"{counted(len(patients), 'patient')}, expected {minimum} or more"
            elif isinstance(request, EvaluateTask) and patients:
                apart = self._memory.fewest_apart(patients)
                if apart is not None and apart < minimum:
                    few[count] = f"{counted(apart, 'patient')} from a group scored before"
        return few

    def remember(
        self,
        request: PlanRequest,
        released: Config,
        sent: State,
        behind: PatientsBehind | None,
        few: Mapping[str, str],
    ) -> bool:
        """Remember an answer before it leaves; return whether it had left before.

        Raises:
            PolicyRefusal: Another answer to the same question has left.
        """
        if not isinstance(request, TrainTask | EvaluateTask):
            return False
        asked, trains = self._asked, isinstance(request, TrainTask)
        assert asked is not None, "a question is looked up before it is answered"
        values = released.model_dump(mode="json", exclude={"privacy"})  # a sum that goes on
        answer = sha256_of([values, state_sha256(sent)])
        approvals = self._approvals(request)
        found = self._memory.find(request.plan, approvals, asked)
        if found is not None:
            if found.answer != answer:
                raise PolicyRefusal(
                    RefusalCode.ALREADY_ANSWERED, f"{asked.about}, and data or policy changed"
                )
            return True
        line = Answered(
            time=datetime.now(UTC).strftime(TIME),
            plan_sha256=request.plan.sha256(),
            approvals=approvals,
            split="" if trains else split_sha256(request.plan),
            about=asked.about,
            question=asked.sha256,
            answer=answer,
            body="" if trains else released.model_dump_json(),
        )
        self._memory.add(line, [] if trains or behind is None else behind.scored(few))
        return False

    def _approvals(self, request: Asked) -> int:
        return self._plans.approvals(request.plan.sha256())
