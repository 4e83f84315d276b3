"""From an archive and back: 60 studies of three vendors are pulled by three sites, each by its own
worklist, trained on together, predicted, and the results are in the archive beside their images."""

import csv
import json

import cv2
import highdicom
import pydicom
import pytest
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from tests.processes.orthanc import missing, write_home
from tests.processes.phantoms import small_plan

from mamfed_simulations.phantoms.vendors import VENDORS

ABSENT = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ABSENT), reason=ABSENT)]
LESION = Code("4147007", "SCT", "Mass")
KIND = Code("49755003", "SCT", "Morphologically Altered Structure")


def rows_of(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def uid_of(path):
    return pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID


def write_worklist(path, phantoms):
    """Name the vendor's studies, and what the radiologists said of each."""
    said = {row["patient_id"][3:]: row["birads"] for row in rows_of(phantoms / "labels.csv")}
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["accession", "birads"], *said.items()])
    return path


def masks_of(phantoms):
    """Return the outlines of a vendor's malignant images, by SOP Instance UID."""
    return {
        uid_of(phantoms / row["image"]): phantoms / row["mask"]
        for row in rows_of(phantoms / "labels.csv")
        if row["mask"]
    }


def as_segmentation(image, mask, path):
    """Write what a radiologist has outlined at a workstation, as its DICOM SEG."""
    source = pydicom.dcmread(image)
    for keyword in ("PatientBirthDate", "PatientSex", "StudyID", "StudyTime", "StudyDate"):
        setattr(source, keyword, source.get(keyword) or "")
    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Malignant mass",
        segmented_property_category=KIND,
        segmented_property_type=LESION,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 0,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        series_instance_uid=generate_uid(),
        series_number=7,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Reading Room",
        manufacturer_model_name="Workstation",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)


def add_masks(folder, masks, by):
    """Lay the outlines beside the pulled images, and name them in the table that pull wrote."""
    rows = rows_of(folder / "labels.csv")
    (folder / "masks").mkdir()
    for number, row in enumerate(rows):
        mask = masks.get(uid_of(folder / row["image"]))
        row["mask"] = ""
        if mask is not None:
            row["mask"] = f"masks/{number}.{'dcm' if by == 'seg' else 'png'}"
            if by == "seg":
                as_segmentation(folder / row["image"], mask, folder / row["mask"])
            else:
                (folder / row["mask"]).write_bytes(mask.read_bytes())
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def sites(archive, archive_phantoms, tmp_path_factory):
    """Three sites, each with what its own worklist brought from the archive."""
    top = tmp_path_factory.mktemp("sites")
    folders = {}
    for name, way in zip(VENDORS, ("dicomweb", "dimse", "move"), strict=True):
        site, home = top / name, write_home(top / name / "home")
        folders[name] = site / "exports"
        worklist = write_worklist(site / "worklist.csv", archive_phantoms / name)
        by = ("--move",) if way == "move" else ("--by", way)
        words = ("--home", home, "--out", folders[name], "--worklist", worklist, *by)
        done = archive.client("pacs", "pull", *words, "--format", "json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["studies_complete"] == 20
        by = "png" if name == "aurora" else "seg"
        add_masks(folders[name], masks_of(archive_phantoms / name), by)
    return folders


@pytest.fixture(scope="module", autouse=True)
def own_secret(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("own")
        patch.setenv("MAMFED_SECRET", str(folder / "secret"))
        patch.setenv("MAMFED_CACHE", str(folder / "cache"))
        yield


@pytest.fixture(scope="module")
def run(archive, sites, tmp_path_factory):
    """A federation of two stages that trained on it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "plan.yaml").write_text(small_plan().to_yaml())
    named = [word for name, path in sites.items() for word in ("--site", f"{name}={path}")]
    words = ("run", *named, "--plan", folder / "plan.yaml", "--threads", 1, "--out", folder / "run")
    done = archive.command("mamfed-simulate", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "run"


def test_every_site_can_use_what_it_has_pulled(archive, sites):
    for folder in sites.values():
        done = archive.client("data", "check", folder, "--format", "json")
        found = json.loads(done.stdout)
        assert (found["accepted"], found["rejected"]) == (40, {})


def test_the_federation_trained_on_every_site_in_both_stages(run):
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [done["stage"] for done in rounds] == ["pretraining", "finetuning", "finetuning"]
    for done in rounds:
        assert done["accepted"].keys() == set(VENDORS)
        for accepted in done["accepted"].values():
            counts = accepted["num_examples"]
            if done["stage"] == "finetuning":
                assert counts["malignant"] == 6
                assert counts["without_malignancy"] >= 18
            else:
                assert counts["benign"] >= 18
    assert {found["images"] for found in rounds[-1]["validation"].values()} == {2}


def test_results_are_in_the_archive_and_name_their_images(archive, sites, run, tmp_path):
    folder = sites["borealis"]
    images = [folder / row["image"] for row in rows_of(folder / "labels.csv") if row["mask"]]
    known = {uid_of(image): pydicom.dcmread(image).StudyInstanceUID for image in images}
    home, predictions = folder.parent / "home", tmp_path / "predictions"
    model = run / "checkpoints/best.safetensors"
    words = ("predict", *images, "--checkpoint", model, "--out", predictions, "--home", home)
    done = archive.client(*words, "--as", "seg,sr,gsps,sc,cad", "--send")
    assert done.returncode == 0, done.stderr
    sent = list(predictions.rglob("*.dcm"))
    assert len(sent) == 5 * len(images) == 50
    assert "50 of 50 DICOM objects sent now" in done.stdout
    held = {
        each["MainDicomTags"]["SOPInstanceUID"]: each["ID"]
        for each in archive.ask("/instances?expand")
    }
    for path in sent:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        tags = archive.ask(f"/instances/{held[header.SOPInstanceUID]}/tags?simplify")
        assert tags["StudyInstanceUID"] in known.values()
        named = {uid for uid in known if uid in json.dumps(tags)}
        assert len(named) == 1
        assert known[named.pop()] == tags["StudyInstanceUID"]
