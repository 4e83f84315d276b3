import pytest

from mamfed_client.annotations.shapes import Annotation, Shape
from mamfed_client.datasets import read_folder
from mamfed_client.imaging.rejections import Reason
from mamfed_client.tables.field_parsers import Label
from mamfed_common.errors import DataError

HEADER = (
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,"
    "breast_density,finding_categories,finding_birads,xmin,ymin,xmax,ymax,split"
)
NORMAL = "s1,r1,a,R,MLO,3518,2800,BI-RADS 1,DENSITY C,['No Finding'],,,,,,training"


@pytest.fixture
def read(tmp_path):
    """Lay out VinDr-Mammo of these rows and images, given as study/image, and read it."""

    def lay_out_and_read(rows, images, breasts=None):
        (tmp_path / "finding_annotations.csv").write_text("\n".join([HEADER, *rows, ""]))
        if breasts is not None:
            header = HEADER.split(",finding_categories")[0] + ",split"
            table = tmp_path / "breast-level_annotations.csv"
            table.write_text("\n".join([header, *breasts, ""]))
        for name in images:
            path = tmp_path / "images" / f"{name}.dicom"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return read_folder(tmp_path)

    return lay_out_and_read


def test_a_normal_image_is_understood(read, tmp_path):
    manifest = read([NORMAL], ["s1/a"])
    (row,) = manifest.rows
    assert (manifest.layout, manifest.rejected) == ("vindr-mammo", [])
    assert (row.row_number, row.image) == (2, "a")
    assert row.image_path == tmp_path / "images" / "s1" / "a.dicom"
    assert (row.patient_id, row.label, row.annotations) == ("s1", Label(None, (1,)), ())
    assert (row.laterality, row.view, row.density) == ("R", "MLO", "C")
    assert (row.split, row.allow) == ("training", {Reason.NO_LATERALITY})
    assert manifest.statements[0].split == "training"


def test_findings_of_an_image_become_boxes_of_one_row(read):
    lines = [
        "s1,r1,b,L,CC,3518,2800,BI-RADS 5,DENSITY B,\"['Mass', 'Asymmetry']\",BI-RADS 5,"
        "-3.5,1700.25,2801.5,1909.5,test",
        NORMAL,
        "s1,r1,b,L,CC,3518,2800,BI-RADS 5,DENSITY B,['Mass'],BI-RADS 3,10.0,20.0,30.0,40.0,test",
    ]
    rows = read(lines, ["s1/a", "s1/b"]).rows
    boxes = (
        Shape("box", ((-3.5, 1700.25), (2801.5, 1909.5))),
        Shape("box", ((10.0, 20.0), (30.0, 40.0))),
    )
    assert [row.image for row in rows] == ["b", "a"]
    assert rows[0].annotations == (Annotation(shapes=boxes),)
    assert (rows[0].row_number, rows[0].label) == (2, Label(None, (5,)))


@pytest.mark.parametrize("corners", ["1,2,3,", "1,2,3,x", "1,2,3,nan", ",,,1"])
def test_a_box_that_is_not_four_numbers_refuses_its_image(read, corners):
    line = f"s1,r1,b,L,CC,1,1,BI-RADS 5,DENSITY B,['Mass'],BI-RADS 5,{corners},test"
    assert read([line], ["s1/b"]).rejected[0].reason is Reason.UNREADABLE_MASK


def test_images_that_only_the_table_of_breasts_lists_are_added(read):
    breasts = [
        "s1,r1,a,R,MLO,3518,2800,BI-RADS 1,DENSITY C,training",
        "s2,r2,c,L,CC,3518,2800,BI-RADS 2,DENSITY D,test",
    ]
    rows = read([NORMAL], ["s1/a", "s2/c"], breasts).rows
    assert [(row.row_number, row.image, row.label.birads) for row in rows] == [
        (2, "a", (1,)),
        (5, "c", (2,)),
    ]


def test_a_missing_image_is_refused_without_naming_its_patient(read):
    manifest = read([NORMAL, NORMAL.replace("s1", "s2").replace(",a,", ",b,")], ["s2/b", "s9/a"])
    (rejection,) = manifest.rejected
    assert (rejection.reason, rejection.image) == (Reason.MISSING_IMAGE, "a")
    assert "s1" not in rejection.detail
    assert [statement.patient_id for statement in manifest.statements] == ["s1", "s2"]


def test_an_id_cannot_lead_out_of_the_folder(read, tmp_path):
    (tmp_path / "x.dicom").touch()
    manifest = read([NORMAL.replace("s1,r1,a", "..,r1,x")], ["s1/a"])
    assert [rejection.reason for rejection in manifest.rejected] == [Reason.MISSING_IMAGE]


def test_odd_cells_cost_only_their_own_image(read):
    lines = [
        NORMAL.replace("BI-RADS 1", "BI-RADS 9"),
        NORMAL.replace("s1,", ",").replace(",a,", ",b,"),
        NORMAL.replace(",a,", ",c,"),
        f"{NORMAL.replace(',a,', ',d,')},more",
    ]
    manifest = read(lines, ["s1/a", "s1/b", "s1/c", "s1/d"])
    reasons = [Reason.BAD_LABEL, Reason.NO_PATIENT, Reason.WRONG_CELLS]
    assert [rejection.reason for rejection in manifest.rejected] == reasons
    assert [row.image for row in manifest.rows] == ["c"]


def test_a_table_without_images_is_an_error(tmp_path):
    (tmp_path / "finding_annotations.csv").write_text(f"{HEADER}\n{NORMAL}\n")
    with pytest.raises(DataError, match="no folder images"):
        read_folder(tmp_path)
