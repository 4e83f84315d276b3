"""The wire format: everything that crosses a machine boundary, in both directions.

There are three exchanges, each a Flower ``Message`` (Flower 1.41-1.42, ``flwr.app``):

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

Weights travel as one safetensors text, not as one Flower array each: Flower makes two requests per
array on each of two hops, which takes seconds for a hundred small arrays
(``benchmarks/federation/round.py``). Nothing is ever unpickled. The plan decides how arrays encode
the weights (``federation.wire``, :mod:`mamfed_common.protocol.quantization`).

Everything received is checked here; invalid content raises WeightsError. torch is imported with the
first weights: whoever describes or asks, but does not train, does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

from mamfed_common.config import Config
from mamfed_common.errors import WeightsError
from mamfed_common.model.state_dict import State, check_state
from mamfed_common.plan import Wire
from mamfed_common.protocol.tasks import EvaluateTask, TrainReport, TrainTask

if TYPE_CHECKING:
    from torch import Tensor

ARRAYS = "arrays"
WEIGHTS = "weights"
PAINTER = "painter"
SAFETENSORS = "safetensors"
BODY = "body"
JSON = "json"
MAX_BODY = 1 << 20
"""Maximum number of characters of a body, which is a plan or some counts: a few kB."""


class Update(NamedTuple):
    """A site's answer to a :class:`TrainTask`: weights and report."""

    state: State
    report: TrainReport


Body = TypeVar("Body", bound=BaseModel)


def pack(body: Config, state: Mapping[str, Tensor] | None = None) -> RecordDict:
    """Pack a body, and its weights if any, for the wire."""
    content = RecordDict({BODY: ConfigRecord({JSON: body.model_dump_json()})})
    if state is not None:
        content[ARRAYS] = ArrayRecord({WEIGHTS: _array_of(state)})
    return content


def pack_task(
    task: TrainTask | EvaluateTask,
    state: Mapping[str, Tensor],
    painter: Mapping[str, Tensor] | None = None,
) -> RecordDict:
    """Pack a task and its weights, encoded as its plan requires.

    Args:
        task: The task.
        state: The weights.
        painter: The painter's weights, if the task announces them.

    Raises:
        WeightsError: The weights do not fit the plan's encoding.
    """
    from mamfed_common.protocol.quantization import weights_to_send

    assert (painter is not None) == brings_painter(task), "the task announces the painter"
    content = pack(task, weights_to_send(state, _wire_of(task)))
    if painter is not None:
        content.array_records[ARRAYS][PAINTER] = _array_of(painter)
    return content


def _array_of(state: Mapping[str, Tensor]) -> Array:
    from safetensors.torch import save

    data = save({name: tensor.detach() for name, tensor in state.items()})
    return Array("uint8", (len(data),), SAFETENSORS, data)


def brings_painter(task: TrainTask | EvaluateTask) -> bool:
    """Return whether a task carries the painter's weights."""
    return isinstance(task, EvaluateTask) and task.painter


def unpack_body(content: RecordDict, kind: type[Body]) -> Body:
    """Read the body of a message.

    Raises:
        WeightsError: It is missing, or it is not a valid ``kind``.
    """
    records = content.config_records
    text = records[BODY].get(JSON) if BODY in records else None
    if not isinstance(text, str):
        raise WeightsError(f"message has no {BODY!r} record, expected a {kind.__name__}")
    if len(text) > MAX_BODY:
        raise WeightsError(f"{kind.__name__}: {len(text)} characters, at most {MAX_BODY} expected")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if key and key not in kind.model_fields:  # never quoted: its text comes from outside
            raise WeightsError(f"{kind.__name__}: has an unknown key") from None
        raise WeightsError(f"{kind.__name__}.{key}: {first['msg']}") from None


def unpack_state(content: RecordDict, expected: Mapping[str, Tensor]) -> State:
    """Read the weights of a message and check them against the plan's network.

    Raises:
        WeightsError: There is not exactly one set of weights, or it does not fit.
    """
    _check_arrays(content, [WEIGHTS])
    return _read_array(content, WEIGHTS, expected)


def _check_arrays(content: RecordDict, names: list[str]) -> None:
    """Check that a message holds exactly the named sets of weights."""
    records = content.array_records
    if set(records) != {ARRAYS}:
        raise WeightsError(f"message has array records {sorted(records)}, expected [{ARRAYS!r}]")
    if set(records[ARRAYS]) != set(names):
        raise WeightsError(f"message has {len(records[ARRAYS])} arrays, expected {names}")


def _read_array(content: RecordDict, name: str, expected: Mapping[str, Tensor]) -> State:
    from safetensors.torch import load

    try:
        state: State = load(content.array_records[ARRAYS][name].data)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise WeightsError(f"its {name} cannot be decoded ({type(error).__name__})") from None
    if unknown := state.keys() - expected.keys():  # names never quoted: they come from outside
        raise WeightsError(f"has {len(unknown)} arrays that the network does not have")
    check_state(state, expected)
    return state


def unpack_weights(
    content: RecordDict, task: TrainTask | EvaluateTask, expected: Mapping[str, Tensor]
) -> State:
    """Read the weights of a task.

    Raises:
        WeightsError: The sets of weights are not those that the task announces, or do not fit.
    """
    from mamfed_common.protocol.quantization import weights_received, weights_sent_like

    _check_arrays(content, [WEIGHTS, PAINTER] if brings_painter(task) else [WEIGHTS])
    sent = _read_array(content, WEIGHTS, weights_sent_like(expected, _wire_of(task)))
    return weights_received(sent, expected)


def unpack_painter(
    content: RecordDict, task: EvaluateTask, expected: Mapping[str, Tensor]
) -> State | None:
    """Read the painter's weights, which travel bit for bit; None if the task has none.

    Raises:
        WeightsError: They do not fit.
    """
    return _read_array(content, PAINTER, expected) if task.painter else None


def unpack_update(
    content: RecordDict, global_state: Mapping[str, Tensor], wire: Wire = "float32"
) -> Update:
    """Read a site's trained weights and its report.

    Args:
        content: The answer.
        global_state: The weights at the start of the round.
        wire: The plan's encoding of weights.

    Raises:
        WeightsError: Something is missing, malformed or unexpected, or does not fit.
    """
    from mamfed_common.protocol.quantization import update_received, update_sent_like

    if extra := sorted(set(content) - {ARRAYS, BODY}):
        raise WeightsError(f"message has an unexpected record {extra[0]!r}")
    sent = unpack_state(content, update_sent_like(global_state, wire))
    return Update(update_received(sent, global_state, wire), unpack_body(content, TrainReport))


def wire_bytes(content: RecordDict) -> int:
    """Return the size of a message's arrays in bytes, as Flower carries them (uncompressed)."""
    return sum(
        len(array.data) for record in content.array_records.values() for array in record.values()
    )


def _wire_of(task: TrainTask | EvaluateTask) -> Wire:
    """Return the encoding of a task's weights: exact for the final test, else the plan's."""
    final = isinstance(task, EvaluateTask) and task.part == "test"
    return "float32" if final else task.plan.federation.wire
