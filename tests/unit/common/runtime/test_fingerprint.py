"""Only the same question has the same fingerprint, and what differs is said in words."""

import json

import pytest

from mamfed_common.errors import OutputError
from mamfed_common.runtime.fingerprint import Fingerprint, describe_differences, sha256_of

PARTS = {
    "weights_sha256": "a" * 64,
    "plan": {"seed": 1, "stages": [1, 2]},
    "threshold": 0.5,
    "threads": 2,
    "norms": None,
}


def test_equal_parts_are_one_question_in_whatever_order():
    other = Fingerprint.of(**dict(reversed(PARTS.items())))
    assert Fingerprint.of(**PARTS).sha256 == other.sha256
    assert Fingerprint.of(**PARTS).differences(json.loads(json.dumps(PARTS))) == []


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "b" * 64},
        {"plan": {"seed": 2, "stages": [1, 2]}},
        {"plan": {"seed": 1, "stages": [2, 1]}},
        {"threshold": 0.25},
        {"threads": 1},
        {"norms": "digital"},
        {"new": None},
    ],
)
def test_each_part_that_changes_is_another_question_and_is_named(change):
    asked, kept = Fingerprint.of(**PARTS, **{}), {**PARTS, **change}
    assert asked.sha256 != Fingerprint.of(**kept).sha256
    (found,) = asked.differences(kept)
    assert found.name.split(".")[0] == next(iter(change))


def test_a_part_that_is_missing_differs_though_it_is_none():
    without = {name: value for name, value in PARTS.items() if name != "norms"}
    assert [d.name for d in Fingerprint.of(**PARTS).differences(without)] == ["norms"]


def test_words_that_are_joined_alike_are_not_one_content():
    assert sha256_of(["a b", "c"]) != sha256_of(["a", "b c"])
    assert sha256_of([1]) != sha256_of(["1"])


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        sha256_of([float("nan")])


def test_a_refusal_says_what_differs_and_what_to_do_in_one_line():
    kept = {**PARTS, "weights_sha256": "b" * 64, "threads": 4, "plan": {"seed": 1, "stages": []}}
    with pytest.raises(OutputError) as caught:
        Fingerprint.of(**PARTS).check(kept, "out: holds another study", "choose another --out")
    assert str(caught.value) == (
        "out: holds another study: weights sha256 was bbbbbbbbbbbb, is now aaaaaaaaaaaa, "
        "plan: stages was [], is now [1, 2], threads was 4, is now 2; choose another --out"
    )


def test_many_differences_are_cut_short():
    differences = Fingerprint.of(**{f"p{n}": 1 for n in range(5)}).differences({})
    assert describe_differences(differences).endswith("p2 was not there, is now 1, and 2 more")
