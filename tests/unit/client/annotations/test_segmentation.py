import numpy as np
import pytest
from pydicom.pixels.utils import pack_bits
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
    SegmentationStorage,
)

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.rejections import FileRejected, Reason

FRAMES = np.zeros((3, 3, 5), bool)
FRAMES[0, 0, 1] = FRAMES[1, 2, 4] = FRAMES[2, 1, 2:4] = True
UIDS = "1.2.3", "1.2.4"


@pytest.fixture
def write(write_dicom):
    def write_frames(frames, *, fractional=None, **elements):
        kind = "BINARY" if fractional is None else "FRACTIONAL"
        data = pack_bits(frames.astype(np.uint8)) if fractional is None else frames.tobytes()
        bits = 1 if fractional is None else 8
        if fractional is not None:
            elements = {"MaximumFractionalValue": fractional} | elements
        elements = {
            "SegmentationType": kind,
            "NumberOfFrames": len(frames),
            "Rows": frames.shape[1],
            "Columns": frames.shape[2],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": bits,
            "BitsStored": bits,
            "HighBit": bits - 1,
            "PixelRepresentation": 0,
            "PixelData": data,
        } | elements
        return write_dicom(SegmentationStorage, **elements)

    return write_frames


@pytest.fixture
def sources(item):
    """A functional group per frame that names the images it was derived from."""

    def build(*uids_of_frames):
        def derivation(uids):
            images = [item(ReferencedSOPInstanceUID=uid) for uid in uids]
            return item(DerivationImageSequence=[item(SourceImageSequence=images)])

        return [derivation(uids) for uids in uids_of_frames]

    return build


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_frames_whose_bits_share_bytes_are_united(write, marked, syntax):
    assert marked(write(FRAMES, syntax=syntax), 3, 5) == [".#...", "..##.", "....#"]


def test_fractions_of_half_and_more_are_marked(write, marked):
    frames = np.array([[[0, 49, 50, 51, 100]]], np.uint8)
    assert marked(write(frames, fractional=100), 1, 5) == ["..###"]


def test_half_of_an_odd_maximum_is_not_rounded_down(write, marked):
    frames = np.array([[[127, 128, 255]]], np.uint8)
    assert marked(write(frames, fractional=255), 1, 3) == [".##"]


def test_a_segmentation_of_half_the_size_is_fitted(write):
    path = write(FRAMES[:1])
    found = read_annotations([Annotation(path)], 6, 10)
    assert np.argwhere(found.mask).tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]
    assert found.resampled == 1


def test_a_segmentation_of_another_aspect_is_refused(write, marked):
    with pytest.raises(FileRejected) as refusal:
        marked(write(FRAMES), 5, 3)
    assert refusal.value.reason is Reason.MASK_SIZE


def test_frames_of_one_image_need_no_name(write, marked, sources):
    groups = sources(UIDS[:1], UIDS[:1], UIDS[:1])
    path = write(FRAMES, PerFrameFunctionalGroupsSequence=groups)
    assert marked(path, 3, 5) == [".#...", "..##.", "....#"]


def test_of_several_images_the_one_named_by_its_uid_is_taken(write, marked, sources):
    groups = sources(UIDS[:1], UIDS[1:], UIDS[:1])
    path = write(FRAMES, PerFrameFunctionalGroupsSequence=groups)
    assert marked(path, 3, 5, image_name="1.2.4.dcm") == [".....", ".....", "....#"]
    assert marked(path, 3, 5, image_name="1.2.3") == [".#...", "..##.", "....."]
    with pytest.raises(FileRejected, match="outlines 2 images"):
        marked(path, 3, 5, image_name="other.dcm")


@pytest.mark.parametrize(
    ("elements", "detail"),
    [
        ({"NumberOfFrames": 4}, "truncated"),
        ({"NumberOfFrames": 2_000_000_000}, "a segmentation of 2000000000 x 3 x 5 pixels"),
        ({"NumberOfFrames": -1}, "a segmentation of -1"),
        ({"Rows": 0}, "a segmentation of 3 x 0 x 5"),
        ({"SegmentationType": "LABELMAP"}, "neither BINARY"),
        ({"BitsAllocated": 8}, "neither BINARY"),
        ({"Rows": None}, "TypeError"),
    ],
)
def test_a_segmentation_that_makes_no_sense_is_refused(write, marked, elements, detail):
    with pytest.raises(FileRejected, match=detail) as refusal:
        marked(write(FRAMES, **elements), 3, 5)
    assert refusal.value.reason is Reason.UNREADABLE_MASK


def test_a_compressed_segmentation_is_refused(write, marked):
    frames = np.full((1, 3, 5), 200, np.uint8)
    with pytest.raises(FileRejected, match="a compressed segmentation"):
        marked(write(frames, fractional=255, syntax=RLELossless), 3, 5)
