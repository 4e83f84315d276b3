"""What a site admits: which requests it follows, under the policy that is in force now."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from mamfed_client.disclosure.active_policy import ActivePolicy
from mamfed_client.disclosure.answered import check_question
from mamfed_client.disclosure.plan_admission import PolicyRefusal, check_plan
from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.disclosure.release import check_personal, why_withheld
from mamfed_client.disclosure.round_patients import PatientsOfRound
from mamfed_common.errors import SetupError
from mamfed_common.protocol.tasks import EvaluateTask, PlanRequest, RefusalCode, TrainTask
from mamfed_common.runtime.wording import counted
from mamfed_common.security.signing import is_signed


class Admission:
    """Decides about requests, before anything is loaded for them.

    Attributes:
        active: The policy as it was last read.
    """

    def __init__(
        self,
        read_policy: Callable[[], ActivePolicy],
        plans: PlanStore,
        now: Callable[[], datetime],
    ) -> None:
        """Read the policy.

        Args:
            read_policy: Returns the policy now in force; called for every message.
            plans: The plans received and the decisions about them.
            now: Returns the local time.

        Raises:
            SetupError: The policy cannot be read.
        """
        self._read_policy, self._plans, self._now = read_policy, plans, now
        self.active = read_policy()

    def reload(self) -> ActivePolicy:
        """Return the policy that is in force now.

        Raises:
            PolicyRefusal: It cannot be read.
        """
        try:
            self.active = self._read_policy()
        except SetupError as error:
            raise PolicyRefusal(RefusalCode.POLICY_UNREADABLE, str(error)) from None
        return self.active

    def admit(self, request: PlanRequest) -> None:
        """Admit a request.

        The request that brings the final model is admitted even if no score may leave, because the
        site keeps that model; the answer to it is then refused.

        Raises:
            PolicyRefusal: The site may not follow its plan now, or no answer could leave.
        """
        active = self.reload()
        if is_signed(request.plan, request.signature, active.trusted_keys):
            self._plans.remember(request.plan)
        self.check_plan(active, request, self._now())
        check_question(request)
        check_personal(active.policy, request)
        withheld = why_withheld(active.policy, request)
        if withheld and not _brings_final_model(request):
            raise PolicyRefusal(RefusalCode.MAY_NOT_LEAVE, withheld)

    def admit_cases(self, cases: int, patients: PatientsOfRound | None) -> None:
        """Admit a training.

        Args:
            cases: Number of images that the site has for it.
            patients: The patients whose images a round really uses; None if no weights leave.

        Raises:
            PolicyRefusal: There are fewer images or patients than the policy requires.
        """
        policy = self.reload().policy
        if cases < policy.min_training_cases:
            raise PolicyRefusal(
                RefusalCode.TOO_FEW_CASES,
                f"found {cases} training images, expected {policy.min_training_cases}",
            )
        if patients is None:
            return
        required = patients.required(policy.min_patients_a_round)
        if patients.drawn < required:
            raise PolicyRefusal(
                RefusalCode.TOO_FEW_CASES,
                f"this round would train on images of {patients.drawn} of "
                f"{counted(patients.at_hand, 'patient')}, expected {required} or more "
                "(policy.min_patients_a_round)",
            )

    def check_plan(self, active: ActivePolicy, request: PlanRequest, now: datetime | None) -> None:
        """Refuse a request whose plan the site does not follow.

        Args:
            active: The policy.
            request: The request.
            now: The local time; None where the hours of training do not matter.

        Raises:
            PolicyRefusal: The plan is unsigned, undecided, refused, outside the policy or over.
        """
        decisions, plan = self._plans.decisions(), request.plan
        check_plan(active.policy, plan, request.signature, active.trusted_keys, decisions, now)
        if isinstance(request, TrainTask):
            rounds = plan.stage(request.stage).rounds
            if request.server_round > rounds:
                raise PolicyRefusal(
                    RefusalCode.PLAN_OUTSIDE_POLICY,
                    f"asked for round {request.server_round} of a stage of {rounds}",
                )


def _brings_final_model(request: PlanRequest) -> bool:
    return isinstance(request, EvaluateTask) and request.part == "test"
