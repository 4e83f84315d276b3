"""``experiment table1`` from the command line, small and whole, on phantoms."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1
from typer.testing import CliRunner

from mamfed_common.errors import DataError, OutputError
from mamfed_common.plan import TrainingPlan
from mamfed_simulations.cli.main import app
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort
from mamfed_simulations.study.data import load_study_data
from mamfed_simulations.study.trials import read_epochs

runner = CliRunner()
EPOCHS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("study")
    look = VENDORS["aurora"]
    write_cohort(root / "here", look, benign=6, malignant=22, seed=3, scale=0.08)
    write_cohort(root / "more", VENDORS["cirrus"], benign=5, malignant=2, seed=4, scale=0.08)
    return root


@pytest.fixture(scope="module")
def plan(root) -> Path:
    stage = "{rounds: 1, local_epochs: 2, batch_size: 2, learning_rate: 0.003}"
    path = root / "plan.yaml"
    path.write_text(
        "image_size: 32\nprecision: float32\n"
        "network: {channels: [4, 8], first_skip_level: 1, stem: 1, smoothing: 1}\n"
        f"pretraining: {stage}\nfinetuning: {stage}\n"
    )
    return path


def options(root, plan, out, *more) -> list[str]:
    return [
        "experiment", "table1", "--data", f"{root}/here", "--pretraining-data", f"{root}/more",
        "--plan", str(plan), "--epochs", str(EPOCHS), "--threads", "1", "--out", str(out),
        "--cache", f"{root}/cache", *more,
    ]  # fmt: skip


def run(root, plan, out, *more):
    return runner.invoke(app, options(root, plan, out, *more))


@pytest.fixture(scope="module")
def finished(root, plan) -> Path:
    out = root / "finished"
    result = run(root, plan, out, "--seeds", "2", "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((out / "results.json").read_text())
    return out


def without_times(path: Path) -> dict:
    results = json.loads(path.read_text())
    for row in results["rows"].values():
        del row["training_cpu_seconds"]
    return results


def test_the_rows_of_table_1_are_trained_and_told(finished):
    results = json.loads((finished / "results.json").read_text())
    assert list(results["rows"]) == [
        "supervised-scratch",
        "supervised-pretrained",
        "supervised-pretrained-benign",
        "discriminative-scratch",
        "discriminative-pretrained",
    ]
    for row in results["rows"].values():
        assert (row["seeds"], row["epochs"]) == (2, EPOCHS)
        for name in ("max", "first_ten", "last_ten", "chosen"):
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
            assert row[name]["images"] == results["data"]["folds"][0]["test"]
    for file in ("results.md", "report.html", "curves.png", "figure2.png", "plan.yaml"):
        assert (finished / file).stat().st_size > 0
    assert "the first and the last ten overlap" in (finished / "results.md").read_text()


def test_every_figure_follows_from_the_epochs_by_hand(finished):
    results = json.loads((finished / "results.json").read_text())
    name = "discriminative-pretrained"
    by_seed = [read_epochs(finished / "units" / f"{name}-seed{seed}-fold0") for seed in (0, 1)]
    test = [[np.mean(e["test"]) for e in epochs] for epochs in by_seed]
    best = [np.argmax([np.mean(e["validation"]) for e in epochs]) for epochs in by_seed]
    row = results["rows"][name]
    assert row["max"]["value"] == pytest.approx(np.mean([max(t) for t in test]), abs=1e-4)
    assert row["first_ten"]["value"] == pytest.approx(np.mean(test), abs=1e-4)
    assert row["chosen_epochs"] == [int(b) + 1 for b in best]
    chosen = np.mean([t[b] for t, b in zip(test, best, strict=True)])
    assert row["chosen"]["value"] == pytest.approx(chosen, abs=1e-4)
    other = results["rows"]["supervised-scratch"]
    assert other["ours_minus_this"]["first_ten"]["value"] == pytest.approx(
        row["first_ten"]["value"] - other["first_ten"]["value"], abs=2e-4
    )
    assert row["ours_minus_this"] == {}


def test_rows_differ_and_pretraining_is_done_once_a_seed(finished):
    folders = {path.name for path in (finished / "units").iterdir()}
    assert {f for f in folders if f.startswith("pretraining")} == {
        "pretraining-seed0-fold0",
        "pretraining-seed1-fold0",
    }
    first = {
        f: read_epochs(finished / "units" / f)[0]["test"]
        for f in folders
        if not f.startswith("pretraining")
    }
    assert len({tuple(dice) for dice in first.values()}) > 7


def test_no_name_of_an_image_or_a_patient_is_written(finished, root):
    names = [p.stem for p in (root / "here").rglob("*.dcm")]
    assert names
    texts = [p.read_text() for p in finished.rglob("*") if p.suffix in {".json", ".jsonl", ".md"}]
    # Names are numbers: the same digits within a longer number are somebody else's.
    patterns = [re.compile(rf"(?<![\d.]){re.escape(name)}(?!\d)") for name in names]
    assert not [p.pattern for p in patterns if any(p.search(text) for text in texts)]


def test_the_same_command_again_trains_nothing(finished, root, plan):
    before = {p: p.stat().st_mtime_ns for p in (finished / "units").rglob("*.jsonl")}
    results = (finished / "results.json").read_bytes()
    assert run(root, plan, finished, "--seeds", "2").exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in (finished / "units").rglob("*.jsonl")} == before
    assert (finished / "results.json").read_bytes() == results


KEEPING_EVERY_STEP = """
import mamfed_simulations.study.design as design
from mamfed_simulations.cli.main import main
design.KEEP_SECONDS = 0.0
main()
"""


def test_a_study_that_was_killed_ends_with_the_same_figures(finished, root, plan, tmp_path):
    out = tmp_path / "killed"
    arguments = options(root, plan, out, "--seeds", "2")
    process = subprocess.Popen([sys.executable, "-c", KEEPING_EVERY_STEP, *arguments])
    deadline = time.monotonic() + 120
    while not list(out.rglob("supervised-pretrained*/epochs.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (out / "results.json").exists()
    assert run(root, plan, out, "--seeds", "2").exit_code == 0
    assert without_times(out / "results.json") == without_times(finished / "results.json")


def test_an_epoch_that_a_kill_made_happen_twice_counts_once(finished, root, plan, tmp_path):
    """The epoch had been scored, but the last kept weights were from before it."""
    out = tmp_path / "cut"
    shutil.copytree(finished, out)
    unit = out / "units" / "discriminative-pretrained-seed1-fold0"
    epochs = (unit / "epochs.jsonl").read_text().splitlines(keepends=True)
    (unit / "epochs.jsonl").write_text(epochs[0])
    for path in unit.glob("*.result.safetensors"):
        path.unlink()
    assert run(root, plan, out, "--seeds", "2").exit_code == 0
    assert len(read_epochs(unit)) == EPOCHS
    assert without_times(out / "results.json") == without_times(finished / "results.json")


def test_a_finished_study_may_get_more_seeds_but_not_another_plan(finished, root, plan, tmp_path):
    out = tmp_path / "grown"
    assert run(root, plan, out, "--rows", "supervised-scratch").exit_code == 0
    epochs = read_epochs(out / "units" / "supervised-scratch-seed0-fold0")
    assert run(root, plan, out, "--rows", "supervised-scratch", "--seeds", "2").exit_code == 0
    assert read_epochs(out / "units" / "supervised-scratch-seed0-fold0") == epochs
    refused = run(root, plan, out, "--pretraining-epochs", "7")
    assert isinstance(refused.exception, OutputError)
    assert "plan: pretraining: local epochs was 2" in str(refused.exception)
    assert "7" in str(refused.exception)


def change_pixel(folder: Path) -> None:
    for path in (folder / "images").iterdir():
        image = pydicom.dcmread(path)
        if image.file_meta.TransferSyntaxUID == JPEGLosslessSV1:
            pixels = imagecodecs.jpeg8_decode(next(generate_frames(image.PixelData)))
        else:
            pixels = image.pixel_array.copy()
        pixels.flat[pixels.argmax()] -= 1
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image["PixelData"].is_undefined_length = False
        image.PixelData = pixels.tobytes()
        image.save_as(path)


def change_mask(folder: Path) -> None:
    mask = np.array(Image.open(path := next((folder / "masks").iterdir())))
    mask.flat[mask.argmax()] = 0
    Image.fromarray(mask).save(path)


def leave_a_row_out(folder: Path) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join(lines[:-1]) + "\n")


@pytest.mark.parametrize(
    ("folder", "change"),
    [
        ("here", change_pixel),
        ("here", change_mask),
        ("here", leave_a_row_out),
        ("more", change_pixel),
        ("more", leave_a_row_out),
    ],
)
def test_a_study_is_of_its_pixels_masks_and_rows(finished, root, plan, tmp_path, folder, change):
    for name in ("here", "more"):
        shutil.copytree(root / name, tmp_path / name)
    change(tmp_path / folder)
    shutil.copytree(finished, tmp_path / "out")
    result = run(tmp_path, plan, tmp_path / "out", "--seeds", "2")
    assert isinstance(result.exception, OutputError)
    assert "holds another study" in str(result.exception)


def test_a_dry_run_counts_and_trains_nothing(root, plan, tmp_path):
    result = run(root, plan, tmp_path / "dry", "--dry-run")
    assert result.exit_code == 0
    assert "5 trainings of stage 2 (5 rows, 1 seeds, 1 folds" in " ".join(result.stderr.split())
    assert not (tmp_path / "dry").exists()


def test_an_unknown_row_is_a_usage_error(root, plan, tmp_path):
    result = run(root, plan, tmp_path / "x", "--rows", "supervised-scratch,magic")
    assert result.exit_code == 2
    assert "magic" in result.stderr


def study_data(root, folds):
    plan = TrainingPlan(image_size=32)
    return load_study_data(root / "here", [root / "more"], plan, folds, root / "cache")


@pytest.mark.parametrize("folds", [None, 4])
def test_a_patient_is_in_one_part_only(root, folds):
    for fold in study_data(root, folds).folds:
        parts = [
            {image.case.row.patient_id for image in part.images}
            for part in (fold.training, fold.validation, fold.test)
        ]
        assert all(parts)
        assert not (parts[0] & parts[1])
        assert not (parts[0] & parts[2])
        assert not (parts[1] & parts[2])


def test_cross_validation_tests_every_patient_once(root):
    data = study_data(root, 4)
    tested = [p for fold in data.folds for p in set(fold.test_patients)]
    names = [i.case.row.image for fold in data.folds for i in fold.test.images]
    assert len(tested) == len(set(tested))
    assert len(names) == len(set(names)) == 22


def test_all_benign_images_of_the_pretraining_data_are_used_and_no_test_patient_here(root):
    (fold,) = study_data(root, None).folds
    names = [sample.name for sample in fold.benign]
    assert sorted(names[-5:]) == [f"images/{number:04}.dcm" for number in range(1, 6)]
    assert 5 < len(names) < 5 + 6


def test_a_data_set_without_benign_images_needs_others(root, tmp_path):
    write_cohort(tmp_path / "d", VENDORS["aurora"], benign=0, malignant=9, seed=1, scale=0.05)
    plan = TrainingPlan(image_size=32)
    with pytest.raises(DataError, match="no image for benign: add --pretraining-data"):
        load_study_data(tmp_path / "d", [], plan, None, tmp_path / "cache")


def test_a_study_without_a_plan_has_twenty_epochs(root, tmp_path):
    paths = ["--data", str(root / "here"), "--pretraining-data", str(root / "more")]
    more = ["--size", "32", "--cache", str(root / "cache"), "--out", str(tmp_path / "x")]
    command = ["experiment", "table1", *paths, *more, "--dry-run"]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    (fold,) = study_data(root, None).folds
    steps = 5 * 20 * -(-len(fold.training) // TrainingPlan().finetuning.batch_size)
    assert f"{steps:,} steps)" in " ".join(result.stderr.split())
