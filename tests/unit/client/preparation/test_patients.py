"""One patient under several spellings, and tables that contradict their files."""

import csv

import numpy as np
import pytest

from mamfed_client.datasets.manifest import linked_patients
from mamfed_client.preparation.patients import (
    MAX_PATIENT_IMAGES,
    PLACEHOLDERS,
    PatientMention,
    canonical_id,
    named_after_files,
    named_alike,
    spelled_alike,
)
from mamfed_common.errors import DataError

SPELLINGS = [
    ("007", "7", "7.0", "7,0", "7.00", " 7 ", "\uff10\uff10\uff17", '="007"', "'007", "0 07"),
    ("P1", "p1", "P01", "p 001", "P\u00a01", "P\u200b1"),
    ("M\u00fcller", "Mu\u0308ller", "M\u00dcLLER"),
    ("A-1", "A\u20101", "a\u20131", "A - 01"),
    ("2024-001", "2024-1"),
]


@pytest.mark.parametrize("spellings", SPELLINGS)
def test_spellings_of_one_identifier_mean_one(spellings):
    assert {canonical_id(spelling) for spelling in spellings} == {canonical_id(spellings[0])}


@pytest.mark.parametrize(
    "people",
    [
        ("1", "10", "100", "0"),
        ("1.5", "15", "1.0.5"),
        ("P1", "Q1", "1", "P11"),
        ("1-23", "12-3"),
        ("a0b", "ab"),
        ("", "0"),
    ],
)
def test_different_people_stay_different(people):
    assert len({canonical_id(one) for one in people}) == len(people)


def test_the_words_of_anonymisers_are_spelled_as_compared():
    assert {canonical_id(word) for word in PLACEHOLDERS} == PLACEHOLDERS


def mention(row, patient, by_file="", *, checked=False):
    return PatientMention(row, patient, canonical_id(patient), by_file, checked)


def patients_of(joined, mentions):
    one = linked_patients(joined.pairs)
    return len({one.get(m.patient, m.patient) for m in mentions})


def test_spellings_are_joined_and_said_by_row():
    mentions = [mention(2, "007"), mention(3, "7"), mention(4, "8"), mention(5, "7.0")]
    joined = spelled_alike(mentions)
    assert patients_of(joined, mentions) == 2
    assert "rows 2, 3, 5" in joined.notes[0]
    assert "007" not in joined.notes[0]


def test_a_spelling_that_the_table_has_checked_is_another_patient():
    mentions = [mention(2, "P1"), mention(3, "P01", checked=True), mention(4, "p1")]
    assert patients_of(spelled_alike(mentions), mentions) == 2
    half = [*mentions, mention(5, "P01")]  # another row of hers says nothing
    assert patients_of(spelled_alike(half), half) == 1


def named(mentions, placeholders=()):
    return named_alike(mentions, frozenset(placeholders).__contains__)


def test_patients_whom_the_files_know_as_one_are_joined():
    mentions = [mention(n, f"i{n}", f"h{n // 4}") for n in range(12)]
    joined = named(mentions)
    assert patients_of(joined, mentions) == 3
    assert "rows 0, 1, 2, 3 and 4, 5, 6, 7" in joined.notes[0]


@pytest.mark.parametrize("kind", ["one for all", "a word", "too many", "checked"])
def test_a_name_that_means_nobody_joins_nobody(kind):
    few = [mention(n, f"i{n}", "anon", checked=kind == "checked") for n in range(5)]
    if kind == "one for all":
        mentions, placeholders = few, ()
    elif kind == "too many":
        mentions = [mention(n, f"i{n}", f"h{n % 2}") for n in range(2 * MAX_PATIENT_IMAGES + 2)]
        placeholders = ()
    else:
        mentions = [*few, mention(5, "x", "h1"), mention(6, "x", "h1")]
        placeholders = ("anon",) if kind == "a word" else ()
    joined = named(mentions, placeholders)
    assert joined.pairs == []
    assert bool(joined.notes) == (kind != "checked")


def test_a_row_that_names_another_of_the_tables_own_patients_is_said():
    mentions = [mention(n, f"p{n % 3}", f"p{n % 3}") for n in range(9)]
    swapped = [*mentions, mention(9, "p0", "p1")]
    assert any("rows 9:" in note for note in named(swapped).notes)
    assert patients_of(named(swapped), swapped) == 2


def test_pseudonyms_in_the_files_are_no_contradiction():
    mentions = [mention(n, f"p{n // 2}", f"{n // 2:032x}") for n in range(8)]
    assert named(mentions) == ([], ())


def test_patients_called_as_their_images_are_said():
    rows = [(f"IMG_0{n}", f"a/img_{n}.png") for n in range(4)]
    assert "in all 4 rows" in named_after_files(rows)[0]
    assert named_after_files([*rows, ("P1", "img_9.png")]) == ()
    assert named_after_files(rows[:3]) == ()


