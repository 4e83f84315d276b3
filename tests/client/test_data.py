"""``mamfed-client data check``, ``prepare`` and ``show`` on folders in real file formats."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from mamfed_client.cli import app
from mamfed_client.cohort import load_cohort
from mamfed_common.errors import DataError

RUN = CliRunner()
SECRETS = ("secret-id", "Secret", "P-one", "P-two")


@pytest.fixture
def call():
    def invoke(*words, code=0):
        result = RUN.invoke(app, ["data", *map(str, words)])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return invoke


@pytest.fixture
def check(call):
    def run(folder, *options, code=0):
        return json.loads(call("check", folder, "--format", "json", *options, code=code).stdout)

    return run


@pytest.fixture
def prepare(call):
    def run(folder, out, *options):
        words = ("prepare", folder, "--out", out, "--size", 64, "--format", "json", *options)
        return json.loads(call(*words).stdout)

    return run


@pytest.fixture
def mixed(folder):
    """Two benign patients, two malignant ones with masks, and three rows that cannot be used."""
    folder.benign("P-one", density="b").benign("P-two").malignant("P-three").malignant("P-four")
    folder.malignant("P-five").benign("P-six").benign("P-seven")
    folder.write()
    (folder.path / "masks/5.png").unlink()
    (folder.path / "images/6.png").write_bytes(b"no picture")
    cut = (folder.path / "images/7.png").read_bytes()
    (folder.path / "images/7.png").write_bytes(cut[: len(cut) // 2])
    return folder.path


def content_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_check_counts_what_each_stage_could_use_and_every_reject(check, mixed):
    found = check(mixed)
    assert (found["files"], found["accepted"], found["layout"]) == (7, 4, "labels")
    assert found["rejected"]["missing mask"] == 1
    assert sum(found["rejected"].values()) == 3
    assert found["stage1"] == {"images": 2, "patients": 2}
    assert found["stage2"] == {"images": 2, "patients": 2}
    assert found["densities"] == {"unknown": 3, "B": 1}


def test_check_changes_nothing_and_names_nobody(call, mixed):
    before = content_of(mixed)
    result = call("check", mixed)
    assert content_of(mixed) == before
    for word in ("P-one", "images/", ".png"):
        assert word not in result.output


def test_list_names_every_file_and_what_became_of_it(check, mixed):
    items = check(mixed, "--list")["items"]
    assert [item["file"] for item in items] == [f"images/{n}.png" for n in range(1, 8)]
    assert [item["status"] for item in items] == ["accepted"] * 4 + ["rejected"] * 3
    assert items[4]["reason"] == "missing mask"
    assert items[0].keys() >= {"reason", "laterality", "view", "vendor", "spacing_mm"}
    assert (items[0]["laterality"], items[0]["view"]) == ("L", "CC")


def test_a_folder_of_nothing_usable_ends_with_exit_code_3(check, folder):
    folder.benign("P-one").write()
    (folder.path / "images/1.png").write_bytes(b"")
    assert check(folder.path, code=3)["accepted"] == 0


@pytest.fixture
def export(tmp_path, drawing):
    """A folder of two DICOM files without a table; one is no mammogram."""
    breast = np.rint(drawing.breast()[0] * 4095).astype(np.uint16)
    (tmp_path / "export").mkdir()
    usual = {"Modality": "MG", "ImageLaterality": "R", "ViewPosition": "MLO"}
    drawing.dicom(tmp_path / "export/a", breast, Manufacturer="HOLOGIC, Inc.", **usual)
    drawing.dicom(tmp_path / "export/b.dcm", breast, **usual | {"Modality": "CR"})
    return tmp_path / "export"


def test_a_folder_without_a_table_is_read_by_its_dicom_files(check, export):
    found = check(export)
    assert (found["layout"], found["files"], found["accepted"]) == ("dicom", 2, 1)
    assert found["rejected"] == {"wrong modality": 1}
    assert found["views"] == {"MLO": 1}
    assert found["lateralities"] == {"R": 1}
    assert found["patients"] == 1
    assert found["left_out"] == {"no pathology and no BI-RADS category": 1}


def test_a_file_that_names_no_patient_is_rejected_where_no_table_does(check, export, drawing):
    breast = np.rint(drawing.breast(seed=1)[0] * 4095).astype(np.uint16)
    usual = {"Modality": "MG", "ImageLaterality": "R", "PatientID": "", "SOPInstanceUID": "1.2.3"}
    drawing.dicom(export / "c.dcm", breast, **usual)
    found = check(export)
    assert found["rejected"] == {"no patient": 1, "wrong modality": 1}
    assert (found["files"], found["accepted"]) == (3, 1)


def test_a_blank_table_of_a_folder_without_one_is_filled_in_and_read(call, check, export):
    result = call("check", export, "--table", export / "labels.csv")
    assert "no table says what the images show" in " ".join(result.output.split())
    with (export / "labels.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["image"], row["laterality"], row["view"]) == ("a", "R", "MLO")
    assert (row["vendor"], row["pathology"], row["mask"]) == ("Hologic", "", "")
    assert "secret" not in row["patient_id"]
    with (export / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row | {"birads": "2"})
    assert check(export)["stage1"] == {"images": 1, "patients": 1}
    result = call("check", export, "--table", export / "labels.csv", code=1)
    assert "exists; name another file" in str(result.exception)


def test_the_same_picture_under_another_name_is_one(check, folder):
    folder.benign("P-one").benign("P-two").write()
    content = (folder.path / "images/1.png").read_bytes()
    (folder.path / "images/2.png").write_bytes(content)
    found = check(folder.path)
    assert (found["files"], found["accepted"]) == (2, 1)
    assert found["rejected"] == {"duplicate image": 1}
    assert found["patients_sharing_a_picture"] == 2


def test_an_allowed_reason_is_no_reason(check, tmp_path, drawing):
    breast = np.rint(drawing.breast()[0] * 4095).astype(np.uint16)
    usual = {"Modality": "MG", "ImageLaterality": "R", "BurnedInAnnotation": "YES"}
    (tmp_path / "export").mkdir()
    drawing.dicom(tmp_path / "export/a.dcm", breast, **usual)
    assert check(tmp_path / "export", code=3)["rejected"] == {"burned-in annotation": 1}
    assert check(tmp_path / "export", "--allow", "burned-in annotation")["accepted"] == 1


def test_a_second_check_reads_nothing_until_a_file_changes(check, mixed, monkeypatch):
    first = check(mixed)
    monkeypatch.setattr("mamfed_client.intake.read_row", None)
    assert check(mixed) == first
    assert check(mixed, "--dry-run")["to_read"] == 0
    os.utime(mixed / "images/1.png", ns=(1, 1))
    assert check(mixed, "--dry-run")["to_read"] == 1


def test_a_dry_run_opens_no_image_and_writes_nothing(prepare, mixed, tmp_path):
    forecast = prepare(mixed, tmp_path / "out", "--dry-run")
    assert (forecast["files"], forecast["to_read"], forecast["already_rejected"]) == (7, 6, 1)
    assert forecast["sample_bytes"] == 6 * 64 * 64 * 3
    assert not (tmp_path / "out").exists()


def test_training_from_a_prepared_folder_needs_the_files_no_more(prepare, mixed, tmp_path):
    assert prepare(mixed, tmp_path / "out")["accepted"] == 4
    options = {"size": 64, "seed": 0, "val_fraction": 0, "test_fraction": 0}
    direct = load_cohort("here", mixed, cache_dir=tmp_path / "cache", **options)
    mixed.rename(tmp_path / "gone")
    cohort = load_cohort("here", tmp_path / "out", cache_dir=tmp_path / "none", **options)
    assert cohort.counts == direct.counts
    for purpose in ("benign", "malignant", "without_malignancy"):
        mine, theirs = cohort.samples(purpose, "train"), direct.samples(purpose, "train")
        assert len(mine) == len(theirs) > 0
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.mask, other.mask)


def test_another_size_than_the_prepared_one_is_refused(prepare, mixed, tmp_path):
    prepare(mixed, tmp_path / "out")
    with pytest.raises(DataError, match="prepared at 64, the plan asks for 32"):
        load_cohort(
            "here",
            tmp_path / "out",
            size=32,
            seed=0,
            val_fraction=0,
            test_fraction=0,
            cache_dir=tmp_path,
        )


def test_nothing_in_a_prepared_folder_names_a_patient_or_a_file(prepare, tmp_path, drawing):
    breast = np.rint(drawing.breast()[0] * 4095).astype(np.uint16)
    folder = tmp_path / "P-one"
    folder.mkdir()
    drawing.dicom(folder / "P-two.dcm", breast, Modality="MG", ImageLaterality="L")
    prepare(folder, tmp_path / "out")
    for name, content in content_of(tmp_path / "out").items():
        for word in SECRETS:
            assert word not in name
            assert word.encode() not in content
        assert (tmp_path / "out" / name).stat().st_mode & 0o077 == 0


def test_a_patient_keeps_his_part_of_the_split_when_others_come(prepare, folder, tmp_path):
    for number in range(12):
        folder.malignant(f"P{number}")
    folder.write()
    prepare(folder.path, tmp_path / "out")

    def parts():
        options = {"size": 64, "seed": 3, "val_fraction": 0.2, "test_fraction": 0.3}
        cohort = load_cohort("here", tmp_path / "out", cache_dir=tmp_path, **options)
        return {p.case.row.patient_id: p.part for p in cohort.placed}

    before = parts()
    for number in range(12, 20):
        folder.malignant(f"P{number}")
    folder.write()
    prepare(folder.path, tmp_path / "out")
    after = parts()
    assert len(after) == 20
    assert {patient: after[patient] for patient in before} == before
    assert set(before.values()) == {"train", "val", "test"}


def test_an_encrypted_folder_needs_its_key(prepare, mixed, tmp_path):
    prepare(mixed, tmp_path / "out", "--key", tmp_path / "key")
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    options = {"size": 64, "seed": 0, "val_fraction": 0, "test_fraction": 0}
    with pytest.raises(DataError, match="name the key file with --key"):
        load_cohort("here", tmp_path / "out", cache_dir=tmp_path, **options)
    key = tmp_path / "key"
    cohort = load_cohort("here", tmp_path / "out", cache_dir=tmp_path, key_path=key, **options)
    assert cohort.samples("malignant", "train")[0].mask.any()


def test_a_prepared_folder_takes_no_other_size_and_no_other_data_set(call, mixed, tmp_path):
    call("prepare", mixed, "--out", tmp_path / "out", "--size", 64)
    result = call("prepare", mixed, "--out", tmp_path / "out", "--size", 96, code=1)
    assert "prepared at 64" in str(result.exception)
    result = call("prepare", mixed, "--out", tmp_path, "--size", 64, code=1)
    assert "holds other files" in str(result.exception)
    mixed.rename(tmp_path / "moved")
    result = call("prepare", tmp_path / "moved", "--out", tmp_path / "out", "--size", 64, code=1)
    assert "prepared from another folder" in str(result.exception)


def test_what_has_gone_from_the_folder_goes_from_the_samples(prepare, folder, tmp_path):
    folder.benign("P-one").benign("P-two").write()
    prepare(folder.path, tmp_path / "out")
    assert len(list((tmp_path / "out/samples").glob("*/*"))) == 2
    folder.rows.pop()
    folder.write()
    prepare(folder.path, tmp_path / "out")
    assert len(list((tmp_path / "out/samples").glob("*/*"))) == 1


def test_verify_finds_a_changed_file_and_a_damaged_sample(prepare, folder, tmp_path, drawing):
    folder.benign("P-one").benign("P-two").write()
    prepare(folder.path, tmp_path / "out")
    good = content_of(tmp_path / "out/samples")
    image = folder.path / "images/1.png"
    stat = image.stat()
    damaged = next((tmp_path / "out/samples").glob("*/*"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    prepare(folder.path, tmp_path / "out")
    assert content_of(tmp_path / "out/samples") != good
    prepare(folder.path, tmp_path / "out", "--verify")
    assert content_of(tmp_path / "out/samples") == good
    other = image.read_bytes()[: -stat.st_size // 2] + b"x" * (stat.st_size // 2)
    image.write_bytes(other[: stat.st_size].ljust(stat.st_size, b"x"))
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert prepare(folder.path, tmp_path / "out")["accepted"] == 2
    assert prepare(folder.path, tmp_path / "out", "--verify")["accepted"] == 1


def test_show_writes_a_picture_and_says_what_is_known(call, prepare, mixed, tmp_path):
    prepare(mixed, tmp_path / "out")
    words = ("show", tmp_path / "out", 4, "--out", tmp_path / "a.png", "--format", "json")
    facts = json.loads(call(*words).stdout)
    assert facts["lesion_pixels"] > 0
    assert facts["serves"] == ["malignant"]
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape == (64, 192, 3)
    assert (picture[:, 128:] == 255).all(axis=-1).sum() == facts["lesion_pixels"]
    result = call("show", tmp_path / "out", 6, code=1)
    assert "row 6 was rejected: missing mask" in str(result.exception)
    result = call("show", tmp_path / "out", 99, code=1)
    assert "not one of this folder's rows" in str(result.exception)


def sha256_of(folder):
    return {n: hashlib.sha256(c).hexdigest() for n, c in content_of(folder).items()}


def test_killed_at_any_time_prepare_ends_with_the_same_bytes(folder, tmp_path):
    for number in range(15):
        folder.malignant(f"P{number}").benign(f"N{number}")
    folder.write()
    words = [sys.executable, "-m", "mamfed_client", "data", "prepare", str(folder.path)]

    def start(out):
        return subprocess.Popen([*words, "--size", "64", "--out", str(out)], stderr=subprocess.PIPE)

    undisturbed = start(tmp_path / "undisturbed")
    assert undisturbed.wait(60) == 0
    rng = np.random.default_rng(0)
    for _ in range(4):
        killed = start(tmp_path / "killed")
        time.sleep(rng.uniform(0.4, 1.6))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert start(tmp_path / "killed").wait(60) == 0
    assert sha256_of(tmp_path / "killed") == sha256_of(tmp_path / "undisturbed")


def test_two_preparations_of_one_folder_keep_out_of_each_others_way(call, mixed, tmp_path):
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = call("prepare", mixed, "--out", tmp_path / "out", "--size", 64, code=1)
    assert "another process prepares this folder" in str(result.exception)
