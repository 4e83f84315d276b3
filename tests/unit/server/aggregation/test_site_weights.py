"""What sites weigh, by numbers worked out by hand."""

import itertools
import math

import pytest

from mamfed_common.errors import PlanError
from mamfed_common.plan import FederationPlan, Stage, validate_plan
from mamfed_server.aggregation.site_weights import shares

STAGE_1, STAGE_2 = Stage


def of(counts, weights="sqrt", max_share=1.0, ratio=1e9):
    """Return the shares in stage 1 of sites a, b, c ... that have so many benign images."""
    examples = {chr(ord("a") + i): {"benign": count} for i, count in enumerate(counts)}
    plan = FederationPlan(weights=weights, max_share=max_share, max_share_ratio=ratio)
    return list(shares(examples, STAGE_1, plan).values())


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("examples", [100 / 111, 10 / 111, 1 / 111]),
        ("sqrt", [0.706101, 0.223289, 0.070610]),  # 10 : 3.162278 : 1
        ("equal", [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_three_ways_to_weigh(weights, expected):
    assert of([100, 10, 1], weights) == pytest.approx(expected, abs=5e-7)


def test_what_is_cut_goes_to_the_others_in_proportion():
    """Of 10 : 3.162278 : 1 the first has half, the others 3.162278 : 1 of the other half."""
    found = of([100, 10, 1], max_share=0.5)
    assert found == pytest.approx([0.5, 0.379873, 0.120127], abs=5e-7)


def test_a_site_that_the_first_cut_lifts_over_the_cap_is_cut_too():
    """Of 60 : 30 : 5 : 5 with at most 0.4: the second would get 0.45 of what the first loses."""
    assert of([60, 30, 5, 5], "examples", 0.4) == pytest.approx([0.4, 0.4, 0.1, 0.1])


@pytest.mark.parametrize("max_share", [0.1, 0.3, 1 / 3])
def test_a_cap_that_the_sites_cannot_keep_makes_them_equal(max_share):
    assert of([100, 10, 1], "examples", max_share) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("num_sites", "expected"),
    [(1, 1), (2, 0.5), (3, 1.25 / 3), (5, 0.25), (6, 1.25 / 6), (20, 0.0625)],
)
def test_no_declared_count_buys_more_than_a_quarter_beyond_an_equal_share(num_sites, expected):
    counts = [10**7, *(100 for _ in range(num_sites - 1))]
    plan = FederationPlan()
    found = of(counts, max_share=plan.max_share, ratio=plan.max_share_ratio)
    assert found[0] == pytest.approx(expected)
    assert sum(found) == pytest.approx(1)


def test_six_real_sites_weigh_nearly_as_without_the_ratio():
    """The images of cesm, ddsm_a to ddsm_d and mias (docs/benchmarks.md), in stage 2."""
    own, beside = (142, 85, 85, 84, 23, 9), (0, 59, 63, 59, 70, 122)
    examples = {
        f"site-{n}": {"malignant": own[n], "without_malignancy": beside[n]} for n in range(6)
    }
    free = shares(examples, STAGE_2, FederationPlan(max_share_ratio=6))
    found = shares(examples, STAGE_2, FederationPlan())
    assert free["site-0"] == pytest.approx(0.219, abs=5e-4)
    assert found == pytest.approx(free, abs=0.011)


def test_of_two_sites_each_has_half_and_one_alone_has_all():
    assert of([100, 1], max_share=0.5) == [0.5, 0.5]
    assert of([100], max_share=0.5) == [1.0]


def test_without_a_cap_shares_are_the_exact_quotients():
    assert of([7, 20, 31], "examples") == [7 / 58, 20 / 58, 31 / 58]
    assert of([7, 20, 31, 9], "equal") == [0.25] * 4


def test_an_image_beside_counts_a_quarter_in_stage_2():
    examples = {
        "a": {"malignant": 9, "benign": 28},  # 16
        "b": {"malignant": 4},
        "c": {"benign": 16},  # a site that has benign images only: 4
        "d": {"malignant": 3, "without_malignancy": 4},  # 4
    }
    held = FederationPlan(weights="examples", max_share=0.4, max_share_ratio=4)
    assert shares(examples, STAGE_2, held) == pytest.approx(
        {"a": 0.4, "b": 0.2, "c": 0.2, "d": 0.2}
    )
    free = FederationPlan(weights="examples", max_share=1, max_share_ratio=4)
    assert shares(examples, STAGE_2, free) == {"a": 16 / 28, "b": 1 / 7, "c": 1 / 7, "d": 1 / 7}


def test_shares_do_not_depend_on_who_came_first():
    examples = {
        site: {"malignant": count} for site, count in zip("abcd", (3, 41, 5, 7), strict=True)
    }
    found = {
        tuple(shares(dict(order), STAGE_2, FederationPlan()).items())
        for order in itertools.permutations(examples.items())
    }
    assert len(found) == 1
    ((sites),) = found
    assert [site for site, _ in sites] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("seed", range(20))
def test_shares_add_up_to_one_and_keep_the_cap_and_the_order(seed):
    counts = [(seed + 1) ** k % 997 + 1 for k in range(1, 9)]
    for weights, cap in itertools.product(("examples", "sqrt", "equal"), (0.05, 0.2, 0.5, 1.0)):
        found = of(counts, weights, cap)
        assert math.isclose(sum(found), 1, rel_tol=1e-12)
        assert max(found) <= max(cap, 1 / 8) + 1e-12
        ordered = sorted(zip(counts, found, strict=True))
        assert all(one[1] <= other[1] + 1e-12 for one, other in itertools.pairwise(ordered))


def test_no_site_has_no_share():
    assert shares({}, STAGE_1, FederationPlan()) == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weights": "log"}, "federation.weights: found 'log'"),
        ({"max_share": 0}, "federation.max_share: found 0"),
        ({"max_share": 1.01}, "federation.max_share: found 1.01"),
        ({"max_share": float("nan")}, "federation.max_share: found nan"),
    ],
)
def test_a_senseless_way_to_weigh_is_one_line(values, words):
    with pytest.raises(PlanError) as refused:
        validate_plan({"federation": values}, "plan.yaml")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
