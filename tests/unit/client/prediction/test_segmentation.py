"""What comes out is a DICOM segmentation that other programs take."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import SegmentationStorage, generate_uid

from mamfed_client.imaging.mammogram import Facts
from mamfed_client.prediction.derived_object import Origin
from mamfed_client.prediction.segmentation import encode_segmentation
from mamfed_client.prediction.source_header import SourceError

IN_ORTHANC = Path(__file__).with_name("in_orthanc.py")
ORIGIN = Origin("a" * 64, "b" * 64, 0.3)
SOURCE = {
    "PatientID": "SECRET-1",
    "PatientName": "Secret^Name",
    "PatientBirthDate": "19600131",
    "PatientSex": "F",
    "StudyDate": "20240102",
    "StudyTime": "101500",
    "StudyInstanceUID": "1.2.3.1",
    "SeriesInstanceUID": "1.2.3.2",
    "SOPInstanceUID": "1.2.3.3",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2",
    "PatientOrientation": "P\\L",
    "Manufacturer": "Aurora Imaging",
}
SHAPE = (60, 47)
RIGHT = Facts(laterality="R", view="CC")


def blob(dtype=bool):
    pixels = np.zeros(SHAPE, dtype)
    pixels[10:20, 30:41] = 1
    return pixels


def segmented(pixels=None, source=SOURCE, facts=RIGHT, lesions=1):
    pixels = blob() if pixels is None else pixels
    return encode_segmentation(pixels, source, facts, lesions, ORIGIN).data


def read(data):
    return pydicom.dcmread(io.BytesIO(data))


def test_pydicom_reads_back_the_mask_that_was_written():
    dataset = read(segmented())
    assert dataset.SOPClassUID == SegmentationStorage
    assert np.array_equal(dataset.pixel_array, blob())
    assert (dataset.PatientID, str(dataset.PatientName)) == ("SECRET-1", "Secret^Name")
    assert (dataset.StudyInstanceUID, dataset.Modality) == ("1.2.3.1", "SEG")
    assert dataset.ContentDescription == "1 region marked at probability 0.3 or more"
    assert dataset.ContentQualification == "RESEARCH"


def test_it_refers_to_its_source_pixel_by_pixel():
    dataset = read(segmented())
    frame = dataset.PerFrameFunctionalGroupsSequence[0]
    image = frame.DerivationImageSequence[0].SourceImageSequence[0]
    assert image.ReferencedSOPInstanceUID == "1.2.3.3"
    assert image.SpatialLocationsPreserved == "YES"
    assert (dataset.Rows, dataset.Columns) == SHAPE
    assert "FrameOfReferenceUID" not in dataset
    series = dataset.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "1.2.3.2"
    assert list(dataset.PatientOrientation) == ["P", "L"]


def test_highdicom_reads_back_what_it_is_and_who_made_it():
    found = highdicom.seg.Segmentation.from_dataset(read(segmented()))
    segment = found.get_segment_description(1)
    assert segment.segment_label == "Suspected malignancy"
    assert segment.segmented_property_type == highdicom.sr.CodedConcept("52988006", "SCT", "Lesion")
    assert [region.value for region in segment.anatomic_regions] == ["76752008"]
    algorithm = segment.algorithm_identification[0]
    assert algorithm.AlgorithmName == "mamfed"
    assert f"weights_sha256={'a' * 64}" in algorithm.AlgorithmParameters
    pixels = found.get_pixels_by_source_instance(["1.2.3.3"], segment_numbers=[1])
    assert np.array_equal(pixels[0, ..., 0], blob())


@pytest.mark.parametrize(("side", "code"), [("R", "24028007"), ("L", "7771000")])
def test_the_side_of_the_breast_is_coded(side, code):
    region = read(segmented(facts=Facts(laterality=side))).SegmentSequence[0].AnatomicRegionSequence
    assert region[0].AnatomicRegionModifierSequence[0].CodeValue == code


def test_an_unknown_side_is_not_made_up():
    segment = read(segmented(facts=Facts())).SegmentSequence[0]
    assert "AnatomicRegionModifierSequence" not in segment.AnatomicRegionSequence[0]


def test_nothing_found_is_a_segmentation_that_says_so():
    dataset = read(segmented(np.zeros(SHAPE, bool), lesions=0))
    assert dataset.NumberOfFrames == 1
    assert dataset.pixel_array.max() == 0
    assert dataset.ContentDescription == "Nothing marked at probability 0.3 or more"


def test_a_fractional_one_holds_probabilities_to_a_255th():
    probability = np.random.default_rng(0).random(SHAPE, np.float32)
    dataset = read(segmented(probability))
    assert (dataset.SegmentationType, dataset.SegmentationFractionalType) == (
        "FRACTIONAL",
        "PROBABILITY",
    )
    back = dataset.pixel_array / dataset.MaximumFractionalValue
    assert np.abs(back - probability).max() <= 0.5 / 255 + 1e-6


def test_the_same_image_and_model_give_the_same_uids_and_others_others():
    one, again = read(segmented()), read(segmented())
    assert one.SOPInstanceUID == again.SOPInstanceUID
    assert one.SeriesInstanceUID == again.SeriesInstanceUID
    others = [
        read(segmented(source=SOURCE | {"SOPInstanceUID": "1.2.3.4"})),
        read(segmented(blob(np.float32))),
        read(encode_segmentation(blob(), SOURCE, Facts(), 1, ORIGIN._replace(threshold=0.4)).data),
    ]
    uids = {dataset.SOPInstanceUID for dataset in (one, *others)}
    assert len(uids) == 4


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
@pytest.mark.parametrize("spelled", ["", "not a uid", "1..2", "1." * 40])
def test_a_source_that_cannot_be_referred_to_is_refused_by_keyword(keyword, spelled):
    with pytest.raises(SourceError, match=keyword) as caught:
        segmented(source=SOURCE | {keyword: spelled})
    assert not spelled or spelled not in str(caught.value)


@pytest.mark.parametrize("sop_class", ["1.2.840.113619.4.26", "1.2.840.10008.1.1"])
def test_a_private_kind_of_image_or_no_image_is_refused(sop_class):
    with pytest.raises(SourceError, match="SOPClassUID"):
        segmented(source=SOURCE | {"SOPClassUID": sop_class})


@pytest.mark.parametrize(
    "odd",
    [
        {"PatientSex": "female"},
        {"PatientBirthDate": "31.1.1960", "StudyDate": "2024-01-02", "StudyTime": "10:15"},
        {"PatientName": "Odd " * 40, "AccessionNumber": "y" * 40},
        {"PatientName": "Mass-Test_P_00173_LEFT_CC", "StudyID": "line\nbreak"},
        {"PatientName": "M\u00fcller^\u0141ucja", "PatientID": "\u00e4-1"},
        {"PatientOrientation": "CC"},
        {"StudyDate": "20241332", "PatientBirthDate": "00000000", "StudyTime": "996199"},
        {"PatientName": "a=b=c=d=e", "AccessionNumber": "c\\d"},
        {"StudyInstanceUID": "1.02.3", "StudyDescription": "e" * 200},
    ],
)
def test_odd_values_cost_neither_the_segmentation_nor_a_patients_secrecy(odd, recwarn, capfd):
    dataset = read(segmented(source=SOURCE | odd))
    assert np.array_equal(dataset.pixel_array, blob())
    said = [str(warning.message) for warning in recwarn] + list(capfd.readouterr())
    assert not any(value in text for value in odd.values() for text in said)


@pytest.mark.parametrize("spelled", ["x" * 100, "two\\patients", "line\nbreak"])
def test_a_patient_who_cannot_be_named_alike_has_no_segmentation(spelled):
    with pytest.raises(SourceError, match="PatientID") as caught:
        segmented(source=SOURCE | {"PatientID": spelled})
    assert spelled not in str(caught.value)


def test_a_source_without_a_patient_gives_one_without():
    source = {keyword: text for keyword, text in SOURCE.items() if keyword != "PatientID"}
    assert read(segmented(source=source)).PatientID == ""


def test_names_keep_their_letters():
    dataset = read(segmented(source=SOURCE | {"PatientName": "M\u00fcller^\u0141ucja"}))
    assert str(dataset.PatientName) == "M\u00fcller^\u0141ucja"


def complaints(path):
    """Ask dciodvfy of Debian's dicom3tools, David Clunie's validator, for errors."""
    found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    lines = (found.stdout + found.stderr).splitlines()
    assert "Segmentation" in lines, lines
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="no dciodvfy: apt-get install dicom3tools")
class TestDciodvfy:
    @pytest.mark.parametrize("pixels", [blob(), blob(np.float32), np.zeros(SHAPE, bool)])
    @pytest.mark.parametrize("facts", [Facts(), Facts(laterality="L", view="MLO")])
    def test_finds_no_error(self, tmp_path, pixels, facts):
        (tmp_path / "s.dcm").write_bytes(segmented(pixels, facts=facts))
        assert complaints(tmp_path / "s.dcm") == []

    def test_finds_none_where_the_source_says_little(self, tmp_path):
        needed = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
        (tmp_path / "s.dcm").write_bytes(segmented(source={k: SOURCE[k] for k in needed}))
        assert complaints(tmp_path / "s.dcm") == []

    def test_would_have_found_one(self, tmp_path):
        dataset = read(segmented())
        del dataset.PatientOrientation
        dataset.save_as(tmp_path / "s.dcm")
        assert "PatientOrientation" in complaints(tmp_path / "s.dcm")[0]


STANDARD = Path(highdicom.__file__).parent / "_standard"
"""PS3.3 as JSON, which highdicom brings: its own data, not what it writes by."""
FUNCTIONAL_GROUPS = "segmentation-multi-frame-functional-groups"


def items_at(dataset, path):
    items = [dataset]
    for keyword in path:
        items = [item for one in items for item in one.get(keyword) or ()]
    return items


def lacking(dataset):
    """Name what a mandatory module asks for and the data set has not: of type 1 also if empty.

    Not of the functional groups: each is shared or of a frame, which the tables do not tell.
    """
    modules = json.loads((STANDARD / "iod_module_map.json").read_bytes())["segmentation"]
    attributes = json.loads((STANDARD / "module_attribute_map.json").read_bytes())
    mandatory = {m["key"] for m in modules if m["usage"] == "M"} - {FUNCTIONAL_GROUPS}
    assert len(mandatory) > 10
    return {
        one["keyword"]
        for module in mandatory
        for one in attributes[module]
        for item in items_at(dataset, one["path"])
        if (one["type"] == "1" and item.get(one["keyword"]) in (None, ""))
        or (one["type"] == "2" and one["keyword"] not in item)
    }


@pytest.mark.skipif(not STANDARD.is_dir(), reason="this highdicom brings no tables")
def test_it_has_what_the_tables_of_the_standard_ask_for():
    for pixels in (blob(), blob(np.float32)):
        dataset = read(segmented(pixels))
        assert lacking(dataset) == set()
    del dataset.ContentLabel
    dataset.SegmentSequence[0].SegmentLabel = ""
    assert lacking(dataset) == {"ContentLabel", "SegmentLabel"}


def can_isolate():
    if not (shutil.which("Orthanc") and shutil.which("ip") and shutil.which("unshare")):
        return False
    return (
        subprocess.run(["unshare", "--net", "--map-root-user", "true"], check=False).returncode == 0
    )


@pytest.mark.skipif(not can_isolate(), reason="no Orthanc, or no network of its own for it")
def test_an_archive_files_it_beside_its_source_and_shows_it(tmp_path, write_phantom, predicted):
    source = write_phantom("borealis", "R", "MLO", FrameOfReferenceUID=generate_uid()).path
    ((_, folder),) = predicted(source)
    (tmp_path / "orthanc").mkdir()
    isolated = ["unshare", "--net", "--map-root-user", sys.executable, IN_ORTHANC]
    command = [*isolated, tmp_path / "orthanc", source, folder / "segmentation.dcm"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    image, segmentation = json.loads(run.stdout)
    assert (image["status"], segmentation["status"]) == ("Success", "Success")
    assert image["study"] == segmentation["study"]
    assert image["series"] != segmentation["series"]
    assert segmentation["tags"]["Modality"] == "SEG"
    assert segmentation["preview_bytes"] > 0
