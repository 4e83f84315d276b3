from collections import Counter
from itertools import pairwise

import pytest

from mamfed_client.datasets.manifest import PatientStatement, linked_patients
from mamfed_client.preparation.patient_split import declared_parts, draw_fold, draw_parts, strata
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
    return [
        PatientStatement(n, who, None, split) for n, (who, split) in enumerate(described, start=2)
    ]


def test_the_tables_own_split_is_taken_in_any_spelling():
    parts = declared_parts(
        statements(
            ("P", "Train"),
            ("Q", "validation"),
            ("R", "TESTING"),
            ("P", "training"),
            ("S", "valid"),
            ("T", "te\u200bst\u00a0"),
        )
    )
    assert parts == {"P": "train", "Q": "val", "R": "test", "S": "val", "T": "test"}


def test_an_empty_split_column_declares_nothing():
    assert declared_parts(statements(("P", ""), ("Q", ""))) is None


def test_a_patient_in_two_parts_is_an_error_that_names_rows_and_nobody():
    with pytest.raises(DataError, match="two parts: rows 2, 4") as caught:
        declared_parts(statements(("Secret", "train"), ("Q", "test"), ("Secret", "test")))
    assert "Secret" not in str(caught.value)


def test_a_split_filled_on_some_rows_only_is_an_error():
    with pytest.raises(DataError, match="empty in rows 3, 4"):
        declared_parts(statements(("P", "train"), ("Q", ""), ("R", "")))


def test_an_unknown_part_is_an_error():
    with pytest.raises(DataError, match=r"must be train, val or test; .* rows 3"):
        declared_parts(statements(("P", "train"), ("Q", "holdout")))


def test_a_long_list_of_rows_is_cut():
    with pytest.raises(DataError, match="11, 12 and 90 more"):
        declared_parts(statements(("P", "train"), *[(f"Q{n}", "") for n in range(100)]))


def test_strata_follow_the_rarest_purpose_of_a_patient():
    rows = [
        ("P1", 1, "GE"),
        ("P1", 0, "GE"),
        ("P2", 2, "GE"),
        ("P2", 1, "GE"),
        ("P3", 2, "GE"),
    ]
    assert strata(rows) == [{"P1"}, {"P2"}, {"P3"}]
    assert strata(rows[::-1]) == strata(rows)
    assert strata([]) == []


def test_vendors_of_a_purpose_are_strata_of_their_own_and_small_ones_share_one():
    rows = [(who, 0, "GE") for who in patients(4, "G")]
    rows += [(who, 0, "Hologic") for who in patients(3, "H")]
    rows += [("F0", 0, "Fuji"), ("F1", 0, "Fuji"), ("S0", 0, "IMS")]
    rows += [("H9", 1, "Hologic")]
    grouped = strata(rows)
    assert grouped == [set(patients(4, "G")), set(patients(3, "H")), {"F0", "F1", "S0"}, {"H9"}]
    assert strata(rows[::-1]) == grouped


def test_a_patient_of_two_vendors_is_in_one_stratum():
    rows = [(f"P{n}", 1, vendor) for n in range(3) for vendor in ("Hologic", "GE")]
    rows += [(f"Q{n}", 1, "Hologic") for n in range(3)]
    assert strata(rows) == [set(patients(3)), set(patients(3, "Q"))]
    assert strata(rows[::-1]) == strata(rows)


def test_each_vendor_reaches_every_part():
    rows = [(f"{vendor}{n}", 0, vendor) for vendor in ("A", "B", "C") for n in range(3)]
    parts = draw(*strata(rows))
    assert {(who[0], part) for who, part in parts.items()} == {
        (vendor, part) for vendor in "ABC" for part in ("train", "val", "test")
    }


def test_a_single_vendor_is_split_as_by_purpose_alone():
    malignant, benign, other = patients(9, "M"), patients(30, "B"), patients(2, "O")
    rows = [(who, 0, "GE") for who in malignant] + [(malignant[0], 1, "GE")]
    rows += [(who, 1, "GE") for who in benign]
    rows += [(who, 2, "GE") for who in [*malignant, *benign, *other]]
    expected = draw(set(malignant), set(benign), set(other))
    assert list(draw(*strata(rows)).items()) == list(expected.items())


def test_patients_who_share_images_are_linked_to_the_smallest_of_them():
    pairs = [("D", "C"), ("B", "C"), ("X", "Y"), ("E", "D"), ("A", "E"), ("Y", "X"), ("Q", "Q")]
    everyone = dict.fromkeys("ABCDE", "A") | {"Q": "Q", "X": "X", "Y": "X"}
    assert linked_patients(pairs) == everyone
    assert linked_patients(pairs[::-1]) == everyone
    assert linked_patients([]) == {}


def test_a_long_chain_of_links_is_followed_to_its_end():
    names = [f"{number:05}" for number in range(20_000)]
    chain = list(pairwise(names))
    assert set(linked_patients(chain).values()) == {"00000"}
    assert set(linked_patients(chain[::-1]).values()) == {"00000"}


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_together_test_every_patient_once(folds):
    groups = [patients(9), {f"other {i}" for i in range(5)}, {"alone"}]
    everybody = set().union(*groups)
    divisions = [draw_fold(groups, "here", 1, 0.25, fold, folds) for fold in range(folds)]
    tested = [{p for p, part in parts.items() if part == "test"} for parts in divisions]
    assert sum(map(len, tested)) == len(everybody)
    assert set().union(*tested) == everybody
    sizes = [len(some) for some in tested]
    assert max(sizes) - min(sizes) <= 1
    for parts in divisions:
        assert parts.keys() == everybody
        assert "train" in {parts[p] for p in patients(9)}
        assert "val" in parts.values()


def test_more_folds_than_patients_are_refused_by_the_cohorts_name():
    with pytest.raises(DataError, match="here: 4 patients for 5 folds"):
        draw_fold([patients(4)], "here", 1, 0.2, 0, 5)
