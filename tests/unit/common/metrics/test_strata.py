import pytest
from tests.unit.common.maps import mask, sure

from mamfed_common.metrics.scores import score_image
from mamfed_common.metrics.strata import ImageFacts, lesion_size, stratify

LESION = [(0, 0), (0, 1)]


def hit(name):
    return score_image(name, sure(*LESION), mask(*LESION), 0.5)


def missed(name):
    return score_image(name, sure(), mask(*LESION), 0.5)


def facts(patient, vendor=None, spacing_mm=None, breast_pixels=20):
    return ImageFacts(patient, {"vendor": vendor}, breast_pixels, spacing_mm)


def by_value(strata, name):
    return {stratum.value: stratum for stratum in strata.shown if stratum.property == name}


def test_images_are_split_by_what_they_share_with_counts_and_intervals():
    scores = [hit("1"), hit("2"), missed("3"), hit("4")]
    known = {
        "1": facts("a", "ge"),
        "2": facts("b", "ge"),
        "3": facts("b", "ge"),
        "4": facts("c", "fuji"),
    }
    strata = by_value(stratify(scores, known, 1), "vendor")
    assert strata.keys() == {"ge", "fuji"}
    ge = strata["ge"]
    assert (ge.images, ge.patients, ge.lesions) == (3, 2, 3)
    assert ge.dice.value == pytest.approx(2 / 3)
    assert ge.sensitivity.value == pytest.approx(2 / 3)
    assert (ge.dice.low, ge.dice.high) == (pytest.approx(0.5), 1)
    assert strata["fuji"].dice == (1, None, None, 1, 1)


def test_images_without_malignancy_are_in_no_stratum():
    scores = [score_image("1", sure((3, 3)), mask(), 0.5)]
    assert stratify(scores, {"1": facts("a", "ge")}, 1) == ((), ())


def test_what_is_not_known_is_a_stratum_of_its_own():
    strata = stratify([hit("1"), hit("2")], {"1": facts("a", "ge"), "2": facts("b")}, 1)
    assert by_value(strata, "vendor").keys() == {"ge", "unknown"}


def test_a_stratum_of_too_few_images_is_withheld_and_counted_but_not_named():
    scores = [hit(str(number)) for number in range(6)]
    vendors = ["ge", "ge", "ge", "fuji", "fuji", "planmed"]
    known = {str(n): facts(n, vendor) for n, vendor in enumerate(vendors)}
    strata = stratify(scores, known, 3)
    assert by_value(strata, "vendor").keys() == {"ge"}
    (withheld,) = strata.withheld
    assert withheld == ("vendor", 2, 3, "fewer than 3 images")
    assert not any(s.withheld for s in [stratify(scores, known, 1)])


@pytest.mark.parametrize(
    ("spacing_mm", "band"),
    [(6.2, "up to 79 mm2"), (6.3, "up to 314 mm2"), (12.5, "up to 314 mm2"), (12.6, "over 314")],
)
def test_a_lesion_of_known_size_is_in_a_band_of_square_millimetres(spacing_mm, band):
    # Two pixels: 76.9, 79.4, 312.5 and 317.5 mm2.
    name, found = lesion_size(hit("1"), facts("a", spacing_mm=spacing_mm))
    assert name == "lesion_mm2"
    assert found.startswith(band)


@pytest.mark.parametrize(
    ("breast_pixels", "band"),
    [
        (400, "up to 0.5% of the breast"),
        (399, "up to 2.0% of the breast"),
        (99, "over 2.0% of the breast"),
    ],
)
def test_a_lesion_of_unknown_size_is_in_a_band_of_shares_of_the_breast(breast_pixels, band):
    assert lesion_size(hit("1"), facts("a", breast_pixels=breast_pixels)) == ("lesion_share", band)


def test_the_largest_lesion_decides():
    truth = mask((0, 0), (4, 0), (4, 1), (4, 2))
    score = score_image("1", sure(), truth, 0.5)
    assert lesion_size(score, facts("a", spacing_mm=7.0))[1] == "up to 314 mm2"  # 49, 147
