"""What a hospital does with ``mamfed-client predict``."""

import json
import os
import stat
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_client.imaging.rejections import Reason
from mamfed_common.errors import CheckpointError, DataError, OutputError, PlanError
from mamfed_common.model.config import NetworkConfig
from mamfed_common.plan import Stage
from mamfed_simulations.phantoms.corpus import write_bad_files

from .conftest import save_model


def document_of(result):
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout)


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_a_study_gives_segmentations_pictures_records_and_a_page(
    write_phantom, predicted, tmp_path
):
    for side in "LR":
        for view in ("CC", "MLO"):
            write_phantom("aurora", side, view)
    records = predicted(tmp_path / "in")
    assert len(records) == 4
    for _, folder in records:
        names = {path.name for path in folder.iterdir()}
        assert {"segmentation.dcm", "overlay.png", "healthy.png", "reconstruction.png"} < names
        assert {"difference.png", "result.json"} < names
    (page,) = (tmp_path / "out" / "studies").iterdir()
    assert page.read_text().count("<figure>") == 4 + 4 * 4
    assert page.name in (tmp_path / "out" / "index.html").read_text()
    assert modes(tmp_path / "out") == {0o600}


def test_a_record_says_what_was_found_by_which_model(write_phantom, predicted, plan):
    write = write_phantom("borealis", "R", "MLO")
    ((record, folder),) = predicted(write.path)
    assert record == json.loads((folder / "result.json").read_text())
    assert record["notice"].startswith("research use only")
    assert record["spacing_mm"] == 0.5
    assert (record["rows"], record["columns"]) == (300, 240)
    assert record["source"] == str(write.path)
    model = record["model"]
    assert model["plan_sha256"] == plan.sha256()
    assert (model["threshold"], model["threshold_from"]) == (0.3, "checkpoint")
    assert (model["stage"], model["server_round"]) == ("finetuning", 3)
    assert record["score"] >= record["lesions"][0]["peak"] >= record["lesions"][0]["score"] >= 0.3
    total = sum(lesion["pixels"] for lesion in record["lesions"])
    assert total == record["marked_pixels"] or record["lesions_left_out"]
    for lesion in record["lesions"]:
        assert lesion["area_mm2"] == pytest.approx(lesion["pixels"] * 0.25)
        assert (lesion["laterality"], lesion["view"]) == ("R", "MLO")


def test_nothing_found_is_said(write_phantom, predict, tmp_path):
    file = write_phantom().path
    document = document_of(predict(file, options=["--threshold", 0.9999]))
    assert (document["with_lesions"], document["without_lesions"]) == (0, 1)
    (folder,) = (tmp_path / "out" / "images").iterdir()
    record = json.loads((folder / "result.json").read_text())
    assert (record["lesions"], record["marked_pixels"]) == ([], 0)
    assert record["model"]["threshold_from"] == "--threshold"
    assert pydicom.dcmread(folder / "segmentation.dcm").pixel_array.max() == 0
    assert "No pixel of any image reaches" in next((tmp_path / "out/studies").iterdir()).read_text()


def test_a_second_call_skips_what_is_done_and_a_third_does_what_came(write_phantom, predict):
    first = write_phantom("aurora", "L").path
    folder = first.parent
    assert document_of(predict(folder))["predicted"] == 1
    again = document_of(predict(folder))
    assert (again["predicted"], again["done_before"], again["images"]) == (0, 1, 1)
    write_phantom("aurora", "R")
    third = document_of(predict(folder))
    assert (third["predicted"], third["done_before"], third["images"]) == (1, 1, 2)
    assert third["studies"] == 1


def test_a_call_that_was_killed_before_its_record_does_the_image_again(
    write_phantom, predict, tmp_path
):
    file = write_phantom().path
    document_of(predict(file))
    (record,) = (tmp_path / "out/images").glob("*/result.json")
    record.write_text(record.read_text()[:40])
    (page,) = (tmp_path / "out/studies").iterdir()
    page.unlink()
    assert document_of(predict(file))["predicted"] == 1
    assert json.loads(record.read_text())["rows"] == 300
    assert page.exists()


def test_a_page_that_a_killed_call_did_not_write_is_written(write_phantom, predict, tmp_path):
    file = write_phantom().path
    document_of(predict(file))
    (page,) = (tmp_path / "out/studies").iterdir()
    page.unlink()
    assert document_of(predict(file))["predicted"] == 0
    assert page.exists()


