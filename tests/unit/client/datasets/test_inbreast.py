import pytest

from mamfed_client.annotations.shapes import Annotation
from mamfed_client.datasets import read_folder
from mamfed_client.imaging.rejections import Reason
from mamfed_client.tables.field_parsers import Label
from mamfed_common.errors import DataError

HEADER = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"
PATIENT = "6c613a14b80a8591"


@pytest.fixture
def read(tmp_path):
    """Lay out INbreast of these table rows, images and outlines, and read it."""

    def lay_out_and_read(rows, images, outlines=(), encoding="utf-8"):
        lines = [HEADER, *(f"removed;removed;{row}" for row in rows), ""]
        (tmp_path / "INbreast.csv").write_bytes("\r\n".join(lines).encode(encoding))
        for name in ("AllDICOMs", "AllXML", "AllROI"):
            (tmp_path / name).mkdir()
        for name in images:
            (tmp_path / "AllDICOMs" / name).touch()
        for image_id in outlines:
            (tmp_path / "AllXML" / f"{image_id}.xml").touch()
        return read_folder(tmp_path)

    return lay_out_and_read


def name_of(image_id, *, patient=PATIENT, side="R", view="CC"):
    return f"{image_id}_{patient}_MG_{side}_{view}_ANON.dcm"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_row_and_the_name_of_its_image_are_joined(read, tmp_path, encoding):
    manifest = read(["R;CC;201001;20586908;4;4a"], [name_of(20586908)], [20586908], encoding)
    (row,) = manifest.rows
    path = tmp_path / "AllDICOMs" / name_of(20586908)
    assert (manifest.layout, manifest.rejected) == ("inbreast", [])
    assert (row.row_number, row.image, row.image_path) == (2, "20586908", path)
    assert row.annotations == (Annotation(tmp_path / "AllXML/20586908.xml", path.name),)
    assert (row.patient_id, row.label) == (PATIENT, Label(None, (4,)))
    assert (row.laterality, row.view, row.density) == ("R", "CC", "D")
    assert row.allow == {Reason.NO_LATERALITY}
    (statement,) = manifest.statements
    assert (statement.patient_id, statement.label) == (PATIENT, Label(None, (4,)))


def test_odd_cells_of_the_real_table_are_read(read):
    blanks = " " * 190
    rows = [
        f"R;CC;201001;1;{blanks};4C ",
        "R;MLO;201001;2;3;6",
        "L;FB;201001;3;1; 5",
        "L;CC;201001;4;1;4b",
    ]
    images = [name_of(1), name_of(2, view="ML"), name_of(3, side="L", view="FB")]
    rows = read(rows, [*images, name_of(4, side="L")]).rows
    assert [row.label.birads for row in rows] == [(4,), (6,), (5,), (4,)]
    assert [row.density for row in rows] == [None, "C", "A", "A"]
    assert [row.view for row in rows] == ["CC", "ML", "FB", "CC"]


def test_a_normal_image_has_no_outlines(read):
    assert read(["R;CC;201001;1;1;1"], [name_of(1)]).rows[0].annotations == ()


def test_a_row_without_its_image_is_rejected_by_name(read):
    manifest = read(["R;CC;201001;1;1;1", "R;CC;201001;2;1;1"], [name_of(2)])
    (rejection,) = manifest.rejected
    assert (rejection.row_number, rejection.image) == (2, "1")
    assert rejection.reason is Reason.MISSING_IMAGE
    assert [row.image for row in manifest.rows] == ["2"]
    assert [statement.row_number for statement in manifest.statements] == [3]


def test_an_image_without_its_row_is_rejected_by_name_and_leaves_its_patient_unclear(read):
    manifest = read(["R;CC;201001;1;1;1"], [name_of(1), name_of(2), "holiday.jpg"])
    assert [(r.row_number, r.image) for r in manifest.rejected] == [(3, "2"), (4, "holiday.jpg")]
    assert {r.reason for r in manifest.rejected} == {Reason.BAD_LABEL}
    labels = [(s.patient_id, s.label) for s in manifest.statements]
    assert labels == [(PATIENT, Label(None, (1,))), (PATIENT, None)]


def test_a_breast_on_which_table_and_name_disagree_is_refused(read):
    (rejection,) = read(["L;CC;201001;1;1;1"], [name_of(1, side="R")]).rejected
    assert rejection.reason is Reason.BAD_LATERALITY


def test_an_image_in_two_rows_takes_both_labels(read):
    manifest = read(["R;CC;201001;1;1;2", "R;CC;201001;1;1;5"], [name_of(1)])
    assert [row.label.birads for row in manifest.rows] == [(2, 5)]
    assert manifest.rejected == []


def test_a_bad_category_costs_its_row_and_leaves_its_patient_unclear(read):
    manifest = read(["R;CC;201001;1;1;7", "R;MLO;201001;2;1;1"], [name_of(1), name_of(2)])
    assert [rejection.reason for rejection in manifest.rejected] == [Reason.BAD_LABEL]
    assert [statement.label for statement in manifest.statements] == [None, Label(None, (1,))]


def test_no_message_names_the_patient(read):
    rows = ["R;CC;201001;1;1;7", "L;CC;201001;2;1;1", "R;CC;201001;3;1;1;9"]
    manifest = read(rows, [name_of(n) for n in (1, 2, 3, 4)])
    assert len(manifest.rejected) == 4
    assert not [r for r in manifest.rejected if PATIENT in r.detail + r.image]


def test_the_workbook_alone_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "INbreast.xls").touch()
    with pytest.raises(DataError, match=r"save it as INbreast\.csv"):
        read_folder(tmp_path)


def test_a_table_without_images_is_an_error(tmp_path):
    (tmp_path / "INbreast.csv").write_text(f"{HEADER}\na;b;R;CC;1;1;1;1\n")
    with pytest.raises(DataError, match="AllDICOMs"):
        read_folder(tmp_path)
