"""``mamfed-client data prepare`` and ``show`` on folders in real file formats."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from mamfed_client.imaging import preprocess
from mamfed_client.preparation.cohort import load_cohort
from mamfed_client.sandbox.decoder_pool import DecoderPool
from mamfed_common.errors import DataError

SECRETS = ("secret-id", "Secret", "P-one", "P-two")


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


def test_a_decoder_reads_the_next_file_while_an_image_is_prepared(
    prepare, folder, tmp_path, monkeypatch
):
    folder.benign("P-one").benign("P-two").write()
    idle = []

    def counted(*arguments, **options):
        idle.append(pools[0]._decoders.qsize())
        return preprocess.prepare(*arguments, **options)

    class Pool(DecoderPool):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            pools.append(self)

    pools = []
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("mamfed_client.sandbox.decoder_pool.DecoderPool", Pool)
    monkeypatch.setattr("mamfed_client.preparation.prepare_row.prepare", counted)
    assert prepare(folder.path, tmp_path / "out")["accepted"] == 2
    assert idle[-1] == 1


def test_another_size_than_the_prepared_one_is_refused(prepare, mixed, tmp_path):
    prepare(mixed, tmp_path / "out")
    with pytest.raises(DataError, match="prepared at 64 pixels, but the plan uses 32"):
        load_cohort(
            "here",
            tmp_path / "out",
            size=32,
            seed=0,
            val_fraction=0,
            test_fraction=0,
            cache_dir=tmp_path,
        )


def test_nothing_in_a_prepared_folder_names_a_patient_or_a_file(
    prepare, tmp_path, drawing, content_of
):
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


def test_a_prepared_folder_knows_patients_of_a_table_by_pseudonyms_only(prepare, mixed, tmp_path):
    prepare(mixed, tmp_path / "out")
    content = (tmp_path / "out/manifest.json").read_text() + (
        tmp_path / "out/journal.jsonl"
    ).read_text()
    for word in ("P-one", "P-seven", "images", ".png"):
        assert word not in content


def test_what_kills_left_behind_is_cleared_away(prepare, folder, tmp_path):
    folder.benign("P-one").write()
    prepare(folder.path, tmp_path / "out")
    left = [tmp_path / "out/.manifest.json.x.draft", tmp_path / "out/samples/ab/.y.z.draft"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half a file")
    prepare(folder.path, tmp_path / "out")
    assert not any(path.exists() for path in left)


def test_allowing_a_reason_later_reads_the_refused_files_again(call, prepare, tmp_path, drawing):
    breast = np.rint(drawing.breast()[0] * 4095).astype(np.uint16)
    (tmp_path / "export").mkdir()
    usual = {"Modality": "MG", "ImageLaterality": "R", "BurnedInAnnotation": "YES"}
    drawing.dicom(tmp_path / "export/a.dcm", breast, **usual)
    words = ("prepare", tmp_path / "export", "--out", tmp_path / "out", "--size", 64)
    call(*words, code=3)
    found = prepare(tmp_path / "export", tmp_path / "out", "--allow", "burned-in annotation")
    assert found["accepted"] == 1


def test_a_patient_keeps_his_part_of_the_split_when_others_come(prepare, folder, tmp_path):
    for number in range(12):
        folder.malignant(f"P{number}")
    folder.write()
    prepare(folder.path, tmp_path / "out")

    def parts():
        options = {"size": 64, "seed": 3, "val_fraction": 0.2, "test_fraction": 0.3}
        cohort = load_cohort("here", tmp_path / "out", cache_dir=tmp_path, **options)
        return {p.case.row.patient_id: p.part for p in cohort.images}

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


def test_another_key_or_another_secret_is_refused_before_anything_is_read(
    call, prepare, mixed, tmp_path, content_of
):
    out, words = tmp_path / "out", ("prepare", mixed, "--out", tmp_path / "out", "--size", 64)
    prepare(mixed, out, "--key", tmp_path / "key")
    before = content_of(out)
    result = call(*words, "--key", tmp_path / "typo", code=1)
    assert "no such key file" in str(result.exception)
    (tmp_path / "typo").write_bytes(bytes(32))
    (tmp_path / "typo").chmod(0o600)
    result = call(*words, "--key", tmp_path / "typo", code=1)
    assert "encrypted with another key" in str(result.exception)
    (tmp_path / "cache/secret").unlink()
    result = call(*words, "--key", tmp_path / "key", code=1)
    assert "another site secret" in str(result.exception)
    assert content_of(out) == before


def test_a_disk_that_is_not_mounted_does_not_empty_the_prepared_folder(
    call, prepare, mixed, tmp_path, content_of
):
    prepare(mixed, tmp_path / "out")
    before = content_of(tmp_path / "out")
    (mixed / "images").rename(tmp_path / "unmounted")
    result = call("prepare", mixed, "--out", tmp_path / "out", "--size", 64, code=1)
    assert "only 0 of 4 images are left; is a disk missing?" in str(result.exception)
    assert content_of(tmp_path / "out") == before


def test_the_output_is_not_written_into_the_data_set(call, prepare, mixed, tmp_path):
    result = call("prepare", mixed, "--out", mixed / "out", code=1)
    assert "choose a place outside of it" in str(result.exception)
    prepare(mixed, tmp_path / "out")
    result = call("check", tmp_path / "out", code=1)
    assert "a prepared folder" in str(result.exception)


def test_what_has_gone_from_the_folder_goes_from_the_samples(prepare, folder, tmp_path):
    folder.benign("P-one").benign("P-two").write()
    prepare(folder.path, tmp_path / "out")
    assert len(list((tmp_path / "out/samples").glob("*/*"))) == 2
    folder.rows.pop()
    folder.write()
    prepare(folder.path, tmp_path / "out")
    assert len(list((tmp_path / "out/samples").glob("*/*"))) == 1


def test_verify_finds_a_damaged_sample_and_every_call_a_changed_file(
    prepare, folder, tmp_path, content_of
):
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
    assert prepare(folder.path, tmp_path / "out")["accepted"] == 1, "its time was put back"


def test_show_writes_a_picture_and_says_what_is_known(call, prepare, mixed, tmp_path):
    prepare(mixed, tmp_path / "out")
    words = ("show", tmp_path / "out", 4, "--out", tmp_path / "a.png", "--format", "json")
    facts = json.loads(call(*words).stdout)
    assert facts["lesion_pixels"] > 0
    assert facts["serves"] == ["malignant"]
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape == (64, 192, 3)
    assert (picture[:, 128:] == 255).all(axis=-1).sum() == facts["lesion_pixels"]
    assert facts["picture"] == str(tmp_path / "a.png")
    call(*words)  # the same picture again
    call("show", tmp_path / "out", 4, "--out", tmp_path / "b.png", "--sample")
    alone = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)
    assert (alone.shape, alone.dtype) == ((64, 64), np.uint16)
    assert np.array_equal(alone >> 8, picture[:, :64, 0])
    result = call("show", tmp_path / "out", 6, code=1)
    assert "row 6 was rejected: missing mask" in str(result.exception)
    result = call("show", tmp_path / "out", 99, code=1)
    assert "is not a row of this folder" in str(result.exception)
    result = call("show", tmp_path / "out", 4, "--out", mixed / "images/4.dcm", code=1)
    assert "not a .png file" in str(result.exception)
    result = call("show", mixed, 4, code=1)
    assert "not a prepared folder" in str(result.exception)


def test_picture_and_sample_have_names_of_their_own_and_say_where_they_are(
    call, prepare, mixed, tmp_path, monkeypatch
):
    prepare(mixed, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    for words, name in (((), "row-4.png"), (("--sample",), "row-4-sample.png")):
        assert f"\npicture: {name}\n" in call("show", "out", 4, *words).stdout
    assert cv2.imread("row-4.png").shape != cv2.imread("row-4-sample.png").shape
    prepare(mixed, tmp_path / "other", "--size", 96)
    result = call("show", "other", 4, code=1)
    assert "row-4.png: another picture exists; name a new file with --out" in str(result.exception)
    assert cv2.imread("row-4.png").shape == (64, 192, 3)
    call("show", "out", 4)


def test_killed_at_any_time_prepare_ends_with_the_same_bytes(folder, tmp_path, content_of):
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
    assert content_of(tmp_path / "killed") == content_of(tmp_path / "undisturbed")


def test_two_preparations_of_one_folder_keep_out_of_each_others_way(call, mixed, tmp_path):
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = call("prepare", mixed, "--out", tmp_path / "out", "--size", 64, code=1)
    assert "another command is already running here" in str(result.exception)
