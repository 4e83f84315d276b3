import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr._snomed_dict import mapping
from pydicom.sr.codedict import codes

from mamfed_client.imaging.dicom_attributes import SIDE_CODES, VIEW_CODES, read_facts
from mamfed_client.imaging.mammogram import Facts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture
def tell(tmp_path, drawing):
    def write_and_gather(file_name="1-1.dcm", **elements):
        drawing.dicom(tmp_path / "a.dcm", np.zeros((4, 4)), **elements)
        return read_facts(pydicom.dcmread(tmp_path / "a.dcm"), file_name)

    return write_and_gather


def code(value, scheme="SCT", **elements):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    for keyword, element in elements.items():
        setattr(item, keyword, element)
    return item


def item(**elements):
    dataset = Dataset()
    for keyword, element in elements.items():
        setattr(dataset, keyword, element)
    return dataset


def side(known):
    return known.laterality, known.laterality_source


def view(known):
    return known.view, known.view_source


class TestLaterality:
    def test_image_laterality_comes_before_laterality(self, tell):
        assert side(tell(ImageLaterality="R", Laterality="L")) == ("R", "ImageLaterality")
        assert side(tell(ImageLaterality="", Laterality="L")) == ("L", "Laterality")

    def test_a_whole_word_does(self, tell):
        assert side(tell(Laterality="Right")) == ("R", "Laterality")

    def test_both_breasts_in_view_is_none_whatever_else_is_said(self, tell):
        assert side(tell("x_L_CC.dcm", ImageLaterality="B", Laterality="L")) == (None, "")
        assert side(tell("x_L_CC.dcm", Laterality="B")) == (None, "")

    def test_an_unpaired_part_is_no_answer(self, tell):
        assert side(tell("x_L_CC.dcm", ImageLaterality="U")) == ("L", "file name")

    def test_the_frame_s_anatomy_serves_where_the_image_is_silent(self, tell):
        groups = item(FrameAnatomySequence=[item(FrameLaterality="R")])
        known = tell(SharedFunctionalGroupsSequence=[groups])
        assert side(known) == ("R", "FrameLaterality")

    @pytest.mark.parametrize(("value", "scheme"), [("7771000", "SCT"), ("G-A101", "SRT")])
    def test_a_coded_modifier_of_the_region_serves(self, tell, value, scheme):
        region = code("76752008", AnatomicRegionModifierSequence=[code(value, scheme)])
        assert side(tell(AnatomicRegionSequence=[region])) == (
            "L",
            "AnatomicRegionModifierSequence",
        )

    def test_modifiers_for_both_sides_are_no_answer(self, tell):
        both = [code("7771000"), code("24028007")]
        region = code("76752008", AnatomicRegionModifierSequence=both)
        assert side(tell(AnatomicRegionSequence=[region])) == (None, "")

    def test_patient_orientation_is_not_asked(self, tell):
        assert side(tell(PatientOrientation=["A", "R"])) == (None, "")

    def test_cbis_writes_it_into_the_patient_id(self, tell):
        known = tell(PatientID="Mass-Test_P_00173_LEFT_CC")
        assert side(known) == ("L", "PatientID")
        assert view(known) == ("CC", "PatientID")
        assert side(tell(PatientID="P_LEFT_CC")) == (None, "")

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", ("R", "CC")),
            ("P1_L_CM_MLO.jpg", ("L", "MLO")),
            ("00076_LEFT_MLO.dcm", ("L", "MLO")),
            ("case7 R-ML", ("R", "ML")),
            ("LCC.dcm", ("L", "CC")),
            ("rmlo.dcm", ("R", "MLO")),
            ("left.dcm", ("L", None)),
            ("xccl-right.dcm", ("R", "XCCL")),
            ("lm-right.dcm", ("R", "LM")),
        ],
    )
    def test_the_file_name_tells_last(self, tell, name, expected):
        known = tell(name)
        assert (known.laterality, known.view) == expected
        assert known.laterality_source == "file name"

    @pytest.mark.parametrize(
        "name", ["R_Miller.dcm", "L_R_CC.dcm", "LEFT_RIGHT.dcm", "bright.dcm", "LM.dcm", "1-1.dcm"]
    )
    def test_initials_parts_of_words_and_both_sides_are_no_side(self, tell, name):
        assert side(tell(name)) == (None, "")


