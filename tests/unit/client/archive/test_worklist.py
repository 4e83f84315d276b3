"""A worklist names exact studies, and its labels are read as the intake reads them."""

import pytest

from mamfed_client.archive.objects import Query
from mamfed_client.archive.worklist import read_worklist
from mamfed_common.errors import DataError

DATES = Query("20240101", "")


def read(tmp_path, text):
    table = tmp_path / "list.csv"
    table.write_text(text)
    return read_worklist(table, DATES)


def test_rows_are_read_with_any_delimiter_and_asked_by_query(tmp_path):
    found = read(tmp_path, "Accession;Patient_ID;BIRADS\n17;;4a\n;secret-9;2\n17;;1\n")
    assert [row.query.accession for row in found.rows] == ["17", "", "17"]
    assert [len(rows) for rows in found.queries().values()] == [2, 1]
    assert found.columns == ("birads",)
    assert {row.query.first for row in found.rows} == {"20240101"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (",,2", "expected an accession number"),
        ("1*,,2", "exact values"),
        ("1?,,2", "exact values"),
        (",secret\\,2", "exact values"),
        ("x" * 65 + ",,2", "64 characters"),
        ("17,,9", "birads"),
        ("17,,2,more", "expected an accession number"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(tmp_path, row, words):
    with pytest.raises(DataError, match=words) as error:
        read(tmp_path, f"accession,patient_id,birads\n18,,1\n{row}\n")
    assert "line 3" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_table_that_names_nobody_is_refused(tmp_path):
    with pytest.raises(DataError, match="needs a column accession, patient_id or study"):
        read(tmp_path, "birads\n2\n")
