import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sr._snomed_dict import mapping
from pydicom.sr.codedict import codes

from mamfed_client.imaging.dicom_attributes import read_facts
from mamfed_client.imaging.mammogram import Facts
from mamfed_client.imaging.rejections import ALLOWABLE, FileRejected, Reason
from mamfed_client.imaging.screening import (
    CODES,
    SCREENING_CHECKS,
    WORDS,
    check_screening,
    is_tomosynthesis,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SPACINGS_OF_A_SCOUT = {"ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.975, 0.975]}


def item(**elements):
    dataset = Dataset()
    for keyword, element in elements.items():
        setattr(dataset, keyword, element)
    return dataset


def code(value="1", meaning="", **elements):
    return item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning, **elements)


def view(*modifiers, value="399162004", meaning="cranio-caudal"):
    return {"ViewCodeSequence": [code(value, meaning, ViewModifierCodeSequence=list(modifiers))]}


@pytest.fixture
def header(tmp_path, drawing):
    def write_and_read(**elements):
        usual = {"Modality": "MG", "ImageLaterality": "L", "ViewPosition": "CC"}
        drawing.dicom(tmp_path / "a.dcm", np.zeros((4, 4)), **usual | elements)
        return pydicom.dcmread(tmp_path / "a.dcm")

    return write_and_read


@pytest.fixture
def reasons(header):
    """Every reason that a header is refused for, found by allowing one after the other."""

    def refuse_until_it_passes(**elements):
        dataset, allow = header(**elements), frozenset()
        known = read_facts(dataset, "1-1.dcm")
        for _ in range(len(SCREENING_CHECKS) + 1):
            try:
                check_screening(dataset, known, allow)
            except FileRejected as refusal:
                allow |= {refusal.reason}
            else:
                return allow
        pytest.fail("what was allowed was refused again")

    return refuse_until_it_passes


REFUSED = [
    (Reason.WRONG_MODALITY, {"Modality": "CR"}),
    (
        Reason.WRONG_MODALITY,
        {"Modality": "", "SOPClassUID": uid.DigitalXRayImageStorageForPresentation},
    ),
    (Reason.FOR_PROCESSING, {"PresentationIntentType": "FOR PROCESSING"}),
    (Reason.FOR_PROCESSING, {"SOPClassUID": uid.DigitalMammographyXRayImageStorageForProcessing}),
    (Reason.SECONDARY_CAPTURE, {"SOPClassUID": uid.SecondaryCaptureImageStorage}),
    (
        Reason.SECONDARY_CAPTURE,
        {"SOPClassUID": uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage},
    ),
    (
        Reason.SECONDARY_CAPTURE,
        {"ConversionType": "WSD", "SOPClassUID": uid.ComputedRadiographyImageStorage},
    ),
    (Reason.SECONDARY_CAPTURE, {"ConversionType": "DRW", "ImageType": ["DERIVED", "SECONDARY"]}),
    (Reason.SECONDARY_CAPTURE, {"ImageType": ["DERIVED", "PRIMARY", "SCREEN SAVE"]}),
    (Reason.WRONG_MODALITY, {"SOPClassUID": uid.UltrasoundImageStorage}),
    (
        Reason.WRONG_MODALITY,
        {"Modality": "", "SOPClassUID": uid.MRImageStorage, "BodyPartExamined": "BREAST"},
    ),
    (Reason.QUALITY_CONTROL, {"QualityControlImage": "YES"}),
    (Reason.QUALITY_CONTROL, {"CalibrationImage": "YES"}),
    (Reason.QUALITY_CONTROL, {"SeriesDescription": "Weekly ACR phantom"}),
    (Reason.SPECIMEN, view(value="127457009", meaning="tissue specimen from breast")),
    (Reason.SPECIMEN, view(value="G-8310", meaning="")),
    (Reason.SPECIMEN, {"BodyPartExamined": "SPECIMEN"}),
    (Reason.SPECIMEN, {"SeriesDescription": "L Specimen, 2 cm"}),
    (Reason.SPECIMEN, {"SpecimenDescriptionSequence": [item(SpecimenIdentifier="1")]}),
    (Reason.BIOPSY, {"ImageType": ["ORIGINAL", "PRIMARY", "STEREO_SCOUT"]}),
    (Reason.BIOPSY, {"ImageType": ["ORIGINAL", "PRIMARY", "PREFIRE_MINUS"]}),
    (Reason.BIOPSY, {"ImageType": ["DERIVED", "PRIMARY", "STEREO", "LEFT"]}),
    (Reason.BIOPSY, {"SeriesDescription": "Vakuumbiopsie"}),
    (Reason.SPECIMEN, {"SeriesDescription": "Präparat"}),
    (Reason.BIOPSY, {"BiopsyTargetSequence": [item(TargetLabel="1")]}),
    (Reason.BIOPSY, {"SeriesDescription": "R Stereo"}),
    (Reason.BIOPSY, {"ProtocolName": "STEREOTACTIC/BIOPSY"}),
    (Reason.BIOPSY, {"Rows": 512, "Columns": 512, **SPACINGS_OF_A_SCOUT}),
    (Reason.SPOT, view(code("399055006", "Spot Compression"))),
    (Reason.SPOT, view(code("R-102D7"))),
    (Reason.SPOT, {"ViewModifierCodeSequence": [code("399055006")]}),
    (Reason.SPOT, view(code("LOCAL1", "round spot"))),
    (Reason.SPOT, {"PaddleDescription": "10CM-SPOT"}),
    (Reason.SPOT, {"ProtocolName": "L_CC_SPOT"}),
    (Reason.MAGNIFICATION, view(code("399163009", "Magnification"))),
    (Reason.MAGNIFICATION, {"EstimatedRadiographicMagnificationFactor": 1.8}),
    (Reason.MAGNIFICATION, {"SeriesDescription": "R MAG CC"}),
    (Reason.IMPLANT, {"BreastImplantPresent": "YES"}),
    (Reason.IMPLANT_DISPLACED, view(code("399209000", "Implant Displaced"))),
    (Reason.IMPLANT_DISPLACED, {"BreastImplantPresent": "YES", **view(code("R-102D5"))}),
    (Reason.IMPLANT_DISPLACED, {"ViewPosition": "MLOID"}),
    (Reason.IMPLANT_DISPLACED, {"SeriesDescription": "L CC implant-displaced"}),
    (Reason.TOMOSYNTHESIS, {"SOPClassUID": uid.BreastTomosynthesisImageStorage}),
    (Reason.TOMOSYNTHESIS, {"SOPClassUID": uid.BreastProjectionXRayImageStorageForProcessing}),
    (Reason.TOMOSYNTHESIS, {"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_PROJ", "RIGHT"]}),
    (Reason.TOMOSYNTHESIS, {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]}),
    (Reason.TOMOSYNTHESIS, {"SeriesDescription": "L CC Tomosynthesis Reconstruction"}),
    (Reason.TOMOSYNTHESIS, {"SOPClassUID": uid.CTImageStorage}),
    (Reason.BURNED_IN, {"BurnedInAnnotation": "YES"}),
    (Reason.NO_LATERALITY, {"ImageLaterality": ""}),
    (Reason.NO_LATERALITY, {"ImageLaterality": "B"}),
]

