import pytest

from mamfed_client.annotations.shapes import Annotation, Shape
from mamfed_client.datasets import read_folder
from mamfed_client.imaging.rejections import Reason
from mamfed_client.tables.field_parsers import Label, Pathology
from mamfed_common.errors import DataError

PROSE = """\
INFORMATION:

This file lists the films in the MIAS database and provides
appropriate details as follows:

1st column: MIAS database reference number.

REFNUM BG CLASS SEVERITY X Y RADIUS

"""
FIRST_LINE = PROSE.count("\n") + 1


@pytest.fixture
def read(tmp_path):
    """Lay out mini-MIAS of these lines, with an image for each number, and read it."""

    def lay_out_and_read(lines, numbers, newline="\n"):
        text = (PROSE + "\n".join(lines) + "\n").replace("\n", newline)
        (tmp_path / "Info.txt").write_bytes(text.encode())
        (tmp_path / "all-mias").mkdir()
        for number in numbers:
            path = tmp_path / "all-mias" / f"mdb{number:03}.pgm"
            path.write_bytes(b"P5\n3 2\n255\n" + bytes(6))
        return read_folder(tmp_path)

    return lay_out_and_read


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_line_is_understood_and_its_circle_counts_from_the_bottom(read, tmp_path, newline):
    manifest = read(["mdb001 G CIRC B 535 425 197"], [1], newline)
    (row,) = manifest.rows
    assert (manifest.layout, manifest.rejected) == ("mini-mias", [])
    assert (row.row_number, row.image) == (FIRST_LINE, "mdb001")
    assert row.image_path == tmp_path / "all-mias" / "mdb001.pgm"
    circle = Shape("circle", ((535.0, 599.0),), (197.0, 197.0))
    assert row.annotations == (Annotation(shapes=(circle,)),)
    assert row.label == Label(Pathology.BENIGN, ())
    assert (row.laterality, row.view, row.spacing_mm) == ("R", "MLO", 0.2)
    assert (row.density, row.allow) == ("fatty-glandular", {Reason.NO_LATERALITY})
    assert row.kind == "mass"


def test_a_pair_is_one_patient_the_odd_one_her_right_breast(read):
    lines = ["mdb001 G NORM", "mdb002 F NORM ", "mdb003 D NORM", "mdb004 D NORM"]
    manifest = read(lines, [1, 2, 3, 4])
    assert [(row.patient_id, row.laterality) for row in manifest.rows] == [
        ("MIAS001", "R"),
        ("MIAS001", "L"),
        ("MIAS002", "R"),
        ("MIAS002", "L"),
    ]
    assert {row.label for row in manifest.rows} == {Label(Pathology.NORMAL, ())}
    assert [row.density for row in manifest.rows][1:3] == ["fatty", "dense-glandular"]
    assert {row.kind for row in manifest.rows} == {None}
    assert [row.annotations for row in manifest.rows] == [()] * 4


def test_findings_of_an_image_become_one_row(read):
    lines = ["mdb005 F CIRC B 477 133 30", "mdb005 F CIRC B 500 168 26", "mdb006 F NORM"]
    manifest = read(lines, [5, 6])
    assert [row.image for row in manifest.rows] == ["mdb005", "mdb006"]
    centres = [shape.points[0] for shape in manifest.rows[0].annotations[0].shapes]
    assert centres == [(477.0, 891.0), (500.0, 856.0)]


def test_of_a_malignant_image_only_malignant_findings_are_outlined(read):
    (row,) = read(["mdb005 F CIRC B 477 133 30", "mdb005 F SPIC M 500 168 26"], [5]).rows
    assert row.label == Label(Pathology.MALIGNANT, ())
    assert [shape.points[0] for shape in row.annotations[0].shapes] == [(500.0, 856.0)]


@pytest.mark.parametrize(
    "lines",
    [
        ["mdb245 F CALC M *NOTE 3*"],
        ["mdb245 F CALC M"],
        ["mdb245 F CALC M 500 168"],
        ["mdb245 F CALC M 500 168 26", "mdb245 F CALC M *NOTE 3*"],
    ],
)
def test_a_finding_without_a_place_leaves_its_image_without_outlines(read, lines):
    (row,) = read(lines, [245]).rows
    assert (row.label.pathology, row.annotations) == (Pathology.MALIGNANT, ())


def test_a_missing_image_and_an_odd_severity_cost_only_themselves(read):
    lines = ["mdb001 G CIRC X 1 2 3", "mdb002 G CIRC M 522 280 69", "mdb003 D NORM"]
    manifest = read(lines, [1, 3])
    assert [(r.row_number, r.reason) for r in manifest.rejected] == [
        (FIRST_LINE, Reason.BAD_LABEL),
        (FIRST_LINE + 1, Reason.MISSING_IMAGE),
    ]
    assert [row.image for row in manifest.rows] == ["mdb003"]
    labels = [(s.patient_id, s.label) for s in manifest.statements]
    assert labels[:2] == [("MIAS001", None), ("MIAS001", Label(Pathology.MALIGNANT, ()))]


def test_a_text_without_such_lines_is_an_error_when_asked_for(tmp_path):
    (tmp_path / "Info.txt").write_text(PROSE)
    with pytest.raises(DataError, match=r"no Info\.txt with lines like"):
        read_folder(tmp_path, "mini-mias")
