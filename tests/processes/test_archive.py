"""A hospital's archive, Orthanc: 60 studies of three vendors come out, and results go back."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest
from tests.processes.orthanc import DICOM, HTTP, missing, write_home
from tests.processes.phantoms import small_plan
from tests.unit.client.prediction.conftest import save_model

from mamfed_simulations.phantoms.vendors import VENDORS

ABSENT = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ABSENT), reason=ABSENT)]
CT = "1.2.840.10008.5.1.4.1.1.2"
PROGRAM = Path(sys.executable).with_name("mamfed-client")
ALL = ("--from", "2000-01-01")
IMAGES = 120


@pytest.fixture
def phantoms(archive_phantoms):
    return archive_phantoms


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MAMFED_SECRET", str(tmp_path / "secret"))
    monkeypatch.setenv("MAMFED_CACHE", str(tmp_path / "cache"))
    return write_home(tmp_path / "home")


def files(folder):
    return sorted(folder.glob("images/*/*.dcm"))


def uids(paths):
    return {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in paths}


def pull(archive, home, out, *words):
    done = archive.client("pacs", "pull", "--home", home, "--out", out, *ALL, "--format", "json",
                          *words)  # fmt: skip
    return done, json.loads(done.stdout) if done.stdout else None


def last_line(done):
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def names_nobody(done, phantoms):
    """Tell whether an output holds no identifier of any patient, study or object."""
    said = done.stdout + done.stderr
    header = pydicom.dcmread(next(phantoms.rglob("*.dcm")), stop_before_pixels=True)
    known = {header.PatientID, header.StudyInstanceUID, header.SOPInstanceUID, "Phantom^"}
    return not any(word in said for word in known) and "1.2.826" not in said and "SYN" not in said


def test_every_way_is_checked_in_one_line(archive, home):
    done = archive.client("pacs", "check", "--home", home)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split(": ", 1)[0] for line in lines] == ["ok"] * 4
    assert [line.rsplit(": ", 1)[1] for line in lines] == [
        "QIDO-RS answers", "C-ECHO answers", "C-FIND answers", "C-GET accepted",
    ]  # fmt: skip


@pytest.mark.parametrize("way", [("--by", "dicomweb"), ("--by", "dimse"), ("--move",)])
def test_sixty_studies_come_whole_and_once(archive, phantoms, home, tmp_path, way):
    out = tmp_path / "out"
    done, result = pull(archive, home, out, *way, "--dry-run")
    assert (result["studies"], result["images"]) == (60, IMAGES)
    vendors = result["images_by_vendor"]
    assert sum(vendors.values()) == IMAGES
    assert len(vendors.keys() - {"not said"}) == 3  # some machines leave out their maker
    assert not out.exists()
    done, result = pull(archive, home, out, *way)
    assert done.returncode == 0, done.stderr
    assert result["outcomes"]["pulled"] == IMAGES == sum(result["outcomes"].values())
    assert result["studies_complete"] == 60
    assert uids(files(out)) == uids(phantoms.rglob("*.dcm"))
    assert names_nobody(done, phantoms)
    assert {path.stat().st_mode & 0o777 for path in files(out)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (out, out / "images")} == {0o700}
    before = {path: path.stat().st_mtime_ns for path in files(out)}
    done, result = pull(archive, home, out, *way)
    assert result["outcomes"]["before"] == IMAGES
    assert {path: path.stat().st_mtime_ns for path in files(out)} == before


def test_a_worklist_brings_labels_and_results_go_back(archive, phantoms, home, tmp_path):
    worklist, out = tmp_path / "worklist.csv", tmp_path / "out"
    accessions = {}
    for name in VENDORS:
        rows = list(csv.DictReader((phantoms / name / "labels.csv").open()))
        for row in (rows[0], rows[-1]):
            accessions[row["patient_id"][3:]] = row["birads"]
    with worklist.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows([["Accession", "BIRADS"], *accessions.items(), ["NOBODY", "1"]])
    done, result = pull(archive, home, out, "--worklist", worklist)
    assert done.returncode == 0, done.stderr
    assert (result["outcomes"]["pulled"], result["worklist_rows_without_study"]) == (12, 1)
    labels = list(csv.DictReader((out / "labels.csv").open()))
    assert len(labels) == 12
    assert sorted(row["birads"] for row in labels) == sorted(2 * list(accessions.values()))
    assert "SYN" not in (out / "labels.csv").read_text()

    checked = json.loads(archive.client("data", "check", out, "--format", "json").stdout)
    assert (checked["accepted"], checked["rejected"], checked["layout"]) == (12, {}, "labels")

    model, predictions = tmp_path / "model.safetensors", tmp_path / "predictions"
    save_model(model, small_plan())
    command = ("predict", out, "--checkpoint", model, "--out", predictions, "--home", home)
    done = archive.client(*command, "--as", "seg,sr,gsps,sc", "--send")
    assert done.returncode == 0, done.stderr
    sent = list(predictions.rglob("*.dcm"))
    assert len(sent) >= 24
    assert f"{len(sent)} of {len(sent)} DICOM objects sent now" in done.stdout
    known = uids(phantoms.rglob("*.dcm"))
    studies, listed = _studies(archive), archive.ask("/instances?expand")
    series = {each["ID"]: each["ParentStudy"] for each in archive.ask("/series?expand")}
    stored = {
        each["MainDicomTags"]["SOPInstanceUID"]: series[each["ParentSeries"]] for each in listed
    }
    for path in sent:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert stored[header.SOPInstanceUID] == studies[header.StudyInstanceUID]
        named = (e for e in header.iterall() if e.keyword == "ReferencedSOPInstanceUID")
        assert known & {element.value for element in named}
    again = archive.client("pacs", "send", predictions, "--home", home)
    assert again.returncode == 0
    assert f"0 of {len(sent)} DICOM objects sent now" in again.stdout
    by_dimse = archive.client("pacs", "send", predictions, "--home", home, "--by", "dimse",
                              "--format", "json")  # fmt: skip
    assert by_dimse.returncode == 0, by_dimse.stderr
    assert json.loads(by_dimse.stdout)["sent"] == len(sent)


def _studies(archive):
    """Return Orthanc's names of all studies by UID, in the order in which it lists them."""
    listed = archive.ask("/studies?expand")
    return {each["MainDicomTags"]["StudyInstanceUID"]: each["ID"] for each in listed}


