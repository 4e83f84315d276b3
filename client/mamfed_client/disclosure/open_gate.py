"""The gate of a simulated site, which lets everything pass; a real site's is in ``gate.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flwr.app import RecordDict
from torch import Tensor

from mamfed_client.disclosure.answered import Asked
from mamfed_client.disclosure.patients_behind import PatientsBehind
from mamfed_client.disclosure.privacy_ledger import PatientBudget
from mamfed_client.disclosure.round_patients import PatientsOfRound
from mamfed_client.preparation.cohort import SplitImage
from mamfed_client.site.status import RecentRefusal
from mamfed_common.config import Config
from mamfed_common.metrics.scores import ImageScore
from mamfed_common.protocol.messages import pack
from mamfed_common.protocol.quantization import update_to_send
from mamfed_common.protocol.tasks import PlanRequest, RefusalCode


class OpenGate:
    """The gate of a simulated site, whose data is on the researcher's own machine."""

    def admit(self, request: PlanRequest) -> None:
        """Admit every request."""

    def admit_cases(self, cases: int, patients: PatientsOfRound | None = None) -> None:
        """Admit any number of images and patients."""

    def patient_budget(self) -> PatientBudget | None:
        """Return the rule for the privacy of patients and what it has spent; None: no rule."""
        return None

    def answered(
        self,
        request: Asked,
        weights: Mapping[str, Tensor],
        painter: Mapping[str, Tensor] | None = None,
    ) -> RecordDict | None:
        """Return no earlier answer: every question is new."""
        return None

    def behind(
        self, images: Iterable[SplitImage], scores: Sequence[ImageScore] | None = None
    ) -> PatientsBehind | None:
        """Return None: nobody is counted."""
        return None

    def release(
        self,
        request: PlanRequest,
        answer: Config,
        state: Mapping[str, Tensor] | None = None,
        global_state: Mapping[str, Tensor] | None = None,
        behind: PatientsBehind | None = None,
    ) -> RecordDict:
        """Release the whole answer."""
        if state is None:
            return pack(answer)
        assert global_state is not None
        return pack(answer, update_to_send(state, global_state, request.plan.federation.wire))

    def report_refusal(self, refusal: RecentRefusal | None) -> None:
        """Do nothing: a simulation reports refusals at its end."""

    def release_code(self, code: RefusalCode) -> RefusalCode:
        """Release only that the site failed: a simulation prints the reason on the same screen."""
        return RefusalCode.FAILED
