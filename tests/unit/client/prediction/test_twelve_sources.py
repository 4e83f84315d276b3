"""Segmentations of twelve unlike sources, attribute by attribute beside them."""

import io
import shutil

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom._standard_utils import (
    get_iod_module_map,
    get_module_attribute_map,
    get_sop_class_iod_map,
)
from pydicom import Dataset
from pydicom.uid import (
    JPEG2000,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from mamfed_client.imaging.derived_header import MODULES, REPEATED, read_repeated_header
from mamfed_client.imaging.dicom import read_source
from mamfed_client.imaging.mammogram import Facts
from mamfed_client.prediction.derived_object import Origin
from mamfed_client.prediction.segmentation import encode_segmentation
from mamfed_client.prediction.source_header import SourceError

from .test_segmentation import complaints

ORIGIN = Origin("a" * 64, "b" * 64, 0.3)
BASE = {
    "PatientName": "Doe^Jane",
    "PatientID": "123",
    "PatientBirthDate": "19600131",
    "PatientSex": "F",
    "StudyInstanceUID": "1.2.3.1",
    "SeriesInstanceUID": "1.2.3.2",
    "SOPInstanceUID": "1.2.3.3",
    "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
    "StudyDate": "20260102",
    "StudyTime": "101500.25",
    "StudyID": "S1",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "Who^Doctor",
    "PatientOrientation": ["P", "L"],
    "Manufacturer": "Aurora Imaging",
}


def item(**elements):
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def code(value, scheme, meaning):
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


SOURCES = {
    "plain": {},
    "vendor with a frame of reference": {
        "Manufacturer": "Borealis",
        "ManufacturerModelName": "B-1000",
        "DeviceSerialNumber": "SN 7",
        "SoftwareVersions": ["1.0", "2.0"],
        "InstitutionName": "Hospital A",
        "StationName": "MG1",
        "FrameOfReferenceUID": "1.2.3.9",
        "PositionReferenceIndicator": "",
    },
    "JPEG baseline that says so": {
        "syntax": JPEGBaseline8Bit,
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": ["12.5", "3"],
        "LossyImageCompressionMethod": ["ISO_10918_1", "ISO_15444_1"],
    },
    "JPEG baseline that says nothing": {"syntax": JPEGBaseline8Bit},
    "issuer": {
        "IssuerOfPatientID": "HOSPITAL_A",
        "TypeOfPatientID": "TEXT",
        "IssuerOfPatientIDQualifiersSequence": [
            item(UniversalEntityID="1.2.40.0.13.1", UniversalEntityIDType="ISO")
        ],
        "IssuerOfAccessionNumberSequence": [item(LocalNamespaceEntityID="RIS_A")],
        "OtherPatientIDsSequence": [
            item(PatientID="999", IssuerOfPatientID="NATION", TypeOfPatientID="TEXT")
        ],
    },
    "odd text": {
        "PatientName": "山田^花子=ヤマダ^ハナコ",
        "StudyDescription": "Mammographie beidseits, Brüste dicht",
        "PatientComments": "two\r\nlines, and a \\ backslash",
        "OtherPatientNames": ["Müller^Łucja", "Second^Name"],
        "SpecificCharacterSet": "ISO_IR 192",
    },
    "no dates": {"StudyDate": "", "StudyTime": "", "PatientBirthDate": ""},
    "shared Patient ID, de-identified": {
        "PatientID": "ANON",
        "PatientName": "ANON",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "hospital script",
        "DeidentificationMethodCodeSequence": [
            code("113100", "DCM", "Basic Application Confidentiality Profile")
        ],
        "LongitudinalTemporalInformationModified": "REMOVED",
    },
    "study and patient in full": {
        "PatientAge": "065Y",
        "PatientSize": "1.65",
        "PatientWeight": "60.5",
        "PregnancyStatus": 4,
        "StudyDescription": "Screening",
        "AdditionalPatientHistory": "none",
        "ProcedureCodeSequence": [code("71651007", "SCT", "Mammography")],
        "NameOfPhysiciansReadingStudy": ["One^Reader", "Two^Reader"],
        "PhysiciansOfRecord": "Who^Doctor",
        "AdmissionID": "ADM",
        "MedicalAlerts": ["latex", "iodine"],
    },
    "trial": {
        "ClinicalTrialSponsorName": "Sponsor",
        "ClinicalTrialProtocolID": "P-1",
        "ClinicalTrialProtocolName": "",
        "ClinicalTrialSiteID": "S",
        "ClinicalTrialSiteName": "",
        "ClinicalTrialSubjectID": "SUBJ",
        "ClinicalTrialTimePointID": "T0",
    },
    "another time zone": {"TimezoneOffsetFromUTC": "+0930"},
    "for processing": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1",
        "syntax": JPEGLSLossless,
        "ReferencedStudySequence": [
            item(
                ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
                ReferencedSOPInstanceUID="1.2.3.77",
            )
        ],
    },
}