def test_an_archive_killed_midway_loses_nothing(archive, phantoms, home, tmp_path):
    out = tmp_path / "out"
    words = ("pacs", "pull", "--home", home, "--out", out, *ALL, "--max-per-minute", "900")
    running = subprocess.Popen(
        archive.enter(PROGRAM, *words),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait(lambda: len(files(out)) >= 10)
    archive.kill()
    _, errors = running.communicate(timeout=120)
    archive.start()
    assert running.returncode == 10
    line = errors.strip().splitlines()[-1]
    assert "cannot be reached" in line
    assert "repeat the same command" in line
    kept = {path: path.stat().st_mtime_ns for path in files(out)}
    assert 10 <= len(kept) < IMAGES
    assert f"{IMAGES - len(kept)} of {IMAGES} images are not here yet" in line
    done, result = pull(archive, home, out)
    assert done.returncode == 0, done.stderr
    assert result["outcomes"]["before"] == len(kept)
    assert result["outcomes"]["pulled"] == IMAGES - len(kept)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert uids(files(out)) == uids(phantoms.rglob("*.dcm"))


@pytest.mark.parametrize("way", ["dicomweb", "dimse"])
def test_a_study_deleted_meanwhile_is_counted(archive, phantoms, home, tmp_path, way):
    out, studies = tmp_path / "out", _studies(archive)
    words = ("pacs", "pull", "--home", home, "--out", out, *ALL, "--max-per-minute", "600",
             "--by", way, "--format", "json")  # fmt: skip
    running = subprocess.Popen(
        archive.enter(PROGRAM, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _wait(lambda: len(files(out)) >= 2)
    here = {pydicom.dcmread(f, stop_before_pixels=True).StudyInstanceUID for f in files(out)}
    order = list(studies)  # the one furthest from what has come so far
    gone = order[0] if order.index(min(here, key=order.index)) > len(order) / 2 else order[-1]
    assert gone not in here
    archive.ask(f"/studies/{studies[gone]}", method="DELETE")
    output, errors = running.communicate(timeout=180)
    archive.store(sorted(phantoms.rglob("*.dcm")))
    assert running.returncode == 0, errors
    result = json.loads(output)
    assert (result["outcomes"]["pulled"], result["outcomes"]["gone"]) == (IMAGES - 2, 2)
    assert (result["studies_complete"], result["studies_without_image"]) == (59, 1)
    _, result = pull(archive, home, out)
    assert (result["outcomes"]["pulled"], result["outcomes"]["before"]) == (2, IMAGES - 2)


@pytest.mark.parametrize("way", ["dicomweb", "dimse"])
def test_a_ct_among_them_is_left_out(archive, phantoms, home, tmp_path, way):
    source = pydicom.dcmread(sorted(phantoms.rglob("*.dcm"))[0])
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = CT
    source.Modality = "CT"
    added = []
    for number, series in enumerate((source.SeriesInstanceUID, "1.2.3.4")):
        source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.5.{number}"
        source.SeriesInstanceUID = series
        added.append(tmp_path / f"{number}.dcm")
        source.save_as(added[-1])
    archive.store(added)
    patient = source.PatientID
    try:
        done, result = pull(archive, home, tmp_path / "out", "--by", way, "--patient", patient)
    finally:
        for uid in ("1.2.3.5.0", "1.2.3.5.1"):
            _delete(archive, uid)
    assert done.returncode == 0, done.stderr
    assert result["other_objects"] == {"CT": 1, "CT Image Storage": 1}
    assert result["outcomes"]["pulled"] == 2 == sum(result["outcomes"].values())


@pytest.mark.parametrize("way", ["dicomweb", "dimse"])
def test_a_mammogram_without_modality_is_found_by_its_patient(
    archive, phantoms, home, tmp_path, way
):
    source = pydicom.dcmread(sorted(phantoms.rglob("*.dcm"))[0])
    source.PatientID, source.Modality = "STRIPPED", ""
    source.StudyInstanceUID, source.SeriesInstanceUID = "1.2.3.7", "1.2.3.7.1"
    source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = "1.2.3.7.2"
    source.save_as(tmp_path / "stripped.dcm")
    archive.store([tmp_path / "stripped.dcm"])
    try:
        words = ("--by", way, "--patient", "STRIPPED")
        done, result = pull(archive, home, tmp_path / "out", *words)
    finally:
        _delete(archive, "1.2.3.7.2")
    assert done.returncode == 0, done.stderr
    assert result["outcomes"]["pulled"] == 1


def _delete(archive, uid):
    for each in archive.ask("/instances?expand"):
        if each["MainDicomTags"]["SOPInstanceUID"] == uid:
            archive.ask(f"/instances/{each['ID']}", method="DELETE")


def test_a_wrong_password_is_one_line(archive, home, tmp_path):
    (home / "keys" / "pacs").write_text("guessed\n")
    for words in (("check",), ("pull", "--out", tmp_path / "out", *ALL)):
        done = archive.client("pacs", *words, "--home", home)
        assert done.returncode == 10
        assert "refuses this site (HTTP 401)" in (done.stdout + done.stderr)
        assert "guessed" not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_ae_title_is_one_line(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("MAMFED_SECRET", str(tmp_path / "secret"))
    stranger = {"host": "127.0.0.1", "port": DICOM, "called": "ARCHIVE", "calling": "STRANGER"}
    home = write_home(tmp_path / "home", dimse=stranger)
    done, _ = pull(archive, home, tmp_path / "out", "--by", "dimse")
    assert done.returncode == 10
    assert "refuses the association from STRANGER" in last_line(done)
    assert "administrator" in last_line(done)


def test_an_archive_that_is_down_is_one_line(archive, tmp_path):
    closed = {"url": f"http://127.0.0.1:{HTTP + 1}/dicom-web"}
    home = write_home(tmp_path / "home", dicomweb=closed)
    done = archive.client("pacs", "check", "--home", home)
    assert done.returncode == 10
    assert f"fails: DICOMweb at 127.0.0.1:{HTTP + 1}: cannot be reached" in done.stdout


def _wait(until):
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)
