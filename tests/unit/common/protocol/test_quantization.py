import pytest
import torch

from mamfed_common.errors import WeightsError
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import State, state_of, state_sha256
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.protocol.messages import (
    pack,
    pack_task,
    unpack_state,
    unpack_update,
    unpack_weights,
    wire_bytes,
)
from mamfed_common.protocol.quantization import (
    update_received,
    update_sent_like,
    update_to_send,
    weights_received,
    weights_sent_like,
    weights_to_send,
)
from mamfed_common.protocol.tasks import EvaluateTask, TrainReport, TrainTask

REPORT = TrainReport(num_examples={"benign": 3}, loss=0.5)
WEIGHT, BIAS = "conv.weight", "conv.bias"


def drawn(seed: int, size: float = 1.0) -> State:
    draw = torch.Generator().manual_seed(seed)
    return {
        WEIGHT: size * torch.randn(5, 3, 3, 1, generator=draw),
        "depthwise.weight": size * torch.randn(7, 1, 3, 3, generator=draw),
        "one.weight": size * torch.randn(1, 9, generator=draw),
        BIAS: size * torch.randn(5, generator=draw),
        "gain": torch.ones(()),
        "steps": torch.tensor([[4]]),
    }


def changed(state: State, **values: torch.Tensor) -> State:
    return state | {name.replace("__", "."): tensor for name, tensor in values.items()}


def through(state: State, start: State) -> State:
    """Return what the server makes of an update that was trained from its very weights."""
    return unpack_update(pack(REPORT, update_to_send(state, start, "compact")), start, "compact")[0]


def test_by_default_the_very_arrays_travel():
    state, start = drawn(1), drawn(0)
    assert weights_to_send(state, "float32") == state
    assert update_to_send(state, start, "float32") == state
    assert weights_sent_like(state, "float32") == state
    assert update_sent_like(state, "float32") == state
    assert update_received(state, start, "float32") == state


def test_what_is_sent_has_the_names_shapes_and_dtypes_that_are_expected():
    def of(arrays):
        return {name: (tensor.shape, tensor.dtype) for name, tensor in arrays.items()}

    state, start = drawn(1), drawn(0)
    sent = update_to_send(state, start, "compact")
    assert of(sent) == of(update_sent_like(start, "compact"))
    assert of(sent)[WEIGHT] == ((5, 3, 3, 1), torch.int8)
    assert of(sent)[WEIGHT + "/scale"] == ((5,), torch.float32)
    assert of(weights_to_send(state, "compact")) == of(weights_sent_like(start, "compact"))
    assert weights_to_send(state, "compact")[WEIGHT].dtype == torch.float16


@pytest.mark.parametrize("size", [1e-9, 1e-5, 1e-3, 1.0, 1e4])
def test_a_weight_is_rounded_by_no_more_than_is_said(size):
    state = drawn(2, size)
    received = weights_received(weights_to_send(state, "compact"), state)
    for name, tensor in state.items():
        error = (received[name].double() - tensor.double()).abs()
        bound = torch.maximum(tensor.double().abs() / 2**11, torch.tensor(2.0**-25))
        assert (error <= bound).all() if tensor.ndim > 1 else (error == 0).all()


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e6])
def test_a_change_is_rounded_by_no_more_than_is_said(size):
    state, zero = drawn(3, size), {name: torch.zeros_like(t) for name, t in drawn(0).items()}
    received = through(state, zero)
    for name, tensor in state.items():
        error = (received[name].double() - tensor.double()).abs()
        if tensor.ndim < 2 or tensor.dtype != torch.float32:
            assert (error == 0).all()
            continue
        most = tensor.double().abs().flatten(1).amax(1)
        assert (error.flatten(1).amax(1) <= most / 254 * (1 + 1e-5)).all()
        assert error.sum() > 0


def test_a_channel_of_large_changes_does_not_coarsen_another():
    start = drawn(0)
    state = changed(start, conv__weight=start[WEIGHT].clone())
    state[WEIGHT][0] += 100
    state[WEIGHT][1] += 1e-3
    found = through(state, start)[WEIGHT]
    assert (found[1] - state[WEIGHT][1]).abs().max() < 1e-5
    assert torch.equal(found[2:], start[WEIGHT][2:])


def test_where_nothing_changes_the_servers_weights_stay_bit_for_bit():
    """What float16 cannot hold is not lost: the site's answer is a change, added to float32."""
    start = drawn(4, 1 / 3)
    site = weights_received(weights_to_send(start, "compact"), start)
    assert not torch.equal(site[WEIGHT], start[WEIGHT])
    sent = update_to_send(site, site, "compact")
    assert state_sha256(update_received(sent, start, "compact")) == state_sha256(start)


