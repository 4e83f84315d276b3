"""The tasks that a coordinator sends, the answers of a site, and the codes of a refusal.

Flower is not imported here; ``mamfed_common.protocol.messages`` packs these for the wire.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from mamfed_common.config import SITE_NAME, Config
from mamfed_common.domain import Examples, Part, Purpose, Splits, Stage
from mamfed_common.plan import TrainingPlan

ModelKind = Literal["shared", "personal"]
"""The federation's model, or what a site has made of it for its own patients."""


class RefusalCode(IntEnum):
    """Why a site gives no answer: all that travels; the text stays in the site's log.

    The first is Flower's own ``CLIENT_APP_RAISED_EXCEPTION``; Flower's others are below 100.
    """

    FAILED = 2
    PLAN_NOT_SIGNED = 101
    PLAN_NOT_APPROVED = 102
    PLAN_OUTSIDE_POLICY = 103
    NOT_AT_THIS_HOUR = 104
    TOO_FEW_CASES = 105
    MAY_NOT_LEAVE = 106
    OTHER_VERSION = 107
    DATA_UNUSABLE = 108
    NOTHING_TO_ADAPT_WITH = 109
    NO_PERSONAL_MODEL = 110
    PLAN_REFUSED = 111
    POLICY_UNREADABLE = 112


REFUSAL_CODES: dict[int, str] = {
    RefusalCode.FAILED: "the site failed; its own log says why",
    RefusalCode.PLAN_NOT_SIGNED: "the site trusts no key that signed this plan",
    RefusalCode.PLAN_NOT_APPROVED: "the site has not approved this plan yet",
    RefusalCode.PLAN_OUTSIDE_POLICY: "the site's policy does not allow this plan",
    RefusalCode.NOT_AT_THIS_HOUR: "the site does not train at this hour",
    RefusalCode.TOO_FEW_CASES: "the site has fewer cases than its policy asks for",
    RefusalCode.MAY_NOT_LEAVE: "the site's policy does not let this answer leave",
    RefusalCode.OTHER_VERSION: "the site runs another version of mamfed or Flower",
    RefusalCode.DATA_UNUSABLE: "the site cannot use its data",
    RefusalCode.NOTHING_TO_ADAPT_WITH: "nothing to adapt with: no malignant training image of its "
    "own",
    RefusalCode.NO_PERSONAL_MODEL: "the site's policy makes no personal model",
    RefusalCode.PLAN_REFUSED: "somebody at the site has refused this plan",
    RefusalCode.POLICY_UNREADABLE: "the site's policy cannot be read, so nothing leaves",
}


class PlanRequest(Config):
    """What every request of a coordinator brings.

    Attributes:
        plan: The plan.
        signature: Ed25519 over it (``mamfed_common.security.signing``), base64; empty in a
            simulation.
    """

    plan: TrainingPlan
    signature: str = ""


class Query(PlanRequest):
    """Ask a site what it has for a plan."""


class SiteDescription(Config):
    """What a site has for a plan: counts, never a name of a patient or a file.

    Attributes:
        site: The site's name.
        images: Usable images by purpose (``benign``, ``malignant``, ``without_malignancy``), then
            by part (``train``, ``val``, ``test``).
        patients: Patients behind them, likewise.
        rows: Rows of the site's table.
        rejected: Rows that could not be read, by reason.
        left_out: Readable rows that a rule keeps out, by reason.
        vendors: Readable rows by vendor.
        splits: What a checkpoint knows the division of its data sets by; empty where the site
            lets it not leave.
    """

    site: str = Field(pattern=SITE_NAME)
    images: dict[str, dict[Part, int]]
    patients: dict[str, dict[Part, int]]
    rows: int = Field(ge=0)
    rejected: dict[str, int]
    left_out: dict[str, int]
    vendors: dict[str, int]
    splits: Splits = ()

    def images_used(self, plan: TrainingPlan, stage: Stage) -> dict[Purpose, int]:
        """Return how many images of each kind the site would use in a stage, none of 0.

        Where it takes no part that is nothing at all.
        """
        training = {kind: parts.get("train", 0) for kind, parts in self.images.items()}
        return plan.images_used(stage, training)


class TrainTask(PlanRequest):
    """Train one round of a stage.

    Attributes:
        stage: The stage.
        server_round: The round, counted from 1 within the stage.
        run: What the coordinator calls the run; empty in a simulation. What a site keeps between
            rounds (``federation.local_norms``) serves the run that it is of.
    """

    stage: Stage
    server_round: int = Field(ge=1)
    run: str = Field(default="", max_length=255)


class TrainReport(Config):
    """What a site says of its training; the weights travel beside it.

    Attributes:
        num_examples: Images of each kind that it used.
        loss: Mean loss over the round's steps, or over its last epoch; None where the site's
            policy withholds it.
    """

    num_examples: Examples
    loss: float | None


class EvaluateTask(PlanRequest):
    """Score the weights on one part of the site's data.

    Attributes:
        part: The part.
        stage: The stage that the weights are of.
        server_round: The round of that stage that they were averaged in.
        run: As in a :class:`TrainTask`.
        threshold: Probability from which a pixel is marked; None: the plan's. A personal model
            has the site's own.
        painter: Whether weights of the painter (``mamfed_common.training.repaint``) come beside
            the others; with the final test only.
        model: Which model to score: the weights as they come, or what the site makes of them for
            its own patients (``plan.personal``), which stays there.
    """

    part: Part
    stage: Stage
    server_round: int = Field(ge=1)
    run: str = Field(default="", max_length=255)
    threshold: float | None = Field(default=None, gt=0, lt=1)
    painter: bool = False
    model: ModelKind = "shared"

    @model_validator(mode="after")
    def _both_at_the_end(self) -> Self:
        if self.painter and self.part != "test":
            raise ValueError(f"a painter comes with the final test, not with part {self.part!r}")
        if self.model == "personal" and (self.part, self.stage) != ("test", Stage.FINETUNING):
            raise ValueError("a personal model is made at the end of a run, for its test only")
        return self