class TestView:
    def test_view_position_comes_first(self, tell):
        known = tell(ViewPosition="mlo ", ViewCodeSequence=[code("399162004")])
        assert view(known) == ("MLO", "ViewPosition")

    @pytest.mark.parametrize(("value", "expected"), VIEW_CODES.items())
    def test_codes_come_next(self, tell, value, expected):
        assert view(tell(ViewCodeSequence=[code(value)])) == (expected, "ViewCodeSequence")

    def test_prose_and_unknown_codes_are_no_view(self, tell):
        known = tell(ViewPosition="see, note", ViewCodeSequence=[code("1")])
        assert view(known) == (None, "")

    def test_cbis_writes_it_into_patient_orientation(self, tell):
        assert view(tell(PatientOrientation="CC")) == ("CC", "PatientOrientation")
        assert view(tell("a_L_ML.dcm", PatientOrientation=["P", "FL"])) == ("ML", "file name")


def test_the_codes_are_those_that_pydicom_took_from_the_standard():
    meanings = {
        "CC": codes.cid4014.CranioCaudal,
        "MLO": codes.cid4014.MedioLateralObliqueProjection,
        "ML": codes.cid4014.MedioLateralProjection,
        "LM": codes.cid4014.LateroMedial,
        "LMO": codes.cid4014.LateroMedialOblique,
        "FB": codes.cid4014.CaudoCranial,
        "SIO": codes.cid4014.SuperolateralToInferomedialOblique,
        "ISO": codes.cid4014.InferomedialToSuperolateralOblique,
        "XCCL": codes.cid4014.CranioCaudalExaggeratedLaterally,
        "XCCM": codes.cid4014.CranioCaudalExaggeratedMedially,
        "L": codes.cid244.Left,
        "R": codes.cid244.Right,
    }
    ours = VIEW_CODES | SIDE_CODES
    for meaning, theirs in meanings.items():
        assert ours[theirs.value] == meaning
    for value, meaning in ours.items():
        assert ours[mapping["SRT"].get(value, value)] == meaning
        assert ours[mapping["SCT"].get(value, value)] == meaning


