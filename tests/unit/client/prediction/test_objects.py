"""What predict writes beside the segmentation: every object is valid, and marks the same pixels."""

import io
import json
import shutil
import subprocess
import sys

import highdicom
import numpy as np
import pydicom
import pytest

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.display_steps import DisplaySteps, Window
from mamfed_client.imaging.doubts import Doubt
from mamfed_client.imaging.mammogram import Facts
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.prediction.kinds import FILES
from mamfed_client.prediction.polygons import MOST_POINTS, area_of, longest_diameter, polygon_of
from mamfed_client.sandbox.decoder import Decoder

from .made_objects import ORIGIN, SHAPE, SOURCE, made_of, marks, read, shown_by
from .test_segmentation import IN_ORTHANC, can_isolate

RIGHT = Facts(laterality="R", view="CC", spacing_mm=0.1)
KINDS = tuple(FILES)
NO_TABLE = np.empty(0, np.uint16)
TABLE = np.arange(0, 65536, 16, dtype=np.uint16)
INVERTED = DisplaySteps(1.0, 0.0, Window(500.0, 900.0, "SIGMOID"), NO_TABLE, True)
BY_TABLE = DisplaySteps(1.0, -3.0, None, np.append(TABLE, np.uint16(65535)), False)


def annotated(data, tmp_path, shape=SHAPE, instance="1.2.3.3"):
    (tmp_path / "a.dcm").write_bytes(data)
    return read_annotations([Annotation(tmp_path / "a.dcm", "i.dcm", instance=instance)], *shape)


@pytest.mark.parametrize("kind", ["seg", "sr", "gsps"])
def test_what_is_written_is_read_back_as_the_same_mask(tmp_path, kind):
    marked = marks()
    back = annotated(made_of(marked, KINDS).files[kind], tmp_path)
    assert np.array_equal(back.mask, marked.mask)
    assert [doubt.doubt for doubt in back.doubts] == [Doubt.MASK_BY_PROGRAM]


@pytest.mark.parametrize("kind", ["seg", "sr", "gsps"])
def test_the_marks_of_another_image_are_doubted(tmp_path, kind):
    back = annotated(made_of(marks(), KINDS).files[kind], tmp_path, instance="1.2.9")
    assert Doubt.MASK_OF_ANOTHER in {doubt.doubt for doubt in back.doubts}


def test_a_hole_stays_a_hole_and_corners_connect(tmp_path):
    region = np.ones((9, 9), bool)
    region[3:5, 3:6] = region[6, 2] = False
    region[0, :5] = region[1, :4] = False
    region[0, 0] = region[1, 1] = region[1, 0] = True
    marked = marks(region)
    polygon = polygon_of(marked.shapes[0], (0, 0))
    assert area_of(polygon) == pytest.approx(marked.lesions[0].pixels)
    back = annotated(made_of(marked, ["sr"]).files["sr"], tmp_path, region.shape)
    assert np.array_equal(back.mask, marked.mask)


def test_a_long_outline_is_simplified_within_two_percent():
    y, x = np.mgrid[:2200, :2000]
    wavy = 900 + 40 * np.sin(np.arctan2(y - 1100, x - 1000) * 60)
    region = np.hypot(y - 1100, x - 1000) < wavy
    polygon = polygon_of(region, (0, 0))
    assert len(polygon) <= MOST_POINTS
    assert area_of(polygon) == pytest.approx(region.sum(), rel=0.02)


def test_the_longest_diameter_is_from_edge_to_edge():
    assert longest_diameter(polygon_of(np.ones((3, 4), bool), (7, 9))) == 5.0


def groups_of(report):
    return highdicom.sr.srread(io.BytesIO(report)).content.get_planar_roi_measurement_groups()


