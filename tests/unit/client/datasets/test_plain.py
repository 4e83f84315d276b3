from unicodedata import normalize

import pytest

from mamfed_client.annotations.shapes import Annotation
from mamfed_client.datasets import read_folder
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.tables.field_parsers import (
    Label,
    Pathology,
    parse_density,
    parse_kind,
    parse_label,
)
from mamfed_common.errors import DataError


@pytest.fixture
def read(tmp_path):
    """Write a table beside images 1.png to 4.png and masks m1.png to m4.png, and read it."""

    def write_and_read(text, encoding="utf-8"):
        for number in range(1, 5):
            (tmp_path / f"{number}.png").touch()
            (tmp_path / f"m{number}.png").touch()
        (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
        return read_folder(tmp_path)

    return write_and_read


def only_rejection(manifest):
    (rejection,) = manifest.rejected
    return rejection


def test_a_row_is_understood_cell_by_cell(read, tmp_path):
    manifest = read(
        "image,mask,patient_id,laterality,view,pathology,birads,spacing_mm,vendor,x_note\n"
        "1.png,m1.png,P1,left,mlo,MALIGNANT,4a|2,0.07,GE,ours\n"
    )
    (row,) = manifest.rows
    assert row.row_number == 2
    assert row.image_path == tmp_path / "1.png"
    assert row.annotations == (Annotation(tmp_path / "m1.png", "1.png"),)
    assert row.label == Label(Pathology.MALIGNANT, (4, 2))
    assert (row.laterality, row.view, row.spacing_mm, row.vendor) == ("L", "MLO", 0.07, "GE")
    assert manifest.layout == "labels"
    assert manifest.rejected == []


def test_a_mask_cell_names_several_files_of_any_kind(read, tmp_path):
    (tmp_path / "1.xml").touch()
    manifest = read("image,mask,patient_id,birads\n1.png,m1.png | 1.xml,P1,5\n2.png,,P2,1\n")
    paths = [annotation.path for annotation in manifest.rows[0].annotations]
    assert paths == [tmp_path / "m1.png", tmp_path / "1.xml"]
    assert manifest.rows[1].annotations == ()


@pytest.mark.parametrize("cell", ["m1.png|m9.png", "m1.png|", "|m1.png"])
def test_one_missing_mask_of_several_refuses_the_row(read, cell):
    manifest = read(f"image,mask,patient_id,birads\n1.png,{cell},P1,5\n")
    assert only_rejection(manifest).reason is Reason.MISSING_MASK


def test_the_file_need_not_tell_the_breast_that_the_table_tells(read):
    rows = read("image,patient_id,birads,laterality\n1.png,P1,1,R\n2.png,P2,1,\n").rows
    assert [row.allow for row in rows] == [{Reason.NO_LATERALITY}, frozenset()]


def test_density_and_split_are_taken(read):
    rows = read("image,patient_id,birads,density,split\n1.png,P1,1,3,Train\n2.png,P2,1,,\n").rows
    assert [(row.density, row.split) for row in rows] == [("C", "Train"), (None, "")]


def test_of_a_finding_only_its_kind_is_kept(read):
    text = (
        "image,patient_id,birads,finding\n1.png,P1,5,Mass near the scar of Ms Miller\n2.png,P2,1,\n"
    )
    assert [row.kind for row in read(text).rows] == ["mass", None]


@pytest.mark.parametrize(
    ("finding", "kind"),
    [
        ("Mass", "mass"),
        ("High density mass with speculated margin", "mass"),
        ("['Nodule']", "mass"),
        ("SPIC", "mass"),
        ("calcification", "calcification"),
        ("Suspicious Calcification; mass", "both"),
        ("CIRC CALC", "both"),
        ("architectural distortion", "other"),
        ("ARCH", "other"),
        ("", None),
        (" ", None),
    ],
)
def test_a_tables_words_are_read_as_kinds_of_lesions(finding, kind):
    assert parse_kind(finding) == kind


@pytest.mark.parametrize(
    ("cell", "density"),
    [
        ("1", "A"),
        ("4.0", "D"),
        ("b", "B"),
        ("DENSITY C", "C"),
        ("ACR 2", "B"),
        ("BI-RADS category d", "D"),
        ("", None),
        ("0", "0"),
        ("5", "5"),
        ("fatty", "fatty"),
        ("e", "e"),
    ],
)
def test_density_is_a_letter_where_the_scale_is_known(cell, density):
    assert parse_density(cell) == density


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_what_spreadsheets_write_is_read(read, encoding, separator, newline):
    lines = ["image,patient_id,birads", '1.png," Ä 1 ",2', "", ",,", "2.png,P2,1$2", "\x1a"]
    manifest = read(newline.join(lines).replace(",", separator), encoding)
    assert [row.row_number for row in manifest.rows] == [2, 5]
    assert manifest.rows[0].patient_id == "Ä 1"
    assert manifest.rows[1].label == Label(None, (1, 2))


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;"])
def test_a_line_that_names_the_separator_is_no_header(read, first):
    manifest = read(f"{first}\r\nimage;patient_id;birads\r\n1.png;P,1;2\r\n9.png;P2;2\r\n")
    assert [row.patient_id for row in manifest.rows] == ["P,1"]
    assert only_rejection(manifest).row_number == 4


def test_the_separator_is_sought_outside_of_quotes(read):
    manifest = read('image;patient_id;birads;"x_a,b,c,d,e"\n1.png;P1;2;\n')
    assert [row.patient_id for row in manifest.rows] == ["P1"]


def test_columns_without_a_name_at_the_right_are_none(read):
    manifest = read("image;patient_id;birads;;\n1.png;P1;2;;\n2.png;P2;2\n")
    assert [row.patient_id for row in manifest.rows] == ["P1", "P2"]


@pytest.mark.parametrize("row", ["1.png;P1;2;note;", "1.png;P1;2;;;", "1.png;P1;2;", "1.png;P1"])
def test_a_row_that_does_not_fit_its_header_is_refused(read, row):
    rejected = only_rejection(read(f"image;patient_id;birads;;\n{row}\n"))
    assert rejected.reason is Reason.WRONG_CELLS


def test_a_column_without_a_name_amid_others_is_an_error(read):
    with pytest.raises(DataError, match="unknown column number 1"):
        read(",image,patient_id,birads\n0,1.png,P1,2\n")


@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u3000", " \u200b"])
def test_odd_blanks_and_full_width_letters_mean_what_they_look_like(read, space):
    header = f"image;{space}patient_id;pathology;birads;laterality;view;density;spacing_mm"
    cells = f"1.png;P1;be\u00adnign;BI-RADS{space}2;\uff2c;{space}mlo;ACR{space}2;0,07"
    (row,) = read(f"{header}\n{cells}\n").rows
    assert (row.patient_id, row.laterality, row.view) == ("P1", "L", "MLO")
    assert (row.density, row.spacing_mm) == ("B", 0.07)
    assert row.label == Label(Pathology.BENIGN, (2,))


@pytest.mark.parametrize(("cell", "spacing"), [("0,07", 0.07), ("0.07", 0.07), ("\u00a00,1", 0.1)])
def test_a_spacing_has_a_point_or_a_comma(read, cell, spacing):
    assert read(f"image;patient_id;birads;spacing_mm\n1.png;P1;2;{cell}\n").rows[0].spacing_mm == (
        spacing
    )


@pytest.mark.parametrize("cell", ["0,0,7", "1.000,5", "0_1", "0,07 mm", "nan"])
def test_a_spacing_that_is_no_number_is_refused(read, cell):
    rejected = only_rejection(read(f"image;patient_id;birads;spacing_mm\n1.png;P1;2;{cell}\n"))
    assert rejected.reason is Reason.BAD_SPACING


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_an_accent_in_one_code_point_or_two_names_one_file(read, tmp_path, form, other):
    (tmp_path / normalize(form, "Möller")).mkdir()
    (tmp_path / normalize(form, "Möller/é.png")).touch()
    cell = normalize(other, "Möller/é.png")
    (row,) = read(f"image,patient_id,birads\n{cell},P1,2\n").rows
    assert row.image_path.is_file()


def test_a_name_in_other_capitals_is_found_unless_two_are(read, tmp_path):
    (tmp_path / "A.PNG").touch()
    assert read("image,patient_id,birads\na.png,P1,2\n").rows[0].image_path.name == "A.PNG"
    (tmp_path / "A.png").touch()
    rejected = only_rejection(read("image,patient_id,birads\na.png,P1,2\n"))
    assert rejected.reason is Reason.MISSING_IMAGE
    assert "2 names differ" in rejected.detail


def test_two_spellings_of_one_file_are_one_image(read, tmp_path):
    (tmp_path / "A.PNG").touch()
    manifest = read("image,patient_id,birads\na.png,P1,2\nA.PNG,P1,2\n")
    assert only_rejection(manifest).reason is Reason.DUPLICATE_IMAGE


def test_a_table_in_capitals_is_the_table(tmp_path):
    (tmp_path / "1.png").touch()
    (tmp_path / "Labels.CSV").write_text("image,patient_id,birads\n1.png,P1,2\n")
    assert read_folder(tmp_path).layout == "labels"
    (tmp_path / "LABELS.csv").write_text("image,patient_id,birads\n1.png,P1,2\n")
    with pytest.raises(DataError, match=r"holds LABELS\.csv and Labels\.CSV; keep one"):
        read_folder(tmp_path)


def test_a_quoted_newline_does_not_shift_the_row_numbers(read):
    manifest = read('image,patient_id,birads,finding\n1.png,P1,2,"two\nlines"\n9.png,P2,2,\n')
    assert only_rejection(manifest).row_number == 4


@pytest.mark.parametrize(
    ("cell", "birads"),
    [("4a", (4,)), ("4B", (4,)), ("4.0", (4,)), ("3$2", (3, 2)), ("0 | 6", (0, 6)), ("", ())],
)
def test_birads_cells_become_numbers(read, cell, birads):
    assert read(f"image,patient_id,birads\n1.png,P1,{cell}\n").rows[0].label.birads == birads


@pytest.mark.parametrize(
    ("cell", "birads"),
    [
        ("BI-RADS 4", (4,)),
        ("BIRADS 4A", (4,)),
        ("bi rads: 0", (0,)),
        ("BI_RADS-6", (6,)),
        ("BI-RADS Category 5", (5,)),
        ("category 2", (2,)),
        ("Cat. 3", (3,)),
        ("ACR 2", (2,)),
        ("BI-RADS 4c|BI-RADS 2.0$1", (4, 2, 1)),
    ],
)
def test_a_category_may_follow_the_name_of_its_scale(cell, birads):
    assert parse_label("", cell).birads == birads


@pytest.mark.parametrize(
    "cell",
    ["4?", "?", "-4", "4 or 5", "4/5", "2,3", "45", "4d", "4.5", "04", "IV", "4a.0", "$", "4||5"],
)
def test_what_is_no_category_is_refused_rather_than_guessed(cell):
    with pytest.raises(FileRejected, match="birads"):
        parse_label("", cell)


@pytest.mark.parametrize("cell", ["BI-RADS", "BI-RADS 7", "density 2", "BI-RADS -", "\u0664"])
def test_a_scale_without_a_category_of_its_own_is_refused(cell):
    with pytest.raises(FileRejected, match="birads"):
        parse_label("", cell)


@pytest.mark.parametrize("cell", ["benign", "Benign", "BENIGN_WITHOUT_CALLBACK"])
def test_benign_is_spelled_in_several_ways(read, cell):
    rows = read(f"image,patient_id,pathology\n1.png,P1,{cell}\n").rows
    assert rows[0].label.pathology is Pathology.BENIGN


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("9.png,,P,,,", Reason.MISSING_IMAGE),
        (",,P,,,", Reason.MISSING_IMAGE),
        ("1.png,m9.png,P,,,", Reason.MISSING_MASK),
        ("1.png,,P,B,,", Reason.BAD_LATERALITY),
        ("1.png,,P,,7,", Reason.BAD_LABEL),
        ("1.png,,P,,5a,", Reason.BAD_LABEL),
        ("1.png,,P,,4|,", Reason.BAD_LABEL),
        ("1.png,,P,,,0", Reason.BAD_SPACING),
        ("1.png,,P,,,nan", Reason.BAD_SPACING),
        ("1.png,,P,,,wide", Reason.BAD_SPACING),
        ("1.png,,,,,", Reason.NO_PATIENT),
        ("1.png,,P,,", Reason.WRONG_CELLS),
        ("1.png,,P,,,,", Reason.WRONG_CELLS),
        ("../a/1.png,,P,,,", Reason.PATH_LEAVES_FOLDER),
        ("/etc/passwd,,P,,,", Reason.PATH_LEAVES_FOLDER),
        ("C:\\1.png,,P,,,", Reason.PATH_LEAVES_FOLDER),
        ("1.png,..\\m1.png,P,,,", Reason.PATH_LEAVES_FOLDER),
    ],
)
def test_a_bad_row_costs_only_itself(read, cells, reason):
    header = "image,mask,patient_id,laterality,birads,spacing_mm"
    manifest = read(f"{header}\n{cells}\n2.png,,Q,L,1,0.1\n")
    assert only_rejection(manifest).reason is reason
    assert only_rejection(manifest).row_number == 2
    assert only_rejection(manifest).image == cells.partition(",")[0]
    assert [row.row_number for row in manifest.rows] == [3]