def test_changes_too_small_for_a_scale_are_none():
    start = {"w": torch.zeros(2, 2)}
    assert torch.equal(through({"w": torch.full((2, 2), 1e-37)}, start)["w"], start["w"])


@pytest.mark.parametrize("value", [65520.0, -1e9, float("nan"), float("inf")])
def test_a_weight_that_float16_cannot_hold_is_refused_by_name(value):
    state = drawn(0)
    state[WEIGHT][2, 1] = value
    with pytest.raises(WeightsError, match=r"'conv.weight' holds NaN or .*wire must be float32"):
        weights_to_send(state, "compact")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_that_diverged_is_refused_by_name(value):
    start, state = drawn(0), drawn(1)
    state[WEIGHT][2, 1] = value
    with pytest.raises(WeightsError, match=r"'conv.weight/scale' holds NaN or infinity"):
        through(state, start)


HOSTILE = [
    ({"/scale": torch.full((5,), float("nan"))}, "'conv.weight/scale' holds NaN or infinity"),
    ({"/scale": torch.tensor([1.0, 1, -1e-9, 1, 1])}, "'conv.weight' has a negative scale"),
    ({"/scale": torch.full((5,), 3e38)}, "'conv.weight' holds NaN or infinity"),
    ({"/scale": torch.ones(4)}, r"'conv.weight/scale' has shape \(4,\), expected \(5,\)"),
    ({"/scale": torch.ones(5, 1)}, r"'conv.weight/scale' has shape \(5, 1\)"),
    ({"/scale": torch.ones(5).half()}, "'conv.weight/scale' has dtype torch.float16"),
    ({"/scale": None}, "'conv.weight/scale' is missing"),
    ({"": None}, "'conv.weight' is missing"),
    ({"": torch.ones(5, 3, 3, 1)}, "'conv.weight' has dtype torch.float32, expected torch.int8"),
    ({"": torch.ones(5, 9, dtype=torch.int8)}, r"'conv.weight' has shape \(5, 9\)"),
    ({"/patient": torch.ones(1)}, "^has 1 arrays that the network does not have$"),
]


@pytest.mark.parametrize(("arrays", "reason"), HOSTILE)
def test_an_update_that_is_not_what_was_asked_for_is_refused_by_name(arrays, reason):
    start = drawn(0)
    sent = update_to_send(drawn(1), start, "compact")
    sent[WEIGHT] = torch.full_like(sent[WEIGHT], 127)
    sent |= {WEIGHT + end: tensor for end, tensor in arrays.items() if tensor is not None}
    for end, tensor in arrays.items():
        if tensor is None:
            del sent[WEIGHT + end]
    with pytest.raises(WeightsError, match=reason):
        unpack_update(pack(REPORT, sent), start, "compact")


def test_neither_side_takes_the_others_plan():
    start = drawn(0)
    with pytest.raises(WeightsError, match=r"expected torch.int8|is missing"):
        unpack_update(pack(REPORT, drawn(1)), start, "compact")
    with pytest.raises(WeightsError, match="arrays that the network does not have"):
        unpack_update(pack(REPORT, update_to_send(drawn(1), start, "compact")), start)


def compact(plan: TrainingPlan) -> TrainingPlan:
    return plan.changed(federation={**plan.federation.model_dump(), "wire": "compact"})


def test_a_round_of_the_default_network_takes_under_two_fifths_of_the_bytes():
    plan = compact(TrainingPlan())
    state = state_of(build_network(plan.network, 0))
    task = TrainTask(plan=plan, stage=Stage.FINETUNING, server_round=1)
    down = wire_bytes(pack_task(task, state))
    up = wire_bytes(pack(REPORT, update_to_send(state, state, "compact")))
    assert down + up < 2 / 5 * 2 * wire_bytes(pack(REPORT, state))


@pytest.mark.parametrize(("part", "exact"), [("val", False), ("test", True)])
def test_only_the_final_test_is_of_the_exact_weights(tiny_plan, part, exact):
    plan = compact(tiny_plan)
    state = state_of(build_network(plan.network, 0))
    task = EvaluateTask(plan=plan, part=part, stage=Stage.FINETUNING, server_round=1)
    content = pack_task(task, state)
    found = unpack_weights(content, task, state)
    assert (state_sha256(found) == state_sha256(state)) is exact
    if not exact:
        with pytest.raises(WeightsError, match=r"dtype torch.float16"):
            unpack_state(content, state)
