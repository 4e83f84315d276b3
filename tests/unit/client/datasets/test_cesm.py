import csv

import pytest

from mamfed_client.annotations.shapes import Annotation, Shape
from mamfed_client.datasets import read_folder
from mamfed_client.imaging.rejections import Reason
from mamfed_client.tables.field_parsers import Label, Pathology
from mamfed_common.errors import DataError

HEADER = [
    "Image_name",
    "Patient_ID",
    "Side",
    "Type",
    "Age",
    "Breast density (ACR)",
    "BIRADS",
    "Findings",
    "View",
    "Tags",
    "Machine",
    "Pathology Classification/ Follow up",
]
REGIONS = (
    "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    "region_attributes\n"
)
CIRCLE = '"{""name"":""circle"",""cx"":30,""cy"":40,""r"":5}"'
POLYGON = '"{""name"":""polygon"",""all_points_x"":[1,9,9],""all_points_y"":[2,2,8]}"'  # a triangle


@pytest.fixture
def read(tmp_path):
    """Lay out CDD-CESM of these rows, regions and low-energy images, and read it."""

    def lay_out_and_read(rows, images, regions="", *, name="Radiology-manual-annotations.csv"):
        with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file, delimiter=";").writerows([HEADER, *rows])
        table = tmp_path / "Radiology_hand_drawn_segmentations_v2.csv"
        table.write_text(REGIONS + regions)
        low = tmp_path / "Low energy images of CDD-CESM"
        subtracted = tmp_path / "Subtracted images of CDD-CESM"
        for folder in (low, subtracted):
            folder.mkdir()
        for image in images:
            (low / image).touch()
            (subtracted / image.replace("_DM_", "_CM_")).touch()
        return read_folder(tmp_path)

    return lay_out_and_read


def row_of(name, pathology="Malignant", birads="5", *, density="C", more=()):
    patient, side, kind, view = name.strip().split("_")
    cells = [name, patient[1:], side, kind, 48, density, birads, "Mass", view, "$", 1, pathology]
    return [*cells, *more]


def region_of(name, shape):
    return f'{name},1000,"{{}}",1,0,{shape},"{{}}"\n'


@pytest.mark.parametrize(
    "name", ["Radiology-manual-annotations.csv", "Radiology_manual_annotations_all.csv"]
)
def test_a_malignant_image_and_its_regions_are_joined(read, tmp_path, name):
    regions = region_of("P3_L_DM_CC.jpg", CIRCLE) + region_of("P3_L_DM_CC.jpg", POLYGON)
    manifest = read([row_of("P3_L_DM_CC")], ["P3_L_DM_CC.jpg"], regions, name=name)
    (row,) = manifest.rows
    shapes = (
        Shape("circle", ((30.0, 40.0),), (5.0, 5.0)),
        Shape("polygon", ((1.0, 2.0), (9.0, 2.0), (9.0, 8.0))),
    )
    assert (manifest.layout, manifest.rejected) == ("cdd-cesm", [])
    assert (row.row_number, row.image) == (2, "P3_L_DM_CC")
    assert row.image_path == tmp_path / "Low energy images of CDD-CESM" / "P3_L_DM_CC.jpg"
    assert row.annotations == (Annotation(shapes=shapes),)
    assert (row.patient_id, row.label) == ("3", Label(Pathology.MALIGNANT, (5,)))
    assert (row.laterality, row.view, row.density) == ("L", "CC", "C")
    assert row.allow == {Reason.NO_LATERALITY}


def test_a_blank_before_the_suffix_does_not_part_an_image_from_its_region(read):
    regions = region_of("P3_L_DM_CC .jpg", CIRCLE) + region_of("P4_R_DM_CC.jpg", POLYGON)
    rows = [row_of("P3_L_DM_CC"), row_of("P4_R_DM_CC ")]
    manifest = read(rows, ["P3_L_DM_CC.jpg", "P4_R_DM_CC .JPG"], regions)
    assert [[len(a.shapes) for a in row.annotations] for row in manifest.rows] == [[1], [1]]


def test_a_malignant_image_without_a_region_has_no_annotation(read):
    assert read([row_of("P3_L_DM_CC")], ["P3_L_DM_CC.jpg"]).rows[0].annotations == ()


