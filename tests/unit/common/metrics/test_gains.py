"""All that a comparison may come to, said so that a loss reads as a loss."""

import pytest

from mamfed_common.metrics.gains import Gain, compared


def at(site, value, spread=0.05, images=40, patients=20):
    return Gain(site, value, value - spread, value + spread, images, patients)


def said(*gains):
    return compared("The shared model", "local training", gains)


def test_a_loss_everywhere_is_said_plainly_the_worst_first_with_its_intervals():
    (line,) = said(at("a", -0.1), at("b", -0.3), at("c", -0.2))
    assert line == (
        "The shared model scored lower than local training at all 3 sites: b -0.300 [-0.350, "
        "-0.250] (40 images of 20 patients); c -0.200 [-0.250, -0.150] (40 images of 20 "
        "patients); a -0.100 [-0.150, -0.050] (40 images of 20 patients)."
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.2, 0.1, 0.3], ["higher than local training at all 3 sites"]),
        ([0.2, 0.3], ["higher than local training at both sites"]),
        ([-0.2], ["lower than local training at the one site"]),
        ([0, 0, 0], ["the same as local training at all 3 sites"]),
        ([-0.2, 0, 0.3], ["lower than local training at 1 of 3", "the same as local training at 1",
                          "higher than local training at 1 of 3"]),
    ],
)  # fmt: skip
def test_won_lost_and_mixed(values, words):
    line = said(*(at(f"s{i}", value) for i, value in enumerate(values)))[0]
    places = [line.index(word) for word in words]
    assert places == sorted(places), "losses come first"
    assert line.count(" than ") + line.count("the same as") == len(words)


def test_what_may_be_chance_is_said():
    lines = said(at("a", -0.01), at("b", 0.3), at("c", 0.02))
    assert lines[1:] == ["May be chance at a, c: the interval contains 0."]


@pytest.mark.parametrize(("images", "patients"), [(9, 9), (40, 3), (3, None)])
def test_too_few_are_no_proof_even_where_the_interval_excludes_zero(images, patients):
    few = at("few", 0.3, images=images, patients=patients)
    both = said(few, at("many", 0.3))
    assert both[1:] == ["Too few images to tell at few: fewer than 10 images or 10 patients."]
    assert "at few:" in said(few)[1]
    assert "at any site" in said(few, few._replace(site="other"))[1]


def test_a_federation_that_sends_means_has_no_intervals():
    (line,) = said(Gain("a", -0.2, None, None, 40))
    assert line.endswith("at the one site: a -0.200 (40 images).")


def test_a_difference_that_is_shown_as_zero_is_none():
    assert "the same as" in compared("x", "y", [at("a", -0.004)], digits=2)[0]
    assert "lower than" in compared("x", "y", [at("a", -0.006)], digits=2)[0]


def test_without_a_comparison_nothing_is_said():
    assert said() == []
