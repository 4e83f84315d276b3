"""An answer is reused for the same question alone: whatever of it changes, the answer does."""

import csv
import json
import os

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_common.errors import OutputError

from .conftest import draw, save_model


@pytest.fixture
def study(write_phantom):
    """A folder with one image whose side and view a table tells, and that table."""
    path = write_phantom("aurora", "R", "CC").path
    dataset = pydicom.dcmread(path)
    for keyword in (
        "ImageLaterality",
        "ViewPosition",
        "ViewCodeSequence",
        "AnatomicRegionSequence",
    ):
        if keyword in dataset:
            del dataset[keyword]
    path.unlink()
    dataset.save_as(path.parent / "x1.dcm")
    say(path.parent)
    return path.parent


def say(folder, laterality="R", view="CC", **cells):
    row = {"image": "x1.dcm", "patient_id": "P1", "laterality": laterality, "view": view}
    row |= {"pathology": "", **cells}
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)


@pytest.fixture
def ask(predict, tmp_path):
    def run(*inputs, **how):
        result = predict(*inputs, **how)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return json.loads((tmp_path / "out" / "predictions.json").read_text())

    return run


def store(path, pixels):
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.save_as(path)


def segmentation_of(tmp_path, record):
    return pydicom.dcmread(tmp_path / "out/images" / record["image"] / "segmentation.dcm")


def test_the_same_question_is_answered_once(study, ask):
    assert ask(study)["predicted"] == 1
    again = ask(study)
    assert (again["predicted"], again["done_before"], again["outdated"]) == (0, 1, 0)


def test_a_corrected_side_and_view_make_the_answer_anew(study, ask, tmp_path):
    say(study, "L", "MLO")
    (wrong,) = ask(study)["per_image"]
    before = segmentation_of(tmp_path, wrong)
    say(study, "R", "CC")
    said = ask(study)
    (right,) = said["per_image"]
    assert (said["predicted"], said["outdated"], said["done_before"]) == (1, 1, 0)
    assert (right["laterality"], right["view"]) == ("R", "CC")
    after = segmentation_of(tmp_path, right)
    region = after.SegmentSequence[0].AnatomicRegionSequence[0]
    assert region.AnatomicRegionModifierSequence[0].CodeMeaning == "Right"
    assert after.SOPInstanceUID != before.SOPInstanceUID
    (page,) = (tmp_path / "out/studies").iterdir()
    assert "<b>R CC</b>" in page.read_text()
    assert "<b>L MLO</b>" not in page.read_text()


@pytest.mark.parametrize(
    "cells", [{"spacing_mm": "0.25"}, {"vendor": "Other"}, {"patient_id": "Q"}]
)
def test_any_other_cell_that_counts_does_so_too(study, ask, cells):
    ask(study)
    say(study, **cells)
    assert ask(study)["outdated"] == 1


def test_one_pixel_makes_it_another_image_and_the_old_answer_goes(study, ask, tmp_path):
    pixels = draw("aurora", "R", "CC")[2]
    store(study / "x1.dcm", pixels)
    (before,) = ask(study)["per_image"]
    pixels[pixels.shape[0] // 2, pixels.shape[1] // 2] += 1
    store(study / "x1.dcm", pixels)
    said = ask(study)
    (after,) = said["per_image"]
    assert (said["predicted"], said["replaced"], said["images"]) == (1, 1, 1)
    assert after["image"] != before["image"]
    assert not (tmp_path / "out/images" / before["image"]).exists()


def test_a_row_that_is_rejected_now_leaves_no_answer_behind(study, ask, predict):
    ask(study)
    say(study, laterality="sideways")
    result = predict(study)
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert (document["replaced"], document["images"]) == (1, 0)


def test_an_image_that_is_not_offered_again_stays_and_that_is_said(study, ask, write_phantom):
    ask(study)
    said = ask(write_phantom("borealis", "L", folder="more").path)
    assert (said["images"], said["of_earlier_calls"]) == (2, 1)


def test_a_file_that_moved_is_known_again_under_its_new_name(study, ask):
    ask(study)
    moved = study.rename(study.with_name("moved"))
    said = ask(moved)
    assert (said["done_before"], said["predicted"]) == (1, 0)
    assert said["per_image"][0]["source"] == str(moved / "x1.dcm")


def test_one_weight_of_network_or_painter_is_another_question(study, ask, predict, plan, tmp_path):
    ask(study)
    for name, seeds in {"network": {"seed": 1}, "painter": {"painter": False}}.items():
        other = save_model(tmp_path / f"{name}.safetensors", plan, threshold=0.3, **seeds)
        refused = predict(study, model=other).exception
        assert isinstance(refused, OutputError)
        assert "sha256 was" in str(refused)
        assert "name a new folder" in str(refused)


def test_another_secret_of_the_site_is_another_question(study, ask, predict, tmp_path, monkeypatch):
    ask(study)
    monkeypatch.setenv("MAMFED_SECRET", str(tmp_path / "another-secret"))
    refused = predict(study).exception
    assert isinstance(refused, OutputError)
    assert "site was" in str(refused)


def test_other_code_is_another_question(study, ask, predict, monkeypatch):
    ask(study)
    monkeypatch.setattr("mamfed_client.prediction.folder.ANSWER_VERSION", 99)
    assert "answer version was 1, is now 99" in str(predict(study).exception)


def test_predictions_are_no_input_wherever_they_lie(write_phantom, predict, tmp_path):
    first = write_phantom("aurora", "L").path
    inside = first.parent / "predictions"
    assert predict(first.parent, out=inside).exit_code == 0
    write_phantom("aurora", "R")
    result = predict(first.parent, out=inside)
    document = json.loads(result.stdout)
    assert (document["predicted"], document["done_before"], document["images"]) == (1, 1, 2)
    assert document["own_files"] > 0
    assert document["rejected"] == {}


def test_the_terminal_says_what_was_left_out(study, checkpoint, tmp_path):
    (study / "noise.dcm").write_bytes(os.urandom(3000))
    command = ["predict", str(study / "x1.dcm"), str(study / "noise.dcm")]
    command += ["--allow", "no laterality", "--checkpoint", str(checkpoint)]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert "1 cannot be used: unreadable image" in result.output


class TestIdentity:
    def test_three_women_with_one_patient_id_have_three_pages(self, write_phantom, ask, tmp_path):
        for number, (side, view) in enumerate([("L", "CC"), ("R", "CC"), ("L", "MLO")]):
            who = {"PatientID": "ANON", "StudyDate": "20260101"}
            who |= {"StudyInstanceUID": f"1.2.3.{number}", "PatientBirthDate": f"196{number}0101"}
            write_phantom("aurora", side, view, **who)
        said = ask(tmp_path / "in")
        assert said["studies"] == 3
        assert len(list((tmp_path / "out/studies").iterdir())) == 3
        (line,) = said["contradictions"]
        assert line.startswith("3 studies share one Patient ID but have 3 birth dates")
        assert "ANON" not in json.dumps(said["contradictions"])

    def test_a_study_whose_images_contradict_each_other_is_said(self, write_phantom, ask, tmp_path):
        for side, born in (("L", "19600101"), ("R", "19700101")):
            who = {"StudyInstanceUID": "1.2.3", "PatientBirthDate": born}
            write_phantom("aurora", side, "CC", **who)
        said = ask(tmp_path / "in")
        assert said["studies"] == 1
        assert "its images name 2 birth dates" in said["contradictions"][0]
        (page,) = (tmp_path / "out/studies").iterdir()
        assert "its images name 2 birth dates" in page.read_text()
