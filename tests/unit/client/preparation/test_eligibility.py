from pathlib import Path

import pytest

from mamfed_client.annotations.shapes import Annotation, Shape
from mamfed_client.datasets.manifest import PatientStatement, Row
from mamfed_client.preparation.eligibility import ExclusionReason, assign_purposes
from mamfed_client.tables.field_parsers import Label, Pathology

NOTHING = frozenset()
ANY_STAGE_1 = {"benign", "without_malignancy"}


FILE = (Annotation(Path("m.png")),)
BOX = Annotation(shapes=(Shape("box", ((1, 2), (3, 4))),))
CIRCLE = Annotation(shapes=(Shape("circle", ((5, 5),), (2, 2)),))


def assign(*described, also_said=()):
    """Assign purposes to rows given as (patient, pathology, BI-RADS, has a mask or annotations)."""
    rows, statements = [], []
    for number, (patient, pathology, birads, outlined) in enumerate(described, start=2):
        label = Label(Pathology(pathology) if pathology else None, birads)
        annotations = (FILE if outlined else ()) if isinstance(outlined, bool) else outlined
        rows.append(Row(number, "", Path(), annotations, patient, label))
        statements.append(PatientStatement(number, patient, label, ""))
    statements += [PatientStatement(99, patient, label, "") for patient, label in also_said]
    purposes, left_out = assign_purposes(rows, statements)
    return [set(purposes[row.row_number]) for row in rows], dict(left_out)


@pytest.mark.parametrize("birads", [(), (0,), (1,), (2, 1), (0, 2)])
@pytest.mark.parametrize("pathology", ["normal", "benign"])
def test_normal_and_benign_rows_serve_stage_1(pathology, birads):
    assert assign(("P", pathology, birads, False)) == ([ANY_STAGE_1], {})


def test_birads_1_and_2_serve_stage_1_without_a_pathology():
    assert assign(("P", "", (1, 2), False)) == ([ANY_STAGE_1], {})


def test_a_malignant_row_with_a_mask_serves_stage_2():
    assert assign(("P", "malignant", (), True)) == ([{"malignant"}], {})
    assert assign(("P", "", (2, 4), True)) == ([{"malignant"}], {})


def test_pathology_outweighs_birads():
    purposes, left_out = assign(("P", "malignant", (1,), True), ("Q", "benign", (5,), True))
    assert purposes == [{"malignant"}, {"without_malignancy"}]
    assert left_out == {ExclusionReason.SUSPICIOUS_PATIENT: 1}


def test_a_malignant_row_without_a_mask_is_left_out():
    assert assign(("P", "malignant", (), False)) == ([NOTHING], {ExclusionReason.NO_MASK: 1})


@pytest.mark.parametrize(
    "annotations",
    [(CIRCLE,), (BOX, CIRCLE), (BOX, *FILE), (Annotation(shapes=(*BOX.shapes, *CIRCLE.shapes)),)],
)
def test_an_outline_beside_boxes_is_enough(annotations):
    assert assign(("P", "malignant", (), annotations)) == ([{"malignant"}], {})


def test_a_malignant_row_with_boxes_only_is_left_out():
    assert assign(("P", "", (5,), (BOX, BOX))) == ([NOTHING], {ExclusionReason.BOX_ONLY: 1})


def test_a_malignant_row_whose_annotation_is_empty_has_no_mask():
    assert assign(("P", "", (5,), (Annotation(),))) == ([NOTHING], {ExclusionReason.NO_MASK: 1})


def test_boxes_do_not_matter_on_a_normal_row():
    assert assign(("P", "normal", (), (BOX,))) == ([ANY_STAGE_1], {})


@pytest.mark.parametrize("suspicion", [("malignant", ()), ("", (5,)), ("", (3,)), ("benign", (3,))])
def test_suspicion_anywhere_keeps_a_patients_other_rows_out_of_stage_1(suspicion):
    purposes, left_out = assign(
        ("P", *suspicion, False), ("P", "normal", (1,), False), ("Q", "normal", (1,), False)
    )
    assert purposes[1:] == [{"without_malignancy"}, ANY_STAGE_1]
    assert left_out[ExclusionReason.SUSPICIOUS_PATIENT] >= 1


def test_a_row_that_cannot_be_used_still_speaks_for_its_patient():
    malignant = Label(Pathology.MALIGNANT, ())
    purposes, left_out = assign(("P", "normal", (), False), also_said=[("P", malignant)])
    assert (purposes, left_out) == (
        [{"without_malignancy"}],
        {ExclusionReason.SUSPICIOUS_PATIENT: 1},
    )


def test_a_label_that_cannot_be_read_keeps_its_patient_out_of_stage_1():
    purposes, left_out = assign(("P", "normal", (), False), also_said=[("P", None)])
    assert (purposes, left_out) == ([{"without_malignancy"}], {ExclusionReason.UNCLEAR_PATIENT: 1})


def test_rows_without_a_usable_label_are_left_out_and_counted():
    purposes, left_out = assign(
        ("P", "", (), False), ("Q", "", (0,), False), ("R", "", (3, 1), False)
    )
    assert purposes == [NOTHING, NOTHING, NOTHING]
    assert left_out == {ExclusionReason.NO_LABEL: 2, ExclusionReason.PROBABLY_BENIGN: 1}
