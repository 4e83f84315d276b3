import json
import stat

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mamfed_common.checkpoint import (
    Checkpoint,
    CheckpointFacts,
    load_checkpoint,
    save_checkpoint,
)
from mamfed_common.errors import CheckpointError
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage


@pytest.fixture
def checkpoint(tiny_plan):
    facts = CheckpointFacts(
        plan=tiny_plan,
        plan_sha256=tiny_plan.sha256(),
        stage=Stage.FINETUNING,
        server_round=2,
        expected=("a", "b"),
        accepted=("a",),
        refused={"b": "no answer"},
    )
    return Checkpoint(state_of(build_network(tiny_plan.network, 0)), facts)


def test_a_checkpoint_comes_back_bit_for_bit_with_its_facts(tmp_path, checkpoint):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, checkpoint)
    state, facts, _ = load_checkpoint(path)
    assert state_sha256(state) == state_sha256(checkpoint.state)
    assert facts.plan == checkpoint.facts.plan
    assert facts.refused == {"b": "no answer"}


def test_the_painter_comes_back_bit_for_bit_beside_the_weights(tmp_path, tiny_plan, checkpoint):
    path = tmp_path / "best.safetensors"
    painter = state_of(build_network(tiny_plan.network, 1))
    save_checkpoint(path, checkpoint._replace(painter=painter))
    found = load_checkpoint(path)
    assert state_sha256(found.state) == state_sha256(checkpoint.state) == found.facts.weights_sha256
    assert found.painter is not None
    assert state_sha256(found.painter) == state_sha256(painter) == found.facts.painter_sha256
    save_checkpoint(path, checkpoint)
    assert load_checkpoint(path).painter is None


def test_a_painter_that_was_changed_or_is_of_another_network_is_refused(
    tmp_path, tiny_plan, checkpoint
):
    path = tmp_path / "best.safetensors"
    painter = state_of(build_network(tiny_plan.network, 1))
    save_checkpoint(path, checkpoint._replace(painter=painter))
    with safe_open(path, framework="pt") as handle:
        arrays, metadata = {n: handle.get_tensor(n) for n in handle.keys()}, handle.metadata()
    arrays["painter.subtraction.gain"] += 1
    save_file(arrays, path, metadata)
    with pytest.raises(CheckpointError, match="painter's weights do not match their SHA-256"):
        load_checkpoint(path)
    bare = {name: array for name, array in arrays.items() if not name.startswith("painter.")}
    save_file(bare, path, metadata)
    with pytest.raises(CheckpointError, match="painter's weights do not match"):
        load_checkpoint(path)
    save_checkpoint(path, checkpoint)
    with safe_open(path, framework="pt") as handle:
        metadata = handle.metadata()
    save_file(arrays, path, metadata)
    with pytest.raises(CheckpointError, match="painter's weights do not match"):
        load_checkpoint(path)
    del painter["subtraction.gain"]
    save_checkpoint(path, checkpoint._replace(painter=painter))
    with pytest.raises(CheckpointError, match=r"painter's weights .*subtraction\.gain"):
        load_checkpoint(path)


def test_the_json_beside_it_says_the_same_for_people(tmp_path, checkpoint):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, checkpoint)
    text = json.loads(path.with_suffix(".json").read_text())
    assert text == json.loads(load_checkpoint(path).facts.model_dump_json())
    assert text["weights_sha256"] == state_sha256(checkpoint.state)


def test_equal_checkpoints_are_equal_files(tmp_path, checkpoint):
    for name in ("a", "b"):
        save_checkpoint(tmp_path / f"{name}.safetensors", checkpoint)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_checkpoints_are_readable_by_their_owner_only(tmp_path, checkpoint):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, checkpoint)
    for file in (path, path.with_suffix(".json")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 2


def test_any_flipped_byte_of_the_weights_is_noticed(tmp_path, checkpoint):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, checkpoint)
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_checkpoint(path)


def test_a_truncated_file_is_named_damaged(tmp_path, checkpoint):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, checkpoint)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"best\.safetensors: damaged"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


def test_a_folder_is_not_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read|damaged"):
        load_checkpoint(tmp_path)


def test_somebody_elses_safetensors_file_is_told_apart(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="not a mamfed checkpoint"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_weights_of_another_network_than_the_plan_names_are_refused(tmp_path, checkpoint):
    state = {**checkpoint.state}
    del state["subtraction.gain"]
    save_checkpoint(tmp_path / "x.safetensors", Checkpoint(state, checkpoint.facts))
    with pytest.raises(CheckpointError, match=r"subtraction\.gain"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, checkpoint, monkeypatch):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, checkpoint)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, checkpoint)
    load_checkpoint(path)
    assert len(list(tmp_path.iterdir())) == 2