@pytest.fixture
def site(tmp_path, drawing):
    """Makes a folder of DICOM files with a table: each row's cells and its file's elements."""

    def make(rows):
        path = tmp_path / "site"
        path.mkdir()
        drawing.png(path / "m.png", drawing.lesion().astype(float))
        for number, (_, elements) in enumerate(rows):
            stored = np.rint(drawing.breast(seed=number)[0] * 4095).astype(np.uint16)
            usual = {"Modality": "MG", "ImageLaterality": "L", "ViewPosition": "CC"}
            usual["SOPInstanceUID"] = f"1.2.{number}"
            drawing.dicom(path / f"{number}.dcm", stored, **usual | elements)
        cells = [{"image": f"{n}.dcm", **row} for n, (row, _) in enumerate(rows)]
        columns = list(dict.fromkeys(key for row in cells for key in row))
        with (path / "labels.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(cells)
        return path

    return make


def benign(patient, **cells):
    return {"patient_id": patient, "pathology": "benign", **cells}


def malignant(patient, **cells):
    return {"patient_id": patient, "pathology": "malignant", "mask": "m.png", **cells}


def test_cancer_under_another_spelling_keeps_a_patient_out_of_stage_1(check, call, site):
    folder = site([(benign("8"), {"PatientID": "a"}), (malignant("8.0"), {"PatientID": "a"})])
    found = check(folder)
    assert (found["patients"], found["stage1"]["images"], found["stage2"]["images"]) == (1, 0, 1)
    said = call("check", folder).stderr
    assert "rows 2, 3" in said
    assert "8" not in said.replace("rows 2, 3", "")


def test_cancer_of_a_patient_whom_only_the_files_know_as_one_keeps_her_out(check, site):
    folder = site(
        [
            (benign("A"), {"PatientID": "h-1"}),
            (malignant("B"), {"PatientID": "H-01"}),
            (benign("C"), {"PatientID": "h-2"}),
        ]
    )
    found = check(folder)
    assert (found["patients"], found["stage1"]["images"]) == (2, 1)


def test_the_table_may_say_that_spellings_are_different_people(check, site):
    rows = [benign("P1"), malignant("P01", patient_checked="yes")]
    found = check(site([(row, {"PatientID": "same"}) for row in rows]))
    assert (found["patients"], found["stage1"]["images"]) == (2, 1)
    assert found["notes"] == []


def test_a_malignant_row_that_cannot_be_read_speaks_for_every_spelling(check, site):
    folder = site([(benign("p9"), {}), (malignant("P9"), {})])
    (folder / "1.dcm").write_bytes(b"nothing")
    assert check(folder)["stage1"]["images"] == 0


def test_without_a_table_spellings_in_the_files_are_compared(check, drawing, tmp_path):
    for number, patient in enumerate(["007", "7", "8"]):
        stored = np.rint(drawing.breast(seed=number)[0] * 4095).astype(np.uint16)
        usual = {"Modality": "MG", "ImageLaterality": "L", "PatientID": patient}
        drawing.dicom(tmp_path / f"{number}.dcm", stored, **usual)
    found = check(tmp_path)
    assert found["patients"] == 2
    assert "rows 1, 2" in found["notes"][0]


def test_a_split_that_divides_spellings_is_refused_by_row(call, site):
    rows = [benign("7", split="train"), benign("07", split="test")]
    failed = call("check", site([(row, {}) for row in rows]), code=1)
    assert isinstance(failed.exception, DataError)
    assert "one patient in two parts: rows 2, 3" in str(failed.exception)


def test_a_split_that_divides_a_patient_of_the_files_is_refused(call, site):
    rows = [
        (benign("A", split="train"), {"PatientID": "h1"}),
        (benign("B", split="test"), {"PatientID": "h1"}),
        (benign("C", split="test"), {"PatientID": "h2"}),
    ]
    assert "rows 2, 3" in str(call("check", site(rows), code=1).exception)


def test_a_number_that_a_spreadsheet_rounded_names_nobody(check, site):
    found = check(site([(benign("1.23457E+12"), {}), (benign("1,2E+05"), {}), (benign("1"), {})]))
    assert found["rejected"] == {"no patient": 2}


@pytest.mark.parametrize(
    ("cells", "doubts"),
    [
        ({"laterality": "R", "view": "CC"}, {"table names another side than the file": 1}),
        ({"laterality": "L", "view": "MLO"}, {"table names another view than the file": 1}),
        ({"laterality": "L", "view": "L-CC"}, {}),
        ({"laterality": "", "view": ""}, {}),
        ({"laterality": "R", "view": "MLO", "reviewed": "yes"}, {}),
    ],
)
def test_a_table_that_names_another_side_or_view_wins_and_is_doubted(check, site, cells, doubts):
    found = check(site([(benign("A", **cells), {})]))
    assert (found["accepted"], found["doubts"]) == (1, doubts)


def test_a_row_that_names_another_side_and_view_is_about_another_image(check, site):
    found = check(site([(malignant("A", laterality="R", view="MLO"), {}), (benign("B"), {})]))
    assert found["rejected"] == {"table and file disagree": 1}


def test_a_files_name_is_no_contradiction(check, site):
    folder = site([(benign("A", laterality="R", view="MLO"), {"ImageLaterality": ""})])
    (folder / "0.dcm").rename(folder / "L_CC.dcm")
    table = (folder / "labels.csv").read_text().replace("0.dcm", "L_CC.dcm")
    (folder / "labels.csv").write_text(table)
    assert "table names another side than the file" not in check(folder)["doubts"]
