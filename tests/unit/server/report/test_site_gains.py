"""What each site gains: the worst first, said in words where a model loses to local training."""

from mamfed_common.metrics.site_score import SiteScore
from mamfed_server.report.data import DiceDifference, SiteGain
from mamfed_server.report.results import ArmResult
from mamfed_server.report.site_gains import gain_rows, gain_sentences, gains_of


def promise(site, shared, local=None, personal=None, interval=(None, None), **more):
    dice = {"shared": shared, "personal": personal, "local": local}
    low, high = interval
    gains = {
        name: DiceDifference(value=dice[name] - local, low=low, high=high)
        for name in ("shared", "personal")
        if local is not None and dice[name] is not None
    }
    values = {"images": 12, "patients": 7, **more}
    known = {name: value for name, value in dice.items() if value is not None}
    return SiteGain(site=site, dice=known, minus_local=gains, **values)


def arm(name, not_trained=None, **dice):
    scores = {
        site: SiteScore(
            images=6,
            dice=value,
            lesions=6,
            lesions_found=3,
            images_without_malignancy=4,
            false_positive_pixels=1.0,
        )
        for site, value in dice.items()
    }
    return ArmResult(name, None, scores, {}, not_trained or {})


def test_the_site_that_gains_least_comes_first_and_sites_without_comparison_last():
    known = [
        promise("gains", 0.6, local=0.4),
        promise("low alone", 0.2),
        promise("loses", 0.5, local=0.63),
        promise("high alone", 0.9),
        SiteGain(site="nothing", images=0),
    ]
    order = [p.site for p in gains_of(known, [])]
    assert order == ["loses", "gains", "low alone", "high alone", "nothing"]


def test_a_model_that_loses_to_local_training_is_named_with_what_stands_behind():
    known = [
        promise("mias", 0.25, 0.38, 0.5, interval=(-0.384, 0.15), images=6, patients=6),
        promise("a", 0.6, 0.54, 0.61, interval=(0.02, 0.1), patients=11),
    ]
    assert gain_sentences(known) == [
        "The shared model scored lower than local training at 1 of 2 sites: mias -0.13 [-0.38, "
        "+0.15] (6 images of 6 patients); higher than local training at 1 of 2 sites: a +0.06 "
        "[+0.02, +0.10] (12 images of 11 patients).",
        "Too few images to tell at mias: fewer than 10 images or 10 patients.",
        "The personal model scored higher than local training at both sites: mias +0.12 [-0.38, "
        "+0.15] (6 images of 6 patients); a +0.07 [+0.02, +0.10] (12 images of 11 patients).",
        "Too few images to tell at mias: fewer than 10 images or 10 patients.",
    ]
    assert gain_sentences([promise("a", 0.6)]) == []


def test_a_row_has_all_three_models_and_what_each_marks():
    known = [
        promise(
            "a",
            0.62,
            local=0.5,
            personal=0.7,
            interval=(0.01, 0.2),
            other_images=30,
            other_patients=20,
            marked={"shared": 0.0351, "personal": 0.014},
        ),
        promise("few", 0.5, images=3, patients=1, marked={"shared": 0.2}),
    ]
    reason = "nothing to adapt with: no malignant training image of its own"
    first, few = gain_rows(known, [arm("personal", {"few": reason})])
    assert first.dice == ("0.62", "0.70", "0.50")
    assert first.gains == ("+0.12 [+0.01, +0.20]*", "+0.20 [+0.01, +0.20]*")
    assert (first.images, first.others) == ("12 images of 7 patients", "30 images of 20 patients")
    assert first.marked == ("3.5%", "1.4%")
    assert (first.small, first.reason) == (True, ""), "7 patients"
    assert few.dice == ("0.50", "n/a", "n/a")
    assert few.gains == ("n/a", "n/a")
    assert few.marked == ("20.0%", "n/a")
    assert (few.small, few.reason) == (True, reason)


def test_of_a_real_federation_the_sites_own_means_stand_in():
    arms = [arm("personal", a=0.7), arm("federated", a=0.5, b=0.4)]
    found = gains_of([], arms)
    assert [p.site for p in found] == ["b", "a"]
    assert found[1].dice == {"shared": 0.5, "personal": 0.7}
    assert gain_rows(found, arms)[1].images == "6 images"
    with_local = gains_of([], [*arms, arm("local", a=0.6)])
    assert with_local[0].site == "a"
    assert gain_rows(with_local, arms)[0].gains == ("-0.10", "+0.10")


def test_a_run_of_the_shared_model_alone_has_no_such_table():
    arms = [arm("federated", a=0.5)]
    assert gain_rows(gains_of([], arms), arms) == []
