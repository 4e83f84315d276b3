"""The scripts of ``examples/`` run, and say what they promise."""

import importlib
import sys
from pathlib import Path

import pydicom
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SHARED = "phantom_data"


@pytest.fixture
def main_of(monkeypatch):
    """Import a script as if it were run in its folder; return its main function."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(EXAMPLES)

    def load(name):
        return importlib.import_module(name).main

    yield load
    for name in set(sys.modules) - before:
        if (EXAMPLES / f"{name}.py").exists():
            del sys.modules[name]


def test_a_folder_is_loaded(main_of, tmp_path, capsys):
    main_of("load_a_folder")(tmp_path)
    printed = capsys.readouterr().out
    assert "layout labels: 13 rows, 0 rejected" in printed
    assert "image (32, 32) uint16" in printed


def test_a_model_is_trained_and_applied(main_of, tmp_path, capsys):
    out = main_of("predict_images")(tmp_path)
    printed = capsys.readouterr().out
    assert "pretraining round 1: loss" in printed
    assert "finetuning round 2: loss" in printed
    assert "2 images in" in printed
    assert (out / "predictions.json").is_file()


def test_a_federation_is_simulated(main_of, tmp_path, capsys):
    run = main_of("simulate_a_federation")(tmp_path)
    assert run.is_finished()
    assert "finetuning round 2: 3 updates" in capsys.readouterr().out


def test_arms_are_compared(main_of, tmp_path):
    dice = main_of("compare_arms")(tmp_path)
    assert list(dice) == [
        "federated",
        "local-aurora",
        "local-borealis",
        "local-cirrus",
        "centralised",
    ]


def test_the_whole_story_ends_with_a_dicom_segmentation(main_of, tmp_path, capsys):
    path = main_of("whole_story")(tmp_path)
    assert pydicom.dcmread(path).SOPClassUID.name == "Segmentation Storage"
    assert "finetuning round 2: aurora 3" in capsys.readouterr().out
    assert len((EXAMPLES / "whole_story.py").read_text().splitlines()) < 120


def test_every_example_is_listed():
    listed = (EXAMPLES / "README.md").read_text()
    scripts = {path.name for path in EXAMPLES.glob("*.py")} - {f"{SHARED}.py"}
    assert not [name for name in scripts if f"`{name}`" not in listed]