@pytest.mark.parametrize(("pathology", "used"), [("Normal", 0), ("Benign", 1)])
def test_a_region_on_a_normal_image_is_not_used(read, pathology, used):
    regions = region_of("P3_L_DM_CC.jpg", CIRCLE)
    manifest = read([row_of("P3_L_DM_CC", pathology)], ["P3_L_DM_CC.jpg"], regions)
    assert len(manifest.rows[0].annotations) == used


def test_several_assessments_in_one_cell_and_several_rows_are_joined(read):
    rows = [row_of("P3_L_DM_CC", "Benign", "3$2"), row_of("P3_L_DM_CC", "Malignant", "4")]
    manifest = read(rows, ["P3_L_DM_CC.jpg"])
    assert [row.label for row in manifest.rows] == [Label(Pathology.MALIGNANT, (3, 2, 4))]


def test_subtracted_images_are_not_used_but_speak_for_their_patient(read):
    rows = [row_of("P3_L_DM_CC", "Normal", "1"), row_of("P3_R_CM_CC", "Malignant", "5")]
    manifest = read(rows, ["P3_L_DM_CC.jpg", "P3_R_DM_CC.jpg"])
    assert [row.image for row in manifest.rows] == ["P3_L_DM_CC"]
    assert manifest.rejected == []
    assert [statement.label.pathology for statement in manifest.statements] == [
        Pathology.NORMAL,
        Pathology.MALIGNANT,
    ]


def test_a_region_that_is_not_understood_costs_its_image_not_a_hole_in_its_mask(read):
    regions = region_of("P3_L_DM_CC.jpg", '"{""name"":""spiral""}"')
    regions += region_of("P3_L_DM_CC.jpg", CIRCLE) + region_of("P3_L_DM_MLO.jpg", CIRCLE)
    names = ["P3_L_DM_CC", "P3_L_DM_MLO"]
    manifest = read([row_of(name) for name in names], [f"{n}.jpg" for n in names], regions)
    assert [r.reason for r in manifest.rejected] == [Reason.UNREADABLE_MASK]
    assert [row.image for row in manifest.rows] == ["P3_L_DM_MLO"]


def test_odd_cells_cost_only_their_own_image(read):
    rows = [
        row_of("P1_L_DM_CC", "Malign"),
        row_of("P2_X_DM_CC"),
        row_of("P_L_DM_CC"),
        row_of("P4_L_DM_CC"),
        row_of("P5_L_DM_CC", more=["more"]),
        row_of("P6_L_DM_CC"),
    ]
    images = [f"P{n}_L_DM_CC.jpg" for n in ("1", "2", "", "5", "6")]
    manifest = read(rows, images)
    assert [rejection.reason for rejection in manifest.rejected] == [
        Reason.BAD_LABEL,
        Reason.BAD_LATERALITY,
        Reason.NO_PATIENT,
        Reason.MISSING_IMAGE,
        Reason.WRONG_CELLS,
    ]
    assert [row.image for row in manifest.rows] == ["P6_L_DM_CC"]


def test_the_workbook_alone_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "Radiology-manual-annotations.xlsx").touch()
    (tmp_path / "Low energy images of CDD-CESM").mkdir()
    with pytest.raises(DataError, match=r"save its sheet 'all' as Radiology-manual-\S+csv"):
        read_folder(tmp_path)


def test_two_tables_are_an_error(read, tmp_path):
    (tmp_path / "Radiology-manual-annotations-calc.csv").touch()
    with pytest.raises(DataError, match="2 annotation tables"):
        read([row_of("P3_L_DM_CC")], [])


def test_a_table_of_regions_that_is_none_is_an_error_that_names_it(read, tmp_path):
    (tmp_path / "Radiology_segmentation_more.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"Radiology_segmentation_more\.csv"):
        read([row_of("P3_L_DM_CC")], [])


def test_a_table_without_images_is_an_error(tmp_path):
    (tmp_path / "Radiology-manual-annotations.csv").write_text(",".join(HEADER) + "\n")
    with pytest.raises(DataError, match="Low energy images"):
        read_folder(tmp_path)