def test_highdicom_reads_regions_sizes_scores_and_who_made_them():
    marked = marks()
    found = groups_of(made_of(marked, ["sr"]).files["sr"])
    assert len(found) == len(marked.lesions) == 2
    for group, lesion, shape in zip(found, marked.lesions, marked.shapes, strict=True):
        area = area_of(group.roi.value.astype(float))
        assert area == pytest.approx(lesion.pixels, rel=1e-6) == shape.sum()
        sizes = {(m.name.meaning, m.unit.value): m.value for m in group.get_measurements()}
        assert sizes["Area", "mm2"] == pytest.approx(lesion.pixels * 0.01, rel=1e-4)
        assert ("Long axis", "mm") in sizes
        scores = [
            m.value
            for m in group.get_measurements(
                highdicom.sr.CodedConcept("111012", "DCM", "Certainty of Finding")
            )
        ]
        assert scores == pytest.approx([100 * lesion.score, 100 * lesion.peak], rel=1e-4)
        (site,) = group.finding_sites
        assert (site.value.value, site.laterality.meaning) == ("76752008", "Right")
        assert group.reference_type.meaning == "Image Region"
    assert ORIGIN.weights_sha256 in read(made_of(marked, ["sr"]).files["sr"]).to_json()


def items_of(item, place=(1,)):
    """Yield a report's content items with their places in the tree."""
    yield place, item
    for number, below in enumerate(item.get("ContentSequence", ()), start=1):
        yield from items_of(below, (*place, number))


def test_a_cad_report_has_each_region_and_refers_to_the_image_in_its_tree():
    marked = marks()
    found = dict(items_of(read(made_of(marked, ["cad"]).files["cad"])))
    image = found[1, 2, 1]
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.3"
    said = {i.ConceptNameCodeSequence[0].CodeMeaning: i for i in image.ContentSequence}
    assert said["Image Laterality"].ConceptCodeSequence[0].CodeMeaning == "Right"
    assert said["Image View"].ConceptCodeSequence[0].CodeMeaning == "cranio-caudal"
    assert said["Vertical Pixel Spacing"].MeasuredValueSequence[0].NumericValue == 100
    places = [i for i in found.values() if i.get("ValueType") == "SCOORD"]
    outlines = [np.reshape(i.GraphicData, (-1, 2)) for i in places if i.GraphicType == "POLYLINE"]
    assert [area_of(points) for points in outlines] == [lesion.pixels for lesion in marked.lesions]
    referring = [i for i in found.values() if "ReferencedContentItemIdentifier" in i]
    assert len(referring) == len(places) + 1 == 5
    assert all(i.ReferencedContentItemIdentifier == [1, 2, 1] for i in referring)
    codes = [
        i.ConceptCodeSequence[0].CodeMeaning for i in found.values() if "ConceptCodeSequence" in i
    ]
    assert codes.count("Selected region") == 1 + len(marked.lesions)
    assert codes[-2:] == ["Selected region", "Not Attempted"]
    assert any("Not for diagnosis." in i.get("TextValue", "") for i in found.values())


@pytest.mark.parametrize("facts", [Facts(view="CC"), Facts(laterality="R")])
def test_a_cad_report_without_side_or_view_is_not_made_and_costs_no_other(facts):
    made = made_of(marks(), KINDS, facts=facts)
    assert made.missing == {"cad": "a CAD report needs side, view and patient orientation"}
    assert made.files.keys() == set(KINDS) - {"cad"}


def test_a_cad_report_that_found_nothing_says_so():
    text = str(read(made_of(marks(np.zeros(SHAPE, bool)), ["cad"]).files["cad"]))
    assert "All algorithms succeeded; without findings" in text
    assert "Single Image Finding" not in text


