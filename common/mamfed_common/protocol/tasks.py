"""The tasks of a coordinator, the answers of a site, and the codes of refusals.

This module does not import Flower; ``mamfed_common.protocol.messages`` packs these for the wire.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from mamfed_common.config import SITE_NAME, Config, ExtensibleConfig
from mamfed_common.domain import Count, Examples, Part, Purpose, PurposeName, Splits, Stage, Tally
from mamfed_common.plan import TrainingPlan

ModelKind = Literal["shared", "personal"]
"""The federation's shared model, or the personal model that a site made from it."""


class RefusalCode(IntEnum):
    """Why a site does not answer. Only the code travels; the message stays in the site's log.

    The first is Flower's own ``CLIENT_APP_RAISED_EXCEPTION``; Flower's other codes are below 100.
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
    EXTENSION_UNUSABLE = 113
    TOO_FEW_PATIENTS = 114
    ALREADY_ANSWERED = 115
    BUDGET_SPENT = 116
    PRIVACY_SPENT = 117
    JOB_LOST = 118


REFUSAL_CODES: dict[int, str] = {
    RefusalCode.FAILED: "the site failed; see its own log",
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
    RefusalCode.EXTENSION_UNUSABLE: "the site cannot use an extension that the plan names",
    RefusalCode.TOO_FEW_PATIENTS: "the site keeps its scores: too few patients are behind them",
    RefusalCode.ALREADY_ANSWERED: "the site has answered this question of the plan already",
    RefusalCode.BUDGET_SPENT: "the site has answered as much in a year as its policy allows",
    RefusalCode.PRIVACY_SPENT: "the site's policy allows no more epsilon for its patients",
    RefusalCode.JOB_LOST: "the site's job on its cluster brought no result",
}


class PlanRequest(Config):
    """The fields that every request of a coordinator has.

    Attributes:
        plan: The plan.
        signature: Ed25519 signature of the plan (``mamfed_common.security.signing``), base64; empty
            in a simulation.
    """

    plan: TrainingPlan
    signature: str = ""


class Query(PlanRequest):
    """Ask a site which data it has for a plan."""


class SiteDescription(Config):
    """The data that a site has for a plan, as counts; never a name of a patient or a file.

    Attributes:
        site: The site's name.
        images: Usable images by purpose (``benign``, ``malignant``, ``without_malignancy``), then
            by part (``train``, ``val``, ``test``).
        patients: Number of their patients, by purpose and part.
        rows: Rows of the site's table.
        rejected: Rows that could not be read, by reason.
        left_out: Readable rows that a rule excludes, by reason.
        vendors: Readable rows by vendor.
        splits: Digests by which a checkpoint recognises the split of its data sets; empty if the
            site does not let them leave.
    """

    site: str = Field(pattern=SITE_NAME)
    images: dict[PurposeName, dict[Part, Count]]
    patients: dict[PurposeName, dict[Part, Count]]
    rows: Count
    rejected: Tally
    left_out: Tally
    vendors: Tally
    splits: Splits = ()

    def images_used(self, plan: TrainingPlan, stage: Stage) -> dict[Purpose, int]:
        """Return the images that the site would use in a stage, by purpose, without zeros.

        The result is empty if the site does not take part.
        """
        training = {kind: parts.get("train", 0) for kind, parts in self.images.items()}
        return plan.images_used(stage, training)


class TrainTask(PlanRequest):
    """Train one round of a stage.

    Attributes:
        stage: The stage.
        server_round: The round within the stage, from 1.
        run: The coordinator's name for the run; empty in a simulation. A site keeps its state
            between rounds (such as ``federation.local_norms``) separately for each run.
    """

    stage: Stage
    server_round: int = Field(ge=1)
    run: str = Field(default="", max_length=255)


class PrivacySpent(Config):
    """The differential privacy of a site's training patients, over all its rounds so far.

    Attributes:
        epsilon: Bound on what the weights that left reveal about any one training patient.
        delta: The delta for which it holds.
    """

    epsilon: float = Field(ge=0, le=1e6)
    delta: float = Field(gt=0, lt=1)


class TrainReport(ExtensibleConfig):
    """A site's report on its training; the weights are sent with it.

    Attributes:
        num_examples: Images that it used, by purpose.
        loss: Mean loss over the round's steps, or over its last epoch; None if the site's policy
            withholds it.
        privacy: The differential privacy spent, if the site trains with it.
    """

    OMITTED: ClassVar[frozenset[str]] = frozenset({"privacy"})

    num_examples: Examples
    loss: float | None
    privacy: PrivacySpent | None = None


class EvaluateTask(PlanRequest):
    """Score the weights on one part of the site's data.

    Attributes:
        part: The part.
        stage: The stage of the weights.
        server_round: The round of that stage in which they were averaged.
        run: As in a :class:`TrainTask`.
        threshold: Minimum probability of a marked pixel; None means the plan's. A personal model
            uses the site's own.
        painter: Whether the painter's weights (``mamfed_common.training.repaint``) are sent as
            well; in the final test only.
        model: The model to score: the weights as sent, or the personal model that the site makes
            from them (``plan.personal``) and that stays there.
    """

    part: Part
    stage: Stage
    server_round: int = Field(ge=1)
    run: str = Field(default="", max_length=255)
    threshold: float | None = Field(default=None, gt=0, lt=1)
    painter: bool = False
    model: ModelKind = "shared"

    @model_validator(mode="after")
    def _check_final_test(self) -> Self:
        if self.painter and self.part != "test":
            raise ValueError(f"a painter is for the final test only, not for part {self.part!r}")
        if self.model == "personal" and (self.part, self.stage) != ("test", Stage.FINETUNING):
            raise ValueError("a personal model is for the final test only")
        return self
