import json
import stat

import pytest
from typer.testing import CliRunner

from mamfed_client.cli import app
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, save_checkpoint
from mamfed_common.errors import CheckpointError, DataError, OutputError
from mamfed_common.plan import Stage
from mamfed_common.state import state_of
from mamfed_common.subtraction import build_network

runner = CliRunner()


@pytest.fixture
def checkpoint(tmp_path, tiny_plan):
    path = tmp_path / "best.safetensors"
    facts = CheckpointFacts(
        plan=tiny_plan,
        plan_sha256=tiny_plan.sha256(),
        stage=Stage.FINETUNING,
        server_round=2,
    )
    save_checkpoint(path, Checkpoint(state_of(build_network(tiny_plan.network, 0)), facts))
    return path


@pytest.fixture
def data(folder):
    for number in range(5):
        folder.malignant(f"M{number}").benign(f"B{number}")
    return folder.write()


def evaluate(checkpoint, data, out, *options):
    command = ["evaluate", "--checkpoint", checkpoint, "--data", data, "--out", out, *options]
    return runner.invoke(app, [str(part) for part in command])


def test_evaluate_writes_means_counts_and_every_image(checkpoint, data, tmp_path):
    out = tmp_path / "result.json"
    assert evaluate(checkpoint, data, out).exit_code == 0
    result = json.loads(out.read_text())
    assert (result["images"], result["images_without_malignancy"]) == (5, 5)
    assert [row["image"] for row in result["per_image"]] == [
        f"images/{n}.png" for n in (1, 3, 5, 7, 9)
    ]
    assert all(row["lesion_pixels"] > 0 for row in result["per_image"])
    mean = sum(row["dice"] for row in result["per_image"]) / 5
    assert result["mean_dice"] == pytest.approx(mean)
    assert {row["dice"] for row in result["per_image_without_malignancy"]} == {None}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_the_test_part_is_that_of_the_run(checkpoint, data, tmp_path):
    out = tmp_path / "result.json"
    evaluate(checkpoint, data, out, "--part", "test", "--site", "here")
    result = json.loads(out.read_text())
    assert (result["images"], result["part"]) == (1, "test")


def test_bad_rows_are_counted_and_the_rest_is_scored(checkpoint, data, tmp_path):
    (data / "images" / "1.png").write_bytes(b"garbage")
    (data / "masks" / "3.png").unlink()
    out = tmp_path / "result.json"
    assert evaluate(checkpoint, data, out).exit_code == 0
    result = json.loads(out.read_text())
    assert result["images"] == 3
    assert result["rejected"] == {"unreadable image": 1, "missing mask": 1}


@pytest.mark.parametrize(
    ("part", "site", "culprit"), [("testing", "x", "'testing'"), ("test", "", "--site")]
)
def test_an_impossible_part_is_refused(checkpoint, data, tmp_path, part, site, culprit):
    result = evaluate(checkpoint, data, tmp_path / "r.json", "--part", part, "--site", site)
    assert isinstance(result.exception, DataError)
    assert culprit in str(result.exception)
    assert not (tmp_path / "r.json").exists()


def test_a_missing_checkpoint_folder_or_place_is_named(checkpoint, data, tmp_path):
    out = tmp_path / "r.json"
    missing = tmp_path / "nowhere"
    assert isinstance(evaluate(missing, data, out).exception, CheckpointError)
    assert isinstance(evaluate(checkpoint, missing, out).exception, DataError)
    result = evaluate(checkpoint, data, missing / "r.json")
    assert isinstance(result.exception, OutputError)
    assert str(missing) in str(result.exception)