def test_one_bad_file_costs_that_file(write_phantom, predict, tmp_path):
    good = write_phantom().path
    (good.parent / "broken.dcm").write_bytes(good.read_bytes()[:900])
    (good.parent / "noise.dcm").write_bytes(os.urandom(5000))
    document = document_of(predict(good.parent))
    assert document["predicted"] == 1
    assert sum(document["rejected"].values()) == 2
    named = json.loads((tmp_path / "out/predictions.json").read_text())["per_rejected"]
    assert sorted(Path(r["source"]).name for r in named) == ["broken.dcm", "noise.dcm"]
    assert all(r["reason"] in document["rejected"] for r in named)


def test_nothing_usable_ends_with_code_3_and_says_why(tmp_path, predict):
    (tmp_path / "noise.dcm").write_bytes(os.urandom(5000))
    result = predict(tmp_path / "noise.dcm")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["rejected"] == {"unreadable image": 1}


def test_inputs_are_left_as_they_are(write_phantom, predict, content_of):
    file = write_phantom().path
    before, stat_before = content_of(file.parent), file.stat()
    document_of(predict(file.parent))
    assert content_of(file.parent) == before
    assert file.stat().st_mtime_ns == stat_before.st_mtime_ns


def test_the_same_image_offered_twice_is_predicted_once(write_phantom, predict):
    file = write_phantom().path
    (file.parent / "copy.dcm").write_bytes(file.read_bytes())
    document = document_of(predict(file.parent))
    assert (document["predicted"], document["duplicates"]) == (1, 1)


def test_a_batch_gives_what_single_images_give(write_phantom, predict, tmp_path):
    for side in "LR":
        write_phantom("cirrus", side)
    document_of(predict(tmp_path / "in", out=tmp_path / "one", options=["--batch", 1]))
    document_of(predict(tmp_path / "in", out=tmp_path / "two", options=["--batch", 2]))
    for one in (tmp_path / "one/images").iterdir():
        masks = [
            pydicom.dcmread(tmp_path / name / "images" / one.name / "segmentation.dcm").pixel_array
            for name in ("one", "two")
        ]
        assert (masks[0] != masks[1]).mean() < 0.001


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(write_phantom, predict, tmp_path):
    write_phantom("aurora", "L")
    write_phantom("aurora", "R")
    document = document_of(predict(tmp_path / "in", options=["--dry-run"]))
    assert (document["dry_run"], document["to_predict"], document["offered"]) == (True, 2, 2)
    assert document["model"]["threshold"] == 0.3
    assert not (tmp_path / "out").exists()


class TestFolder:
    def test_of_another_model_is_not_touched(
        self, write_phantom, predict, tmp_path, plan, content_of
    ):
        file = write_phantom().path
        document_of(predict(file))
        before = content_of(tmp_path / "out")
        other = save_model(tmp_path / "other.safetensors", plan, seed=1, threshold=0.3)
        result = predict(file, model=other)
        assert isinstance(result.exception, OutputError)
        assert "weights sha256" in str(result.exception)
        assert content_of(tmp_path / "out") == before

    @pytest.mark.parametrize("options", [["--threshold", 0.4], ["--segmentation", "fractional"]])
    def test_of_other_settings_is_not_touched(self, write_phantom, predict, options):
        file = write_phantom().path
        document_of(predict(file))
        result = predict(file, options=options)
        assert isinstance(result.exception, OutputError)
        assert options[0][2:] in str(result.exception)

    def test_with_something_else_in_it_is_refused(self, write_phantom, predict, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("mine")
        result = predict(write_phantom().path)
        assert isinstance(result.exception, OutputError)
        assert "holds other files" in str(result.exception)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]

    def test_names_no_patient_and_no_file(self, write_phantom, predict, tmp_path):
        document_of(predict(write_phantom().path))
        names = " ".join(str(p.relative_to(tmp_path)) for p in (tmp_path / "out").rglob("*"))
        assert "SECRET" not in names
        assert "aurora" not in names
        for page in (tmp_path / "out").rglob("*.html"):
            assert "SECRET" not in page.read_text()


