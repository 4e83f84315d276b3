from collections import Counter

import pytest

from mamfed_client.manifest import Statement
from mamfed_client.split import declared_parts, draw_parts
from mamfed_common.errors import DataError


def patients(count, prefix="P"):
    return [f"{prefix}{number}" for number in range(count)]


def draw(*strata, seed=1, cohort="here", val=0.15, test=0.2):
    return draw_parts(strata, cohort, seed, val, test)


@pytest.mark.parametrize(
    ("count", "train", "val", "test"),
    [
        (0, 0, 0, 0),
        (1, 1, 0, 0),
        (2, 1, 0, 1),
        (3, 1, 1, 1),
        (4, 2, 1, 1),
        (20, 13, 3, 4),
        (100, 65, 15, 20),
    ],
)
def test_small_strata_still_train_and_test(count, train, val, test):
    counts = Counter(draw(patients(count)).values())
    assert (counts["train"], counts["val"], counts["test"]) == (train, val, test)


def test_no_val_fraction_means_no_val_patients():
    assert Counter(draw(patients(10), val=0).values()) == {"train": 8, "test": 2}


def test_training_keeps_a_patient_whatever_the_fractions():
    assert Counter(draw(patients(3), val=0.49, test=0.5).values())["train"] == 1


def test_each_stratum_is_split_by_itself():
    parts = draw(patients(2, "M"), patients(50))
    assert {parts["M0"], parts["M1"]} == {"train", "test"}
    assert Counter(parts.values())["test"] == 11


def test_the_order_of_patients_does_not_matter():
    assert draw(patients(30)) == draw(patients(30)[::-1])


def test_seed_and_cohort_change_the_draw():
    usual = draw(patients(30))
    assert draw(patients(30), seed=2) != usual
    assert draw(patients(30), cohort="there") != usual


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (-0.1, 0.2), (0, 1)])
def test_fractions_that_leave_nothing_to_train_on_are_an_error(val, test):
    with pytest.raises(DataError, match="fractions"):
        draw(patients(9), val=val, test=test)


def statements(*described):
    return [Statement(n, who, None, split) for n, (who, split) in enumerate(described, start=2)]


def test_the_tables_own_split_is_taken_in_any_spelling():
    parts = declared_parts(
        statements(
            ("P", "Train"), ("Q", "validation"), ("R", "TESTING"), ("P", "training"), ("S", "valid")
        )
    )
    assert parts == {"P": "train", "Q": "val", "R": "test", "S": "val"}


def test_an_empty_split_column_declares_nothing():
    assert declared_parts(statements(("P", ""), ("Q", ""))) is None


def test_a_patient_in_two_parts_is_an_error_that_names_rows_and_nobody():
    with pytest.raises(DataError, match="two parts: rows 2, 4") as caught:
        declared_parts(statements(("Secret", "train"), ("Q", "test"), ("Secret", "test")))
    assert "Secret" not in str(caught.value)


def test_a_split_filled_on_some_rows_only_is_an_error():
    with pytest.raises(DataError, match="empty on rows 3, 4"):
        declared_parts(statements(("P", "train"), ("Q", ""), ("R", "")))


def test_an_unknown_part_is_an_error():
    with pytest.raises(DataError, match="none of train, val, test on rows 3"):
        declared_parts(statements(("P", "train"), ("Q", "holdout")))


def test_a_long_list_of_rows_is_cut():
    with pytest.raises(DataError, match="11, 12 and 90 more"):
        declared_parts(statements(("P", "train"), *[(f"Q{n}", "") for n in range(100)]))
