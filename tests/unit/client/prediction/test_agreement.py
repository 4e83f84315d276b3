"""What predict writes of one image says the same in each object, whatever the image is like."""

import json

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.prediction.polygons import area_of
from mamfed_common.metrics.detection import regions_of

from .conftest import SHAPE, SPACING_MM

CERTAINTY = highdicom.sr.CodedConcept("111012", "DCM", "Certainty of Finding")
CASES = {
    "as it comes": ("aurora", "L", "CC", False, {}),
    "flipped": ("aurora", "R", "MLO", False, {}),
    "mirrored against its header": ("cirrus", "L", "MLO", True, {}),
    "MONOCHROME1": ("borealis", "R", "CC", False, {}),
    "unequal spacing": ("aurora", "R", "CC", False, {"ImagerPixelSpacing": [0.5, 0.4]}),
    "no spacing": ("cirrus", "L", "CC", False, {"ImagerPixelSpacing": None, "PixelSpacing": None}),
    "cropped": ("aurora", "R", "CC", False, {"StudyID": "uncompressed"}),
}


def surround(path, above=23, left=57):
    """Add rows and columns without tissue, which the network's crop leaves out."""
    dataset = pydicom.dcmread(path)
    pixels = np.pad(dataset.pixel_array, ((above, 0), (left, 0)))
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path)


def polygons_of_state(path):
    (first, *_) = pydicom.dcmread(path).GraphicAnnotationSequence
    for drawn in first.GraphicObjectSequence:
        assert drawn.GraphicType == "POLYLINE"
        yield np.asarray(drawn.GraphicData, float).reshape(-1, 2)


def polygons_of_cad(path):
    for item in pydicom.dcmread(path).iterall():
        if item.keyword == "GraphicData" and len(item.value) > 2:
            yield np.asarray(item.value, float).reshape(-1, 2)


def read_back(path, shape):
    instance = pydicom.dcmread(path, stop_before_pixels=True)
    named = [e.value for e in instance.iterall() if e.keyword == "ReferencedSOPInstanceUID"]
    return read_annotations([Annotation(path, "i.dcm", instance=named[0])], *shape).mask


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_object_marks_the_same_regions(write_phantom, predicted, case, request):
    vendor, side, view, mirrored, elements = case
    file = write_phantom(vendor, side, view, mirrored=mirrored, **elements)
    is_cropped = "cropped" in request.node.name
    if is_cropped:
        surround(file.path)
    ((_, folder),) = predicted(file.path, options=["--as", "seg,sr,gsps,cad"])
    lesions = json.loads((folder / "result.json").read_text())["lesions"]

    marked = pydicom.dcmread(folder / "segmentation.dcm").pixel_array != 0
    assert marked.shape == tuple(n + is_cropped * m for n, m in zip(SHAPE, (23, 57), strict=True))
    regions = regions_of(marked)
    assert len(lesions) == regions.last > 0
    pixels = sorted(int(n) for n in regions.pixels[1:])

    content = highdicom.sr.srread(folder / "report.dcm").content
    groups = content.get_planar_roi_measurement_groups()
    of_report = [area_of(group.roi.value.astype(float)) for group in groups]
    of_state = [area_of(polygon) for polygon in polygons_of_state(folder / "presentation.dcm")]
    of_cad = [area_of(polygon) for polygon in polygons_of_cad(folder / "cad.dcm")]
    assert of_report == of_state == of_cad
    assert sorted(of_report) == pixels

    for group, lesion, area in zip(groups, lesions, of_report, strict=True):
        sizes = {m.name.meaning: m.value for m in group.get_measurements()}
        if "spacing" in request.node.name:
            assert lesion["area_mm2"] is None
            assert sizes.keys() == {"Certainty of Finding"}
        else:
            assert lesion["area_mm2"] == pytest.approx(area * SPACING_MM**2, rel=1e-6)
            assert sizes["Area"] == pytest.approx(lesion["area_mm2"], rel=1e-4)
        mean, peak = (m.value for m in group.get_measurements(CERTAINTY))
        assert mean == pytest.approx(100 * lesion["score"], abs=0.01)
        assert mean <= peak <= 100
        columns, rows = group.roi.value.T
        top, bottom, left, right = lesion["box"]
        assert (rows.min(), rows.max()) == (top, bottom)
        assert (columns.min(), columns.max()) == (left, right)

    for name in ("segmentation.dcm", "report.dcm", "presentation.dcm"):
        assert np.array_equal(read_back(folder / name, marked.shape), marked), name