def source(syntax=ExplicitVRLittleEndian, drop=(), **elements):
    """A source as a file; its pixels do not matter here."""
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    for keyword, value in (BASE | elements).items():
        setattr(dataset, keyword, value)
    for keyword in drop:
        del dataset[keyword]
    if "SpecificCharacterSet" not in dataset:
        dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.BitsStored = 40, 30, 8, 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    if syntax.is_compressed:
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(98)])
        dataset["PixelData"].VR = "OB"
    else:
        dataset.PixelData = bytes(1200)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return dataset, file.getvalue()


RIGHT = Facts(laterality="R", view="CC")


def segmented(data, facts=RIGHT, pixels=None):
    if pixels is None:
        pixels = np.zeros((40, 30), bool)
        pixels[5:9, 5:9] = True
    return encode_segmentation(pixels, read_source(data), facts, 1, ORIGIN)


@pytest.mark.parametrize("name", SOURCES)
def test_all_that_belongs_to_patient_and_study_is_the_sources(name, tmp_path):
    dataset, data = source(**SOURCES[name])
    encoded = segmented(data)
    assert encoded.left_out == {}
    found = pydicom.dcmread(io.BytesIO(encoded.data))
    for module in MODULES:
        for keyword in module.keywords:
            if keyword in dataset:
                assert found.get(keyword) == dataset.get(keyword), (module.clause, keyword)
    assert highdicom.seg.segread(io.BytesIO(encoded.data)).number_of_segments == 1
    if shutil.which("dciodvfy"):
        (tmp_path / "s.dcm").write_bytes(encoded.data)
        assert complaints(tmp_path / "s.dcm") == []