class TestCheckpoint:
    @pytest.fixture(params=["stage 1", "another architecture", "cut", "flipped bit", "missing"])
    def bad(self, request, tmp_path, plan):
        path = tmp_path / "bad.safetensors"
        if request.param == "stage 1":
            return save_model(path, plan, stage=Stage.PRETRAINING)
        if request.param == "another architecture":
            other = NetworkConfig(channels=(8, 8), first_skip_level=1, stem=1)
            save_model(path, plan.model_copy(update={"network": other}))
            path.write_bytes(with_other_channels(path.read_bytes()))
            return path
        if request.param == "missing":
            return path
        data = bytearray(save_model(path, plan).read_bytes())
        if request.param == "cut":
            del data[len(data) // 2 :]
        else:
            data[-5] ^= 1
        path.write_bytes(data)
        return path

    def test_that_cannot_be_used_is_a_clear_error_and_nothing_is_written(
        self, bad, write_phantom, predict, tmp_path
    ):
        result = predict(write_phantom().path, model=bad)
        assert isinstance(result.exception, CheckpointError)
        assert str(bad) in str(result.exception)
        assert "\n" not in str(result.exception)
        assert not (tmp_path / "out").exists()

    def test_that_is_a_run_folder_is_told_which_file_to_name(
        self, write_phantom, predict, tmp_path
    ):
        result = predict(write_phantom().path, model=tmp_path)
        assert isinstance(result.exception, CheckpointError)
        assert "checkpoints/best.safetensors" in str(result.exception)


def with_other_channels(data):
    """Let a header name other channels than its weights have."""
    said, claimed = (rb"\n        %d,\n        8\n" % channels for channels in (8, 4))
    assert said in data
    return data.replace(said, claimed)


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 7])
def test_an_impossible_threshold_is_refused(write_phantom, predict, tmp_path, threshold):
    result = predict(write_phantom().path, options=["--threshold", threshold])
    assert isinstance(result.exception, PlanError)
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_not_there_is_an_error_before_any_work(write_phantom, predict, tmp_path):
    result = predict(write_phantom().path, tmp_path / "gone.dcm")
    assert isinstance(result.exception, DataError)
    assert "gone.dcm: no such file" in str(result.exception)
    assert not (tmp_path / "out").exists()


class TestPictures:
    def test_are_predicted_without_a_segmentation_and_that_is_said(self, folder, predict, tmp_path):
        folder.malignant("P1", spacing_mm="0.1").benign("P2").write()
        document = document_of(predict(folder.path))
        assert (document["predicted"], document["segmentations"]) == (2, 0)
        assert document["without_segmentation"] == {"a picture has no DICOM header to refer to": 2}
        records = json.loads((tmp_path / "out/predictions.json").read_text())["per_image"]
        assert {(r["laterality"], r["laterality_from"]) for r in records} == {("L", "table")}
        assert {r["spacing_mm"] for r in records} == {0.1, None}

    def test_of_unknown_spacing_have_areas_in_pixels_alone(self, folder, predict, tmp_path):
        folder.benign("P2").write()
        document_of(predict(folder.path))
        (record,) = json.loads((tmp_path / "out/predictions.json").read_text())["per_image"]
        assert record["lesions"]
        assert {lesion["area_mm2"] for lesion in record["lesions"]} == {None}


class TestPreparedFolder:
    @pytest.fixture
    def prepared(self, folder, call, tmp_path):
        folder.malignant("P1").benign("P2").benign("P3").write()
        call("prepare", folder.path, "--out", tmp_path / "prepared", "--size", 96)
        return tmp_path / "prepared"

    def test_gives_the_marks_that_its_files_give(self, prepared, folder, predict, tmp_path):
        document = document_of(predict(prepared, out=tmp_path / "a", options=["--row", 3]))
        assert (document["predicted"], document["segmentations"]) == (1, 0)
        document_of(predict(folder.path / "images/2.png", out=tmp_path / "b"))
        (one,), (other,) = (
            json.loads((tmp_path / out / "predictions.json").read_text())["per_image"]
            for out in "ab"
        )
        assert one["source"].endswith("prepared: row 3")
        assert one["marked_pixels"] == other["marked_pixels"] > 0
        assert one["lesions"][0]["centre_row"] == other["lesions"][0]["centre_row"]

    def test_is_taken_whole_without_rows(self, prepared, predict):
        assert document_of(predict(prepared))["predicted"] == 3

    def test_lacks_a_row_that_was_asked_for(self, prepared, predict):
        result = predict(prepared, options=["--row", 99])
        assert isinstance(result.exception, DataError)
        assert "row 99" in str(result.exception)

    def test_of_another_size_is_refused(self, folder, call, predict, tmp_path):
        folder.benign("P2").write()
        call("prepare", folder.path, "--out", tmp_path / "small", "--size", 64)
        result = predict(tmp_path / "small")
        assert isinstance(result.exception, DataError)
        assert "prepared at 64" in str(result.exception)

    def test_has_a_damaged_sample_which_costs_that_row(self, prepared, predict):
        sample = max(prepared.glob("samples/*/*"))
        data = bytearray(sample.read_bytes())
        data[-3] ^= 1
        sample.write_bytes(data)
        document = document_of(predict(prepared))
        assert (document["predicted"], document["rejected"]) == (2, {"unreadable image": 1})

    def test_rows_of_another_folder_make_no_sense(self, write_phantom, predict):
        result = predict(write_phantom().path, options=["--row", 2])
        assert isinstance(result.exception, DataError)
        assert "--row" in str(result.exception)