NEAR_MISSES = [
    {},
    {"Modality": ""},
    {"Modality": "", "SOPClassUID": "1.2.3", "PositionerType": "MAMMOGRAPHIC"},
    {"PresentationIntentType": "FOR PRESENTATION"},
    {"SOPClassUID": f"{uid.SecondaryCaptureImageStorage}7"},
    {"ConversionType": "DF"},
    {"ConversionType": "WSD"},
    {"ConversionType": "WSD", "ImageType": ["ORIGINAL", "PRIMARY", ""]},
    {"ImageType": ["DERIVED", "SECONDARY"]},
    {"QualityControlImage": "NO", "CalibrationImage": "NO"},
    {"Modality": "", "SOPClassUID": "1.2.3", "OrganExposed": "BREAST"},
    {"SeriesDescription": "Specimens, imaginary spotlight; bistereoscopic scouting"},
    {"StudyDescription": "STEREOTACTIC BIOPSY, SPECIMEN, SPOT MAG"},
    {"ImageType": ["ORIGINAL", "PRIMARY", ""]},
    {"Rows": 512, "Columns": 512},
    {"Rows": 512, "Columns": 514, **SPACINGS_OF_A_SCOUT},
    {"Rows": 4096, "Columns": 4096, **SPACINGS_OF_A_SCOUT},
    view(code("399011000", "Axillary Tail")),
    {"PartialView": "YES"},
    {"PaddleDescription": "24CM"},
    {"EstimatedRadiographicMagnificationFactor": 1.1},
    {"BreastImplantPresent": "NO"},
    {"ViewPosition": "MLO"},
    {"ImageType": ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D", "", "", "", "", "150000"]},
    {"ImageType": ["DERIVED", "PRIMARY", "TOMO_2D", "LEFT"]},
    {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"], "SeriesDescription": "L CC C-View"},
    {
        "SOPClassUID": uid.BreastTomosynthesisImageStorage,
        "ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"],
        "NumberOfFrames": 1,
    },
    {"ImageType": ["DERIVED", "PRIMARY"], "SeriesDescription": "R MLO Insight 2D"},
    {"BurnedInAnnotation": "NO"},
]


@pytest.mark.parametrize(("reason", "elements"), REFUSED)
def test_what_is_no_plain_mammogram_is_refused_by_its_name_alone(reasons, reason, elements):
    assert reasons(**elements) == {reason}


@pytest.mark.parametrize("elements", NEAR_MISSES)
def test_what_only_resembles_it_passes(reasons, elements):
    assert reasons(**elements) == frozenset()


def test_a_user_may_allow_what_the_header_decides_and_nothing_else():
    assert set(ALLOWABLE) == {reason for reason, _ in SCREENING_CHECKS}


def test_every_check_has_a_file_that_fails_it():
    assert {reason for reason, _ in REFUSED} == {reason for reason, _ in SCREENING_CHECKS}


def test_a_ct_of_something_else_is_of_the_wrong_modality(reasons):
    chest = {"Modality": "CT", "SOPClassUID": uid.CTImageStorage, "BodyPartExamined": "CHEST"}
    assert reasons(**chest) == {Reason.WRONG_MODALITY}
    breast = chest | {"BodyPartExamined": "BREAST"}
    assert reasons(**breast) == {Reason.TOMOSYNTHESIS, Reason.WRONG_MODALITY}


def test_a_stack_is_tomosynthesis_even_if_it_says_2d(header):
    stack = {"SOPClassUID": uid.BreastTomosynthesisImageStorage, "NumberOfFrames": 60}
    assert is_tomosynthesis(header(**stack))
    assert is_tomosynthesis(header(**stack, SeriesDescription="C-View"))
    assert not is_tomosynthesis(header(NumberOfFrames=60))


def test_two_reasons_are_both_gone_through(reasons):
    both = {"BurnedInAnnotation": "YES", "SOPClassUID": uid.SecondaryCaptureImageStorage}
    assert reasons(**both) == {Reason.BURNED_IN, Reason.SECONDARY_CAPTURE}


@pytest.mark.parametrize("keyword", ["SeriesDescription", "ProtocolName", "PaddleDescription"])
def test_no_free_text_gets_into_the_message(header, keyword):
    dataset = header(**{keyword: "Mrs Smith spot"})
    with pytest.raises(FileRejected, match="says spot") as caught:
        check_screening(dataset, read_facts(dataset, "smith.dcm"), frozenset())
    assert "mith" not in str(caught.value)


def test_a_strange_modality_is_not_quoted(header):
    with pytest.raises(FileRejected, match="Modality is not MG") as caught:
        check_screening(header(Modality="SMITH"), Facts(), frozenset())
    assert "SMITH" not in str(caught.value)


def test_the_codes_are_those_that_pydicom_took_from_the_standard():
    theirs = {
        Reason.SPECIMEN: codes.cid4014.TissueSpecimenFromBreast,
        Reason.SPOT: codes.cid4015.SpotCompression,
        Reason.MAGNIFICATION: codes.cid4015.Magnification,
        Reason.IMPLANT_DISPLACED: codes.cid4015.ImplantDisplaced,
    }
    for reason, code_ in theirs.items():
        assert CODES[reason] == {code_.value, *mapping["SCT"][code_.value].split()}


def test_words_are_spelled_as_they_are_looked_for():
    for word in (word for words in WORDS.values() for word in words):
        assert word == " ".join(word.lower().replace("-", " ").split())