COMPUTED = {"LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"}
"""What a lossy image says by its transfer syntax where its header does not."""


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_of_patient_and_study_is_invented_and_the_mask_is_that_of_its_image(name):
    dataset, data = source(**SOURCES[name])
    pixels = np.zeros((40, 30), bool)
    pixels[3:9, 11:13], pixels[30, 29] = True, True
    encoded = segmented(data, pixels=pixels)
    found = pydicom.dcmread(io.BytesIO(encoded.data))
    keywords = {k for module in MODULES for k in module.keywords if k not in dataset} - COMPUTED
    assert {k: found.get(k) for k in keywords if found.get(k)} == {}
    np.testing.assert_array_equal(found.pixel_array, pixels)
    read = highdicom.seg.segread(io.BytesIO(encoded.data))
    (image,) = read.get_source_image_uids()
    assert image == (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
    frames = read.get_pixels_by_source_instance(
        [dataset.SOPInstanceUID], assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(frames[0, ..., 0], pixels)


def test_the_table_has_all_that_highdicom_would_have_copied():
    modules = get_iod_module_map()[
        get_sop_class_iod_map()[DigitalMammographyXRayImageStorageForPresentation]
    ]
    wanted = {
        attribute["keyword"]
        for module in modules
        if module["ie"] in ("Patient", "Study", "Frame of Reference")
        for attribute in get_module_attribute_map()[module["key"]]
        if not attribute["path"]
    }
    assert len(wanted) > 80
    assert wanted - set(REPEATED) == set()


def test_an_image_that_was_compressed_with_loss_says_so_though_its_header_does_not():
    _, data = source(JPEGBaseline8Bit)
    found = pydicom.dcmread(io.BytesIO(segmented(data).data))
    assert found.LossyImageCompression == "01"
    assert found.LossyImageCompressionMethod == "ISO_10918_1"
    assert float(found.LossyImageCompressionRatio) == 10  # 1200 pixels of 8 bits in 120 bytes


@pytest.mark.parametrize(("wavelet", "lossy"), [(b"\0", "01"), (b"\1", None)])
def test_of_jpeg_2000_the_wavelet_tells(wavelet, lossy):
    dataset, _ = source()
    dataset.file_meta.TransferSyntaxUID = JPEG2000
    style = b"\xff\x52" + b"\0\x0c\0\0\0\1\0\5\4\4\0" + wavelet
    dataset.PixelData = pydicom.encaps.encapsulate([style])
    assert read_repeated_header(dataset).get("LossyImageCompression") == lossy


BROKEN = {
    "PatientName": "x" * 70,
    "PatientBirthDate": "31.1.1960",
    "PatientSex": "female",
    "StudyDescription": "e" * 65,
    "AccessionNumber": "a" * 17,
    "FrameOfReferenceUID": "no uid",
    "TimezoneOffsetFromUTC": "CET",
    "PatientAge": "65",
}


@pytest.mark.parametrize("keyword", BROKEN)
def test_what_cannot_be_copied_is_said_by_keyword_alone(keyword, tmp_path, recwarn):
    with pydicom.config.disable_value_validation():
        _, data = source(**{keyword: BROKEN[keyword]})
    encoded = segmented(data)
    assert list(encoded.left_out) == [keyword]
    assert BROKEN[keyword] not in encoded.left_out[keyword]
    assert not [w for w in recwarn if BROKEN[keyword] in str(w.message)]
    found = pydicom.dcmread(io.BytesIO(encoded.data))
    assert not found.get(keyword)
    if shutil.which("dciodvfy"):
        (tmp_path / "s.dcm").write_bytes(encoded.data)
        assert complaints(tmp_path / "s.dcm") == []


def test_half_a_code_is_none_and_that_is_said():
    _, data = source(ProcedureCodeSequence=[item(CodeValue="1")])
    encoded = segmented(data)
    assert "ProcedureCodeSequence" in encoded.left_out
    assert "ProcedureCodeSequence" not in pydicom.dcmread(io.BytesIO(encoded.data))


def test_under_a_broken_issuer_it_would_be_another_patients():
    with pydicom.config.disable_value_validation():
        _, data = source(IssuerOfPatientID="x" * 65)
    with pytest.raises(SourceError, match="IssuerOfPatientID"):
        segmented(data)


def test_times_are_of_the_zone_that_the_object_names():
    _, data = source(TimezoneOffsetFromUTC="+0930")
    found = pydicom.dcmread(io.BytesIO(segmented(data).data))
    _, here = source(TimezoneOffsetFromUTC="+0000")
    utc = pydicom.dcmread(io.BytesIO(segmented(here).data))
    minutes = [
        60 * int(str(one.ContentTime)[:2]) + int(str(one.ContentTime)[2:4]) for one in (found, utc)
    ]
    assert (minutes[0] - minutes[1]) % 1440 in (569, 570, 571)


class TestUids:
    def test_the_same_content_has_the_same_ones_and_its_own_series_number(self):
        _, data = source()
        one, two = (pydicom.dcmread(io.BytesIO(segmented(data).data)) for _ in range(2))
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber"):
            assert one[keyword] == two[keyword]
        organizations = [d.DimensionOrganizationSequence for d in (one, two)]
        assert organizations[0] == organizations[1]

    def test_any_other_content_has_others(self):
        pixels = np.zeros((40, 30), bool)
        pixels[5:9, 5:9] = True
        less = pixels.copy()
        less[5, 5] = False
        _, data = source()
        made = [
            segmented(data),
            segmented(data, pixels=less),
            segmented(data, facts=Facts(laterality="L", view="CC")),
            segmented(source(PatientName="Doe^Joan")[1]),
            segmented(source(SOPInstanceUID="1.2.3.4")[1]),
            encode_segmentation(
                pixels, read_source(data), Facts("R", view="CC"), 1, ORIGIN._replace(threshold=0.4)
            ),
        ]
        found = [pydicom.dcmread(io.BytesIO(one.data)) for one in made]
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber"):
            assert len({str(one[keyword].value) for one in found}) == len(found)