def test_a_side_that_no_one_names_is_refused_unless_allowed(write_phantom, predict):
    file = write_phantom("aurora", "R", ImageLaterality="", AnatomicRegionSequence=[]).path
    path = file.rename(file.with_name("image"))
    assert predict(path).exit_code == 3
    document = document_of(predict(path, options=["--allow", "no laterality"]))
    assert (document["predicted"], document["side_unknown"]) == (1, 1)


def test_the_help_teaches():
    shown = " ".join(CliRunner().invoke(app, ["predict", "--help"]).output.replace("│", "").split())
    assert "Files, folders to search for images" in shown
    assert "from the checkpoint, else its plan" in shown
    assert "Exit code 3" in shown


def test_pictures_show_the_file_the_way_it_is(write_phantom, predicted):
    ((_, folder),) = predicted(write_phantom("aurora", "R", "CC").path)
    shown = cv2.imread(str(folder / "overlay.png"), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == (300, 240)
    half = shown.shape[1] // 2
    assert shown[:, half:].mean() > 1.5 * shown[:, :half].mean(), "the chest wall is at the right"
    drawn = cv2.imread(str(folder / "reconstruction.png"), cv2.IMREAD_UNCHANGED)
    assert (drawn.dtype, drawn.shape) == (np.uint8, (300, 240))


def test_the_healthy_picture_is_the_image_but_for_what_is_marked(
    write_phantom, predict, predicted, plan, tmp_path
):
    file = write_phantom("aurora", "R", "CC").path
    model = save_model(tmp_path / "high.safetensors", plan, threshold=0.55)
    assert predict(file, model=model).exit_code == 0
    ((record, folder),) = predictions(tmp_path / "out")
    assert record["lesions"]
    names = ("healthy", "overlay")
    healthy, shown = (cv2.imread(str(folder / f"{n}.png"), cv2.IMREAD_GRAYSCALE) for n in names)
    assert min(lesion["box"][0] for lesion in record["lesions"]) > 170, "marked at the lower edge"
    # Contrast is stretched for the network, so grey levels differ; place and structure do not.
    assert np.corrcoef(healthy[:150].ravel(), shown[:150].ravel())[0, 1] > 0.97
    assert np.corrcoef(healthy[200:250].ravel(), shown[200:250].ravel())[0, 1] < 0.9


def predictions(out):
    document = json.loads((out / "predictions.json").read_text())
    return [(record, out / "images" / record["image"]) for record in document["per_image"]]


def test_a_model_without_stage_1_has_no_healthy_picture_and_says_so(
    write_phantom, predict, plan, tmp_path
):
    model = save_model(tmp_path / "bare.safetensors", plan, painter=False, threshold=0.3)
    assert predict(write_phantom("aurora", "R", "CC").path, model=model).exit_code == 0
    ((record, _),) = predictions(tmp_path / "out")
    assert record["model"]["painter_sha256"] is None
    assert "healthy.png" not in record["pictures"]
    (page,) = (tmp_path / "out" / "studies").iterdir()
    assert "This model has no painter" in page.read_text()


def test_where_nothing_is_marked_there_is_nothing_to_redraw(write_phantom, predict, plan, tmp_path):
    model = save_model(tmp_path / "sure.safetensors", plan, threshold=0.999)
    assert predict(write_phantom("aurora", "R", "CC").path, model=model).exit_code == 0
    ((record, _),) = predictions(tmp_path / "out")
    assert not record["lesions"]
    assert "healthy.png" not in record["pictures"]


def test_every_kind_of_bad_file_is_counted_by_its_reason_and_nobody_is_named(
    predict, tmp_path, recwarn
):
    expected = write_bad_files(tmp_path / "bad", seed=5)
    result = predict(tmp_path / "bad")
    document = document_of(result)
    reasons = Counter(str(reason) for _, reason in expected if reason != Reason.DUPLICATE_IMAGE)
    assert Counter(document["rejected"]) == reasons
    alike = sum(reason == Reason.DUPLICATE_IMAGE for _, reason in expected)
    assert document["predicted"] + document["duplicates"] == 1 + alike
    said = result.output + "".join(str(warning.message) for warning in recwarn)
    assert "SYN" not in said, "how phantoms' patients are called"
