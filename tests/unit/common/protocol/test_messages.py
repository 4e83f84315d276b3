import json
import pickle

import pytest
import safetensors.torch
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from mamfed_common.errors import WeightsError
from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import check_state, state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.protocol.messages import (
    ARRAYS,
    BODY,
    JSON,
    WEIGHTS,
    pack,
    pack_task,
    unpack_body,
    unpack_painter,
    unpack_state,
    unpack_update,
    unpack_weights,
    wire_bytes,
)
from mamfed_common.protocol.tasks import EvaluateTask, SiteDescription, TrainReport, TrainTask

STATE = state_of(build_network(NetworkConfig(channels=(4, 8), first_skip_level=1, stem=1), 0))
REPORT = TrainReport(num_examples={"benign": 3}, loss=0.5)


def test_weights_cross_the_wire_bit_for_bit():
    update = unpack_update(pack(REPORT, STATE), STATE)
    assert state_sha256(update.state) == state_sha256(STATE)
    assert update.report == REPORT


def test_a_task_crosses_the_wire_whole(tiny_plan):
    task = TrainTask(plan=tiny_plan, stage=Stage.FINETUNING, server_round=2)
    assert unpack_body(pack(task, STATE), TrainTask) == task


def test_wire_bytes_counts_the_arrays():
    floats = sum(tensor.numel() for tensor in STATE.values())
    assert 4 * floats <= wire_bytes(pack(REPORT, STATE)) <= 4 * floats + 120 * len(STATE)


def changed(**arrays: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = {**STATE, **{k: v for k, v in arrays.items() if v is not None}}
    return {k: v for k, v in state.items() if arrays.get(k, v) is not None}


GAIN = "subtraction.gain"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (changed(**{GAIN: None}), "'subtraction.gain' is missing"),
        (changed(**{GAIN: torch.ones(2)}), r"shape \(2,\), expected \(1,\)"),
        (changed(**{GAIN: torch.ones(1, dtype=torch.float64)}), "dtype torch.float64"),
        (changed(**{GAIN: torch.tensor([float("nan")])}), "NaN or infinity"),
        (changed(**{GAIN: torch.tensor([float("inf")])}), "NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_both_directions(state, reason):
    with pytest.raises(WeightsError, match=reason):
        unpack_state(pack(REPORT, state), STATE)
    with pytest.raises(WeightsError, match=reason):
        check_state(state, STATE)


def test_unknown_arrays_are_counted_not_named():
    with pytest.raises(WeightsError, match=r"^has 1 arrays that the network does not have$"):
        unpack_state(pack(REPORT, changed(patient=torch.ones(1))), STATE)


def with_data(data: bytes) -> RecordDict:
    content = pack(REPORT, STATE)
    content[ARRAYS][WEIGHTS] = Array("uint8", (len(data),), "numpy.ndarray", data)
    return content


def test_the_weights_are_a_safetensors_text():
    assert set(safetensors.torch.load(pack(REPORT, STATE)[ARRAYS][WEIGHTS].data)) == set(STATE)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 20, -1])
def test_a_text_that_was_cut_is_refused(cut):
    whole = pack(REPORT, STATE)[ARRAYS][WEIGHTS].data
    with pytest.raises(WeightsError, match="cannot be decoded"):
        unpack_state(with_data(whole[:cut]), STATE)


def test_a_header_that_lies_about_a_shape_is_refused():
    whole = pack(REPORT, STATE)[ARRAYS][WEIGHTS].data
    lying = whole.replace(
        b'"subtraction.gain":{"dtype":"F32","shape":[1]',
        b'"subtraction.gain":{"dtype":"F32","shape":[2]',
    )
    assert lying != whole
    with pytest.raises(WeightsError, match="cannot be decoded"):
        unpack_state(with_data(lying), STATE)


def test_a_pickle_is_refused_not_unpickled():
    class Evil:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    with pytest.raises(WeightsError, match="cannot be decoded"):
        unpack_state(with_data(pickle.dumps(Evil())), STATE)


def test_a_second_array_is_refused():
    content = pack(REPORT, STATE)
    content[ARRAYS]["more"] = content[ARRAYS][WEIGHTS]
    with pytest.raises(WeightsError, match=r"2 arrays, expected"):
        unpack_state(content, STATE)


def test_a_record_that_was_not_asked_for_is_refused():
    content = pack(REPORT, STATE)
    content["names"] = ConfigRecord({"patient": "x"})
    with pytest.raises(WeightsError, match="'names'"):
        unpack_update(content, STATE)


@pytest.mark.parametrize(
    "counts",
    [
        *('{"benign": -5}', '{"benign": 1.5}', '{"benign": 7.0}', '{"benign": true}'),
        *('{"benign": "7"}', '{"benign": 10000001}', '{"benign": null}'),
        *("{}", '{"benign": 0}', '{"malignant": 3, "dense": 2}', "7", "[7]", "null"),
    ],
)
def test_a_senseless_number_of_examples_is_refused(counts):
    content = pack(REPORT, STATE)
    content["body"] = ConfigRecord({"json": f'{{"num_examples": {counts}, "loss": 1}}'})
    with pytest.raises(WeightsError, match=r"^TrainReport\.num_examples: "):
        unpack_update(content, STATE)