class TestSpacing:
    def test_that_of_the_detector_comes_first(self, tell):
        known = tell(ImagerPixelSpacing=[0.094, 0.094], PixelSpacing=[0.0941, 0.0941])
        assert known.spacing_mm == 0.094

    def test_pixel_spacing_and_that_of_a_scanner_serve(self, tell):
        assert tell(PixelSpacing=[0.07, 0.07]).spacing_mm == 0.07
        assert tell(NominalScannedPixelSpacing=[0.05, 0.05]).spacing_mm == 0.05

    def test_a_spacing_in_the_breast_is_brought_to_the_detector(self, tell):
        calibrated = {"PixelSpacing": [0.05, 0.05], "PixelSpacingCalibrationType": "GEOMETRY"}
        known = tell(**calibrated, EstimatedRadiographicMagnificationFactor=1.5)
        assert known.spacing_mm == pytest.approx(0.075)
        assert tell(**calibrated).spacing_mm == 0.05

    def test_two_that_differ_by_the_magnification_agree(self, tell):
        both = {"ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.0556, 0.0556]}
        assert tell(**both, EstimatedRadiographicMagnificationFactor=1.8).spacing_mm == 0.1
        assert tell(**both).spacing_mm is None

    def test_contradictory_spacings_are_no_spacing(self, tell):
        # The scout view of a stereotactic unit.
        both = {"ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.975, 0.975]}
        assert tell(**both).spacing_mm is None

    @pytest.mark.parametrize("spacing", [[0.07, 0.14], [0, 0], [-0.1, -0.1], [70, 70], [0.001] * 2])
    def test_what_cannot_be_a_mammogram_s_is_no_spacing(self, tell, spacing):
        assert tell(ImagerPixelSpacing=spacing).spacing_mm is None

    def test_what_is_no_number_costs_nothing_else(self, tell, tmp_path, drawing):
        drawing.dicom(
            tmp_path / "a.dcm",
            np.zeros((4, 4)),
            ImagerPixelSpacing=["0.07", "0.07"],
            PixelSpacing=[0.08, 0.08],
            Laterality="L",
        )
        broken = (tmp_path / "a.dcm").read_bytes().replace(b"0.07\\0.07", b"Mrs Smith")
        (tmp_path / "b.dcm").write_bytes(broken)
        known = read_facts(pydicom.dcmread(tmp_path / "b.dcm"), "b.dcm")
        assert (known.spacing_mm, known.laterality) == (0.08, "L")


class TestVendor:
    @pytest.mark.parametrize(
        ("manufacturer", "family"),
        [
            ("HOLOGIC, Inc.", "Hologic"),
            ("LORAD", "Hologic"),
            ("LORAD, A Hologic Company", "Hologic"),
            ("GE MEDICAL SYSTEMS", "GE"),
            ("GE Healthcare ", "GE"),
            ("SIEMENS", "Siemens"),
            ("FUJIFILM Corporation", "Fujifilm"),
            ("Philips Digital Mammography Sweden AB", "Philips"),
            ("Sectra Imtec AB", "Philips"),
            ("IMS GIOTTO S.p.A.", "IMS Giotto"),
            ("PLANMED", "Planmed"),
            ("Agfa", "Agfa"),
            ("KODAK", "Carestream"),
            ("Gentle X-Rays", "Gentle X-Rays"),
            ("", None),
        ],
    )
    def test_known_makers_have_one_name_and_others_their_own(self, tell, manufacturer, family):
        assert tell(Manufacturer=manufacturer).vendor == family

    def test_the_model_tells_the_maker_where_the_file_does_not(self, tell):
        known = tell(ManufacturerModelName="Mammomat Inspiration")
        assert (known.vendor, known.model) == ("Siemens", "Mammomat Inspiration")
        assert tell(ManufacturerModelName="X1000").vendor is None
        assert tell(Manufacturer="Acme", ManufacturerModelName="Selenia").vendor == "Acme"

    def test_a_strange_name_is_kept_short_and_printable(self, tell):
        assert tell(Manufacturer="A\x1b[2J" + 100 * "b").vendor == "A[2J" + 60 * "b"


def test_an_assessment_counts_where_a_comment_holds_nothing_else(tell):
    assert tell(ImageComments="BI-RADS 4A").birads == "4a"
    assert tell(ImageComments="ACR BIRADS: 2").birads == "2"
    for prose in ("BI-RADS 4A, biopsy advised", "no BI-RADS 4", "BI-RADS 7", "BI-RADS", "4"):
        assert tell(ImageComments=prose).birads is None


def test_identifiers_are_kept_but_not_shown(tell):
    known = tell()
    assert (known.patient, known.instance) == ("secret-id", "1.2.826.0.1.3680043.8.498.1")
    assert "secret-id" not in repr(known)


def test_a_bare_header_tells_nothing():
    assert read_facts(Dataset(), "") == Facts()


def test_the_images_of_a_cbis_patient_are_one_patients(tell):
    names = ("Mass-Test_P_00173_LEFT_CC", "Calc-Training_P_00173_RIGHT_MLO_1")
    assert {tell(PatientID=name).patient for name in names} == {"P_00173"}
    assert tell(PatientID="Mass-Test").patient == "Mass-Test"
