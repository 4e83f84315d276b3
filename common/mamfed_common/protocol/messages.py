"""The wire format: all that crosses a machine boundary, both directions, and nothing else.

Three exchanges, each a Flower ``Message`` (Flower 1.41-1.42, ``flwr.app``). The server's half:

=========  =======================  ===================================
type       the server sends         a site answers
=========  =======================  ===================================
query      plan                     its name and counts of images
train      plan, stage, round,      weights, numbers of examples, loss
           run, weights
evaluate   plan, part, stage,       means and the counts behind them
           round, run, threshold,
           model, weights; for the
           final test the painter,
           if any
=========  =======================  ===================================

Weights travel as one safetensors text, not as one Flower array each: Flower makes two requests an
array on each of two hops, which for a hundred small arrays costs seconds before any training
(``benchmarks/federation_round.py``). Nothing in it is ever unpickled. Which arrays stand for the
weights is the plan's choice (``federation.wire``, :mod:`mamfed_common.protocol.quantization`).

Everything read from the other side is checked here; what fails raises WeightsError.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Literal, NamedTuple, Self, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from pydantic import BaseModel, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mamfed_common.config import SITE_NAME, Config
from mamfed_common.domain import EVALUATED_ON as EVALUATED_ON  # the wire's own words
from mamfed_common.domain import MAX_IMAGES as MAX_IMAGES
from mamfed_common.domain import PARTS as PARTS
from mamfed_common.domain import PURPOSES as PURPOSES
from mamfed_common.domain import Examples, Splits
from mamfed_common.domain import Part as Part
from mamfed_common.domain import Purpose as Purpose
from mamfed_common.errors import WeightsError
from mamfed_common.model.state_dict import State, check_state
from mamfed_common.plan import Stage, TrainingPlan, Wire
from mamfed_common.protocol.quantization import (
    update_received,
    update_sent_like,
    weights_received,
    weights_sent_like,
    weights_to_send,
)

ARRAYS = "arrays"
WEIGHTS = "weights"
PAINTER = "painter"
SAFETENSORS = "safetensors"
BODY = "body"
JSON = "json"


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


class Update(NamedTuple):
    """A site's answer to a :class:`TrainTask`."""

    state: State
    report: TrainReport


Body = TypeVar("Body", bound=BaseModel)


def pack(body: Config, state: Mapping[str, Tensor] | None = None) -> RecordDict:
    """Pack a body, and weights where they belong to it, for the wire."""
    content = RecordDict({BODY: ConfigRecord({JSON: body.model_dump_json()})})
    if state is not None:
        content[ARRAYS] = ArrayRecord({WEIGHTS: _array_of(state)})
    return content


def pack_task(
    task: TrainTask | EvaluateTask,
    state: Mapping[str, Tensor],
    painter: Mapping[str, Tensor] | None = None,
) -> RecordDict:
    """Pack a task and the weights that it is about, as its plan lets them travel.

    Args:
        task: The task.
        state: The weights.
        painter: Those of the painter, where the task says that they come.

    Raises:
        WeightsError: The weights cannot travel so.
    """
    assert (painter is not None) == brings_painter(task), "the task says what comes"
    content = pack(task, weights_to_send(state, _wire_of(task)))
    if painter is not None:
        content.array_records[ARRAYS][PAINTER] = _array_of(painter)
    return content


def _array_of(state: Mapping[str, Tensor]) -> Array:
    data = save({name: tensor.detach() for name, tensor in state.items()})
    return Array("uint8", (len(data),), SAFETENSORS, data)


def brings_painter(task: TrainTask | EvaluateTask) -> bool:
    """Tell whether a task comes with the weights of the painter."""
    return isinstance(task, EvaluateTask) and task.painter


def unpack_body(content: RecordDict, kind: type[Body]) -> Body:
    """Read the body of a message.

    Raises:
        WeightsError: It is missing or is not what the exchange calls for.
    """
    records = content.config_records
    text = records[BODY].get(JSON) if BODY in records else None
    if not isinstance(text, str):
        raise WeightsError(f"message has no {BODY!r} record, expected a {kind.__name__}")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if key and key not in kind.model_fields:  # an unknown key may say anything
            raise WeightsError(f"{kind.__name__}: holds a key that was not asked for") from None
        raise WeightsError(f"{kind.__name__}.{key}: {first['msg']}") from None


def unpack_state(content: RecordDict, expected: Mapping[str, Tensor]) -> State:
    """Read the weights of a message and check them against the plan's network.

    Raises:
        WeightsError: There are none, more than one set, or they do not fit.
    """
    _check_arrays(content, [WEIGHTS])
    return _read_array(content, WEIGHTS, expected)


def _check_arrays(content: RecordDict, names: list[str]) -> None:
    """Check that a message holds the sets of weights of these names and no other."""
    records = content.array_records
    if set(records) != {ARRAYS}:
        raise WeightsError(f"message has array records {sorted(records)}, expected [{ARRAYS!r}]")
    if set(records[ARRAYS]) != set(names):
        raise WeightsError(f"message has {len(records[ARRAYS])} arrays, expected {names}")


def _read_array(content: RecordDict, name: str, expected: Mapping[str, Tensor]) -> State:
    try:
        state: State = load(content.array_records[ARRAYS][name].data)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise WeightsError(f"its {name} cannot be decoded ({type(error).__name__})") from None
    if unknown := state.keys() - expected.keys():  # their names may hold anything
        raise WeightsError(f"sends {len(unknown)} arrays that the network does not have")
    check_state(state, expected)
    return state


def unpack_weights(
    content: RecordDict, task: TrainTask | EvaluateTask, expected: Mapping[str, Tensor]
) -> State:
    """Read the weights that a task brings.

    Raises:
        WeightsError: There are none, more sets than the task says, or they do not fit.
    """
    _check_arrays(content, [WEIGHTS, PAINTER] if brings_painter(task) else [WEIGHTS])
    sent = _read_array(content, WEIGHTS, weights_sent_like(expected, _wire_of(task)))
    return weights_received(sent, expected)


def unpack_painter(
    content: RecordDict, task: EvaluateTask, expected: Mapping[str, Tensor]
) -> State | None:
    """Read the painter's weights, which travel exactly; None where the task brings none.

    Raises:
        WeightsError: They do not fit.
    """
    return _read_array(content, PAINTER, expected) if task.painter else None


def unpack_update(
    content: RecordDict, start: Mapping[str, Tensor], wire: Wire = "float32"
) -> Update:
    """Read a site's trained weights and what it says of them.

    Args:
        content: The answer.
        start: The weights that the round started from.
        wire: How the plan lets weights travel.

    Raises:
        WeightsError: Something is missing, malformed, does not fit, or was not asked for.
    """
    if extra := sorted(set(content) - {ARRAYS, BODY}):
        raise WeightsError(f"message holds a record {extra[0]!r} that was not asked for")
    sent = unpack_state(content, update_sent_like(start, wire))
    return Update(update_received(sent, start, wire), unpack_body(content, TrainReport))


def wire_bytes(content: RecordDict) -> int:
    """Return the size of a message's arrays in bytes, as Flower carries them (uncompressed)."""
    return sum(
        len(array.data) for record in content.array_records.values() for array in record.values()
    )


def _wire_of(task: TrainTask | EvaluateTask) -> Wire:
    """Tell how a task's weights travel: for the final test bit for bit, else as the plan says."""
    final = isinstance(task, EvaluateTask) and task.part == "test"
    return "float32" if final else task.plan.federation.wire