@pytest.mark.skipif(not shutil.which("dsrdump"), reason="no dsrdump: apt-get install dcmtk")
def test_dcmtk_finds_a_cad_report_sound(tmp_path):
    """It checks relations, also those by reference, against PS3.3 A.35.5.3."""
    path, report = tmp_path / "cad.dcm", read(made_of(marks(), ["cad"]).files["cad"])
    command = ["dsrdump", str(path)]
    report.save_as(path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("W: ") for line in done.stderr.splitlines())
    assert done.stdout.count('"Single Image Finding"') == 2
    report.ContentSequence[3].RelationshipType = "HAS PROPERTIES"
    report.save_as(path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Invalid by-value Relationship" in done.stderr


def test_without_spacing_a_report_has_no_size():
    report = made_of(marks(spacing_mm=None), ["sr"], facts=Facts()).files["sr"]
    names = {m.name.meaning for group in groups_of(report) for m in group.get_measurements()}
    assert names == {"Certainty of Finding"}


def test_nothing_found_is_a_report_that_says_so(tmp_path):
    made = made_of(marks(np.zeros(SHAPE, bool)), KINDS)
    assert made.files.keys() == set(KINDS)
    text = str(read(made.files["sr"]))
    assert "No region found." in text
    assert "All algorithms succeeded; without findings" in text
    for kind in ("sr", "gsps"):
        with pytest.raises(FileRejected) as refusal:
            annotated(made.files[kind], tmp_path)
        assert refusal.value.reason is Reason.EMPTY_MASK


def test_the_report_refers_to_image_and_segmentation():
    made = made_of(marks(), KINDS)
    report, segmentation = read(made.files["sr"]), read(made.files["seg"])
    referred = {
        (series.SeriesInstanceUID, one.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert referred == {
        ("1.2.3.2", "1.2.3.3"),
        (segmentation.SeriesInstanceUID, segmentation.SOPInstanceUID),
    }
    assert "1.2.3.3" in str(read(made_of(marks(), ["sr"]).files["sr"]))


def test_the_same_answer_has_the_same_uids_and_another_has_others():
    one, same = made_of(marks(), KINDS), made_of(marks(), KINDS)
    other = made_of(marks(), KINDS, source=SOURCE | {"SOPInstanceUID": "1.2.3.4"})
    uids = [{read(data).SOPInstanceUID for data in m.files.values()} for m in (one, same, other)]
    assert uids[0] == uids[1]
    assert not uids[0] & uids[2]
    series = {read(data).SeriesInstanceUID for data in one.files.values()}
    assert len(series) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_is_the_patients_and_the_studys_own(kind):
    dataset = read(made_of(marks(), KINDS).files[kind])
    assert (dataset.PatientID, str(dataset.PatientName)) == ("SECRET-1", "Secret^Name")
    assert (dataset.StudyInstanceUID, dataset.StudyDate) == ("1.2.3.1", "20240102")
    assert "research use only" in dataset.SeriesDescription


def test_one_object_that_cannot_be_made_costs_no_other(monkeypatch):
    from mamfed_client.prediction import objects
    from mamfed_client.prediction.source_header import SourceError

    def fail(*_):
        raise SourceError("as the test wants")

    monkeypatch.setattr(objects, "encode_presentation", fail)
    made = made_of(marks(), KINDS)
    assert made.missing == {"gsps": "as the test wants"}
    assert made.files.keys() == {*KINDS} - {"gsps"}


def test_the_picture_is_derived_marked_and_not_to_be_measured():
    dataset = read(made_of(marks(), ["sc"]).files["sc"])
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
    assert dataset.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.3"
    assert (dataset.Laterality, dataset.Modality) == ("R", "OT")
    assert "not for diagnosis" in dataset.ImageComments
    assert not {"PixelSpacing", "ImagerPixelSpacing", "FrameOfReferenceUID"} & set(dataset.dir())
    colours = dataset.pixel_array.astype(int)
    assert (np.ptp(colours, axis=-1) > 60).any()


def test_the_pictures_pixels_are_square():
    marked, grey = marks(np.ones((400, 300), bool)), np.zeros((400, 300), np.uint16)
    data = made_of(marked, ["sc"], grey=grey, pixel=(0.1, 0.05)).files["sc"]
    assert read(data).Columns == 150


def test_pixels_that_are_not_square_are_stated_in_a_presentation_state():
    state = read(made_of(marks(), ["gsps"], pixel=(0.1, 0.05)).files["gsps"])
    area = state.DisplayedAreaSelectionSequence[0]
    assert list(area.PresentationPixelAspectRatio) == [1000, 500]
    assert list(area.DisplayedAreaBottomRightHandCorner) == [SHAPE[1], SHAPE[0]]


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="no dciodvfy: apt-get install dicom3tools")
class TestDciodvfy:
    def errors(self, tmp_path, *datas):
        files = []
        for number, data in enumerate(datas):
            files.append(tmp_path / f"{number}.dcm")
            files[-1].write_bytes(data)
        found = [
            subprocess.run(["dciodvfy", str(f)], capture_output=True, text=True, check=False)
            for f in files
        ]
        lines = [line for f in found for line in (f.stdout + f.stderr).splitlines()]
        assert any(line.strip() in NAMES for line in lines), lines
        return [line for line in lines if line.startswith("Error")]

    @pytest.mark.parametrize("mask", [None, np.zeros(SHAPE, bool)])
    @pytest.mark.parametrize("facts", [RIGHT, Facts(), Facts(laterality="L", view="MLO")])
    @pytest.mark.parametrize("steps", [INVERTED, BY_TABLE])
    def test_finds_no_error(self, tmp_path, mask, facts, steps):
        made = made_of(marks(mask), KINDS, facts=facts, steps=steps)
        assert made.missing.keys() == (set() if facts.laterality else {"cad"})
        assert self.errors(tmp_path, *made.files.values()) == []

    def test_finds_none_where_the_source_says_little(self, tmp_path):
        needed = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
        made = made_of(marks(), KINDS, source={k: SOURCE[k] for k in needed})
        assert self.errors(tmp_path, *made.files.values()) == []

    def test_finds_none_where_the_source_says_more(self, tmp_path):
        more = {"FrameOfReferenceUID": "1.2.7", "LossyImageCompression": "01"}
        more |= {"LossyImageCompressionRatio": "10", "PatientOrientation": "P\\FL"}
        made = made_of(marks(), KINDS, source=SOURCE | more)
        assert self.errors(tmp_path, *made.files.values()) == []

    def test_would_have_found_one(self, tmp_path):
        dataset = read(made_of(marks(), ["gsps"]).files["gsps"])
        del dataset.Laterality
        file = io.BytesIO()
        dataset.save_as(file)
        assert "Laterality" in self.errors(tmp_path, file.getvalue())[0]

    def test_would_have_found_one_in_a_cad_report(self, tmp_path):
        dataset = read(made_of(marks(), ["cad"]).files["cad"])
        del dataset.ContentSequence[3].ConceptCodeSequence
        file = io.BytesIO()
        dataset.save_as(file)
        assert "ConceptCodeSequence" in self.errors(tmp_path, file.getvalue())[0]


NAMES = {
    *("Segmentation", "ComprehensiveSR", "GrayscaleSoftcopyPresentationState", "SCImage"),
    "MammographyCADSR",
}


@pytest.mark.parametrize("vendor", ["aurora", "borealis", "cirrus"])
@pytest.mark.parametrize("side", ["L", "R"])
def test_a_presentation_state_shows_what_the_network_saw(tmp_path, write_phantom, vendor, side):
    file = write_phantom(vendor, side, "MLO", StudyID="uncompressed")
    with Decoder() as decoder:
        mammogram, _ = decoder.mammogram(file.path)
        steps, pixel = decoder.display(file.path)
        header = decoder.source(file.path)
    made = made_of(
        marks(file.phantom.mask),
        KINDS,
        source=header,
        facts=mammogram.facts,
        grey=mammogram.grey,
        steps=steps,
        pixel=pixel,
    )
    stored = pydicom.dcmread(file.path)
    shown = shown_by(read(made.files["gsps"]), stored.pixel_array)
    tissue = mammogram.grey > 0
    assert np.abs(shown - mammogram.grey / 65535)[tissue].max() < 1e-3
    back = annotated(made.files["gsps"], tmp_path, shown.shape, mammogram.facts.instance)
    assert np.array_equal(back.mask, file.phantom.mask)


@pytest.mark.skipif(not shutil.which("dcmp2pgm"), reason="no dcmp2pgm: apt-get install dcmtk")
def test_dcmtk_draws_a_monochrome1_image_by_its_state_as_the_network_saw_it(
    tmp_path, write_phantom
):
    """DCMTK 3.6.7 takes a SIGMOID window of a state for a LINEAR one, so the image has that."""
    path = write_phantom("borealis", "R", "CC", VOILUTFunction="LINEAR").path
    assert pydicom.dcmread(path).PhotometricInterpretation == "MONOCHROME1"
    with Decoder() as decoder:
        mammogram, _ = decoder.mammogram(path)
        steps, pixel = decoder.display(path)
        header = decoder.source(path)
    marked = marks(np.zeros(mammogram.grey.shape, bool))
    state = made_of(marked, ["gsps"], source=header, steps=steps, pixel=pixel).files["gsps"]
    (tmp_path / "state.dcm").write_bytes(state)
    command = ["dcmp2pgm", "--pgm", "-p", "state.dcm", str(path), "drawn.pgm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (tmp_path / "drawn.pgm").exists(), done.stderr
    head, _, pixels = (tmp_path / "drawn.pgm").read_bytes().partition(b"255\n")
    assert head.startswith(b"P5")
    drawn = np.frombuffer(pixels, np.uint8).reshape(mammogram.grey.shape)
    assert np.abs(drawn - mammogram.grey / 257)[mammogram.grey > 0].max() < 2


def test_the_command_writes_what_it_is_asked_for_and_accounts_for_it(
    predict, write_phantom, tmp_path
):
    path = write_phantom("borealis", "R", "MLO").path
    result = predict(path, options=["--as", "sr,seg,gsps,sc,cad"])
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert document["objects"] == dict.fromkeys(sorted(KINDS), 1)
    (record,) = document["per_image"]
    folder = tmp_path / "out" / "images" / record["image"]
    assert {file.name for file in folder.glob("*.dcm")} == set(FILES.values())
    assert {file.name for file in folder.iterdir()} == {*record["files"], "result.json"}
    again = predict(path, options=["--as", "sr"])
    assert again.exit_code != 0
    assert "objects was" in str(again.exception)
    back = predict(tmp_path / "out", folder / FILES["sc"], out=tmp_path / "two")
    assert json.loads((tmp_path / "two" / "predictions.json").read_text())["predicted"] == 0, back


@pytest.mark.parametrize("kinds", ["", "pdf", "seg,pdf"])
def test_an_unknown_kind_of_object_is_refused(predict, tmp_path, kinds):
    result = predict(tmp_path, options=["--as", kinds])
    assert result.exit_code == 2
    assert "seg,sr,gsps,sc,cad" in " ".join(result.output.split()).replace("│ ", "")


@pytest.mark.skipif(not can_isolate(), reason="no Orthanc, or no network of its own for it")
def test_an_archive_files_all_of_them_in_the_study_of_their_source(
    tmp_path, write_phantom, predicted
):
    source = write_phantom("borealis", "R", "MLO").path
    ((_, folder),) = predicted(source, options=["--as", ",".join(KINDS)])
    (tmp_path / "orthanc").mkdir()
    isolated = ["unshare", "--net", "--map-root-user", sys.executable, IN_ORTHANC]
    command = [*isolated, tmp_path / "orthanc", source, *(folder / FILES[kind] for kind in KINDS)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert {one["status"] for one in found} == {"Success"}
    assert len({one["study"] for one in found}) == 1
    assert len({one["series"] for one in found}) == 1 + len(KINDS)
    assert [one["tags"]["Modality"] for one in found] == ["MG", "SEG", "SR", "PR", "OT", "SR"]
    assert found[1 + KINDS.index("sc")]["preview_bytes"] > 0
