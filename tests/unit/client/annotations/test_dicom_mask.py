import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from mamfed_client.annotations.dicom_mask import looks_like_mask
from mamfed_client.imaging.rejections import FileRejected, Reason

MASK = np.array([[0, 255, 0], [255, 255, 0]])
CROP = np.arange(40).reshape(5, 8)


@pytest.fixture
def write(write_dicom):
    def write_image(pixels, bits=8, **elements):
        elements = {
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": bits,
            "BitsStored": bits,
            "HighBit": bits - 1,
            "PixelRepresentation": 0,
            "PixelData": pixels.astype(f"<u{bits // 8}").tobytes(),
        } | elements
        return write_dicom(SecondaryCaptureImageStorage, **elements)

    return write_image


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, RLELossless, DeflatedExplicitVRLittleEndian]
)
def test_a_mask_of_8_or_16_bits_is_read(write, marked, bits, syntax):
    assert marked(write(MASK, bits, syntax=syntax), 2, 3) == [".#.", "##."]


def test_what_is_shown_bright_is_the_mask(write, marked):
    inverted = write(255 - MASK, PhotometricInterpretation="MONOCHROME1")
    assert marked(inverted, 2, 3) == [".#.", "##."]


def test_a_mask_without_suffix_is_known_by_its_preamble(write, marked):
    assert marked(write(MASK, name="mask"), 2, 3) == [".#.", "##."]


def test_a_black_mask_marks_nothing(write, marked):
    with pytest.raises(FileRejected) as refusal:
        marked(write(MASK * 0), 2, 3)
    assert refusal.value.reason is Reason.EMPTY_MASK


def test_a_crop_in_the_place_of_the_mask_is_refused(write, marked):
    with pytest.raises(
        FileRejected, match=r"this is an image, not a mask \(40 grey levels\)"
    ) as refusal:
        marked(write(CROP), 5, 8)
    assert refusal.value.reason is Reason.UNREADABLE_MASK


@pytest.mark.parametrize(("pixels", "is_mask"), [(MASK, True), (MASK * 0, True), (CROP, False)])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_mask_is_told_from_a_crop(write, pixels, is_mask, bits):
    assert looks_like_mask(write(pixels, bits, syntax=RLELossless)) is is_mask


def test_what_the_decoder_refuses_is_an_unreadable_mask(write, marked):
    path = write(MASK, PixelData=b"\0\0")
    for read in (looks_like_mask, lambda path: marked(path, 2, 3)):
        with pytest.raises(FileRejected) as refusal:
            read(path)
        assert refusal.value.reason is Reason.UNREADABLE_MASK


@pytest.mark.parametrize("data", [b"", b"Secret^Name", bytes(128) + b"DICM" + b"\xff" * 50])
def test_a_broken_file_is_an_unreadable_mask(tmp_path, marked, data):
    (tmp_path / "1.dcm").write_bytes(data)
    for read in (looks_like_mask, lambda path: marked(path, 2, 3)):
        with pytest.raises(FileRejected) as refusal:
            read(tmp_path / "1.dcm")
        assert refusal.value.reason is Reason.UNREADABLE_MASK
        assert "Secret" not in str(refusal.value)


def test_a_deflated_file_that_is_cut_short_is_refused_before_pydicom_inflates_it(write, marked):
    path = write(MASK, syntax=DeflatedExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileRejected, match="deflated data end early") as refusal:
        marked(path, 2, 3)
    assert refusal.value.reason is Reason.UNREADABLE_MASK


def test_what_pydicom_warns_of_is_said_nowhere(tmp_path, recwarn):
    (tmp_path / "1.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    with pytest.raises(FileRejected):
        looks_like_mask(tmp_path / "1.dcm")
    assert not recwarn.list
