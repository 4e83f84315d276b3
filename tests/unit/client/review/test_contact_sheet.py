"""Which images the page of a check shows."""

from dataclasses import replace
from pathlib import Path

from mamfed_client.datasets.manifest import Row
from mamfed_client.imaging.doubts import Doubt, Doubtful
from mamfed_client.preparation.ingest import AcceptedImage
from mamfed_client.preparation.row_result import RowResult
from mamfed_client.review.contact_sheet import choose
from mamfed_client.tables.field_parsers import Label


def case_of(row_number, vendor, view, *purposes):
    label = Label(None, ())
    row = Row(row_number, "", Path(), (), "P", label, view=view, vendor=vendor)
    return AcceptedImage(row, frozenset(purposes), RowResult())


def crowd():
    """A hundred benign images of one vendor, few of everything else."""
    many = [case_of(n, "Aurora", "CC", "benign", "without_malignancy") for n in range(2, 102)]
    few = [case_of(n, "Borealis", "CC", "benign", "without_malignancy") for n in (102, 103, 104)]
    views = [case_of(n, "Aurora", "MLO", "without_malignancy") for n in (105, 106)]
    return [
        *many,
        *few,
        *views,
        case_of(107, None, None),
        case_of(108, "Aurora", "CC", "malignant"),
    ]


def test_images_are_taken_in_turn_from_vendors_views_and_stages_malignant_first():
    chosen = choose(crowd(), 9)

    of = [(c.row.vendor, c.row.view, *sorted(c.purposes)) for c in chosen]
    both = ("benign", "without_malignancy")
    assert of == [
        ("Aurora", "CC", "malignant"),
        *[("Aurora", "CC", *both)] * 3,
        *[("Borealis", "CC", *both)] * 2,
        *[("Aurora", "MLO", "without_malignancy")] * 2,
        (None, None),
    ]
    assert [c.row.row_number for c in choose(crowd(), 1)] == [108]
    assert choose(crowd(), 0) == []
    assert len(choose(crowd(), 1000)) == len(crowd())


def test_the_choice_is_random_but_the_same_whatever_else_the_folder_holds():
    def of_the_many(cases, most):
        return [c.row.row_number for c in choose(cases, most) if c.row.row_number < 102]

    chosen = of_the_many(crowd(), 30)

    assert chosen == of_the_many(crowd()[::-1], 30)
    assert chosen == of_the_many(crowd()[:100], len(chosen))
    assert chosen != list(range(2, 2 + len(chosen)))


def test_doubtful_images_come_first_each_doubt_in_turn():
    doubted = [
        replace(case, doubts=(Doubtful(Doubt.MASK_LARGE),)) if number in (50, 70) else case
        for number, case in enumerate(crowd())
    ]

    chosen = choose(doubted, 4)

    assert [bool(case.doubts) for case in chosen] == [True, True, False, False]
    assert [case.row.row_number for case in chosen[:2]] == [52, 72]
    assert chosen[2].purposes == {"malignant"}
