"""A site that is wrong as a whole, though each of its images may be right."""

import pytest

from mamfed_client.imaging.doubts import Doubt
from mamfed_client.plausibility import Measures
from mamfed_client.plausibility.cohort import CohortMember, compare_sites, judge_cohort

SOUND = Measures(0.05, "L", 0.02, 900, 30, 40, 0.1)


def members(count, first=2, vendor="Aurora", laterality="L", **changes):
    return [
        CohortMember(
            first + n, vendor, laterality, SOUND._replace(mask_pixels=900 + n)._replace(**changes)
        )
        for n in range(count)
    ]


def kinds(found):
    return {number: [one.doubt for one in doubts] for number, doubts in found.items()}


def test_a_sound_site_is_not_doubted():
    assert judge_cohort(members(20)) == judge_cohort([]) == {}


def test_masks_of_one_size_are_doubted_unless_they_fit_what_is_bright():
    alike = members(9, mask_pixels=900) + members(1, first=20, mask_pixels=5)

    assert kinds(judge_cohort(alike)) == {n: [Doubt.MASKS_ALIKE] for n in range(2, 11)}
    fitting = [m._replace(measures=m.measures._replace(mask_fit=0.9)) for m in alike]
    assert judge_cohort(fitting) == {}
    assert judge_cohort(alike[:4]) == {}
    assert judge_cohort([*alike, *members(9, first=30)]) == {}


def test_images_without_masks_are_not_alike():
    assert judge_cohort(members(9, mask_pixels=0, mask_of_breast=0.0)) == {}


def test_masks_twenty_times_as_large_as_usual_are_doubted():
    found = judge_cohort(members(5, mask_of_breast=0.45))

    assert kinds(found) == {n: [Doubt.MASKS_LARGE] for n in range(2, 7)}
    assert found[2][0].detail == "22 times usual ones"
    assert judge_cohort(members(5, mask_of_breast=0.35)) == {}


def test_a_vendor_whose_masks_are_twenty_times_as_large_as_others_is_doubted():
    found = judge_cohort(
        [
            *members(5, mask_of_breast=0.2),
            *members(9, first=50, vendor="Borealis", mask_of_breast=0.008),
        ]
    )

    assert kinds(found) == {n: [Doubt.MASKS_LARGE] for n in range(2, 7)}
    assert found[2][0].detail == "25 times other vendors'"


@pytest.mark.parametrize(("sound", "expected"), [(1, range(2, 11)), (2, ())])
def test_a_vendor_of_which_nine_in_ten_are_saturated_is_doubted(sound, expected):
    site = [
        *members(9, plain_share=0.3),
        *members(sound, first=11),
        *members(30, first=50, vendor="Borealis"),
    ]

    doubted = {n for n, some in kinds(judge_cohort(site)).items() if Doubt.SATURATED_VENDOR in some}

    assert doubted == ({*expected, 11} if expected else set())


def test_the_one_breast_that_points_the_other_way_is_doubted():
    site = [
        *members(19, chest_wall="R"),
        *members(1, first=21, chest_wall="L"),
        *members(9, first=50, laterality="R"),
    ]

    assert kinds(judge_cohort(site)) == {21: [Doubt.MIRRORED]}


def test_where_breasts_point_either_way_none_is_mirrored():
    assert judge_cohort([*members(9, chest_wall="R"), *members(9, first=30)]) == {}


def test_a_chest_wall_or_side_that_is_not_known_says_nothing():
    unknown = [*members(1, first=40, chest_wall=None), *members(1, first=41, laterality=None)]

    assert judge_cohort([*members(19, chest_wall="R"), *unknown]) == {}


def test_a_site_whose_masks_cover_twenty_times_what_others_do_is_said_with_the_figures():
    sites = {
        "a": members(6, mask_of_breast=0.3),
        "b": members(6, mask_of_breast=0.01),
        "c": members(6, mask_of_breast=0.02),
    }

    (note,) = compare_sites(sites)

    assert note.startswith(
        "a: its masks cover 30.0% of the breast (median of 6), those of the other sites 1.5%; "
    )
    assert compare_sites(sites | {"a": members(6, mask_of_breast=0.29)}) == ()
    assert compare_sites(sites | {"a": members(4, mask_of_breast=0.9)}) == ()
    looked_at = [m._replace(reviewed=True) for m in sites["a"]]
    assert compare_sites(sites | {"a": looked_at}) == ()
    assert compare_sites({"a": sites["a"]}) == ()


def test_a_site_of_a_vendor_all_of_whose_images_are_saturated_is_said():
    sites = {"a": members(9, plain_share=0.3), "b": members(9)}

    assert compare_sites(sites) == (
        "a: 100% of its images by Aurora have much of the breast at one grey level: "
        "their export may be wrong",
    )
    assert compare_sites({"b": sites["b"]}) == ()


def test_a_breast_like_one_in_six_of_its_side_is_not_mirrored():
    """As it is in CBIS-DDSM: 67 of 80."""
    assert judge_cohort([*members(67, chest_wall="R"), *members(13, first=90)]) == {}