@pytest.mark.parametrize("cells", ["1.png,P1", "1.png,P1,normal,1,9", "1.png,P1,normal,9"])
def test_a_row_that_is_not_understood_says_nothing_about_its_patients_label(read, cells):
    manifest = read(f"image,patient_id,pathology,birads\n{cells}\n")
    (statement,) = manifest.statements
    assert (statement.patient_id, statement.label) == ("P1", None)


def test_a_row_without_its_image_still_says_its_label(read):
    manifest = read("image,patient_id,pathology\n9.png,P1,malignant\n")
    assert manifest.rows == []
    assert manifest.statements[0].label == Label(Pathology.MALIGNANT, ())


def test_a_misspelled_pathology_is_quoted(read):
    rejection = only_rejection(read("image,patient_id,pathology\n1.png,P1,malignnt\n"))
    assert rejection.reason is Reason.BAD_LABEL
    assert "'malignnt'" in rejection.detail


def test_a_backslash_path_finds_its_file(read, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    rows = read("image,patient_id,birads\nimages\\a.png,P1,1\n").rows
    assert rows[0].image_path == tmp_path / "images" / "a.png"


def test_an_image_named_again_is_used_once(read):
    manifest = read("image,patient_id,birads\n1.png,P1,1\n./1.png,P1,1\n")
    assert [row.row_number for row in manifest.rows] == [2]
    assert only_rejection(manifest).reason is Reason.DUPLICATE_IMAGE
    assert only_rejection(manifest).row_number == 3


def test_an_image_named_again_with_another_label_is_not_used_at_all(read):
    manifest = read("image,patient_id,birads\n1.png,P1,1\n2.png,P2,1\n1.png,P1,5\n")
    assert [row.row_number for row in manifest.rows] == [3]
    assert [rejection.row_number for rejection in manifest.rejected] == [2, 4]


def test_an_unknown_column_is_an_error_with_the_likely_name(read):
    words = "unknown column 'laterallity', did you mean 'laterality'.*known are image, mask"
    with pytest.raises(DataError, match=words):
        read("image,patient_id,birads,laterallity\n1.png,P1,1,L\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("image,patient_id,birads\n", "no rows"),
        ("image,patient_id,birads\n\n,,\n", "no rows"),
        ("image,patient_id,birads,image\n1.png,P,1,1.png\n", "'image' appears twice"),
        ("patient_id,birads\nP,1\n", "'image' is missing"),
        ("image,birads\n1.png,1\n", "'patient_id' is missing"),
        ("image,patient_id\n1.png,P\n", "'pathology' or 'birads'"),
        ('image,patient_id,birads\n"1.png,P,1\n', "not a CSV table"),
        ('"image;patient_id;birads"\n"1.png;P;1"\n', "each line is a single quoted cell"),
    ],
)
def test_a_table_that_makes_no_sense_is_one_line_that_names_it(read, tmp_path, text, words):
    with pytest.raises(DataError, match=words) as caught:
        read(text)
    assert str(tmp_path / "labels.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_encoding_is_an_error_that_says_what_to_do(read):
    with pytest.raises(DataError, match="CSV UTF-8"):
        read("image,patient_id,birads\n1.png,Ä,1\n", "cp1252")


def test_a_missing_folder_and_a_missing_table_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no labels\.csv"):
        read_folder(tmp_path, "labels")