@pytest.mark.parametrize(
    "record",
    [
        RecordDict(),
        RecordDict({"body": ConfigRecord({"other": "x"})}),
        RecordDict({"body": ConfigRecord({"json": 5})}),
        RecordDict({"body": ArrayRecord()}),
    ],
)
def test_a_message_without_a_body_says_what_was_expected(record):
    with pytest.raises(WeightsError, match="expected a TrainReport"):
        unpack_body(record, TrainReport)


@pytest.mark.parametrize("name", ["", "a b", "../up", "x" * 65, "<b>"])
def test_a_site_name_is_plain(name):
    with pytest.raises(ValueError, match="site"):
        SiteDescription(
            site=name, images={}, patients={}, rows=0, rejected={}, left_out={}, vendors={}
        )


@pytest.mark.parametrize(
    "body",
    ['{"num_examples": 1, "loss": 1, "Jane Doe": 1}', '{"num_examples": {"Jane Doe": 1}}'],
)
def test_no_word_of_a_body_that_is_refused_is_repeated(body):
    content = RecordDict({"body": ConfigRecord({"json": body})})
    with pytest.raises(WeightsError) as caught:
        unpack_body(content, TrainReport)
    assert "Jane" not in str(caught.value)


def test_a_strange_vendor_is_refused_without_its_name():
    body = SiteDescription(
        site="a", images={}, patients={}, rows=0, rejected={}, left_out={}, vendors={"GE": 3}
    ).model_dump_json()
    content = RecordDict(
        {"body": ConfigRecord({"json": body.replace("3", '"x"').replace("GE", "Jane")})}
    )
    with pytest.raises(WeightsError) as caught:
        unpack_body(content, SiteDescription)
    assert "Jane" not in str(caught.value)


def final_test(plan, *, painter: bool) -> EvaluateTask:
    return EvaluateTask(
        plan=plan, part="test", stage=Stage.FINETUNING, server_round=1, painter=painter
    )


PAINTER = {name: tensor + 1 for name, tensor in STATE.items()}


def test_the_painter_travels_bit_for_bit_beside_the_weights(tiny_plan):
    task = final_test(tiny_plan, painter=True)
    content = pack_task(task, STATE, PAINTER)
    assert state_sha256(unpack_weights(content, task, STATE)) == state_sha256(STATE)
    found = unpack_painter(content, task, STATE)
    assert found is not None
    assert state_sha256(found) == state_sha256(PAINTER)
    plain = final_test(tiny_plan, painter=False)
    assert unpack_painter(pack_task(plain, STATE), plain, STATE) is None


def test_a_painter_that_was_not_announced_or_does_not_come_is_refused(tiny_plan):
    announced, plain = (final_test(tiny_plan, painter=painter) for painter in (True, False))
    with pytest.raises(WeightsError, match=r"2 arrays, expected \['weights'\]"):
        unpack_weights(pack_task(announced, STATE, PAINTER), plain, STATE)
    with pytest.raises(WeightsError, match="1 arrays, expected"):
        unpack_weights(pack_task(plain, STATE), announced, STATE)


def test_a_painter_of_another_network_is_refused(tiny_plan):
    task = final_test(tiny_plan, painter=True)
    content = pack_task(task, STATE, changed(**{GAIN: torch.ones(2)}))
    with pytest.raises(WeightsError, match=r"shape \(2,\), expected \(1,\)"):
        unpack_painter(content, task, STATE)


def test_a_painter_comes_with_the_final_test_only(tiny_plan):
    content = pack(final_test(tiny_plan, painter=True))
    text = content[BODY][JSON].replace('"part":"test"', '"part":"val"')
    with pytest.raises(WeightsError, match="for the final test only, not for part 'val'"):
        unpack_body(RecordDict({BODY: ConfigRecord({JSON: text})}), EvaluateTask)
    with pytest.raises(WeightsError, match="2 arrays"):
        unpack_update(pack_task(final_test(tiny_plan, painter=True), STATE, PAINTER), STATE)


BOUNDED = {
    "a long reason": {"rejected": {"x" * 101: 1}},
    "an escape sequence": {"left_out": {"\x1b[2J": 1}},
    "many vendors": {"vendors": {f"v{n}": 1 for n in range(257)}},
    "a huge count": {"vendors": {"a": 10**30}},
    "a negative count": {"rejected": {"a": -1}},
    "huge rows": {"rows": 10**30},
    "an unknown purpose": {"images": {"Anna Schmidt": {"train": 1}}},
    "huge images": {"images": {"benign": {"train": 10**30}}},
    "huge patients": {"patients": {"benign": {"train": 10**30}}},
    "a fraction": {"rows": 1.5},
    "200,000 keys": {"vendors": {f"v{n}": 1 for n in range(200_000)}},
}


@pytest.mark.parametrize("change", BOUNDED.values(), ids=BOUNDED)
def test_every_field_of_a_description_is_bounded(change):
    good = {
        "site": "north",
        "images": {"benign": {"train": 1}},
        "patients": {"benign": {"train": 1}},
        "rows": 1,
        "rejected": {"no patient": 1},
        "left_out": {},
        "vendors": {"Siemens": 1},
    }
    unpack_body(_of_text(json.dumps(good)), SiteDescription)
    with pytest.raises(WeightsError) as caught:
        unpack_body(_of_text(json.dumps(good | change)), SiteDescription)
    assert len(str(caught.value)) < 300
    assert "Schmidt" not in str(caught.value)


def _of_text(text):
    return RecordDict({BODY: ConfigRecord({JSON: text})})
