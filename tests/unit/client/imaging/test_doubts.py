"""What is doubtful is used, counted and listed; doubtful masks wait until somebody has looked."""

import json

import pytest

from mamfed_client.imaging.doubts import Doubt
from mamfed_client.preparation.cohort import load_cohort
from mamfed_client.preparation.row_result import RowResult

LARGE = str(Doubt.MASK_LARGE)


@pytest.fixture
def doubtful(folder, drawing):
    """Two malignant patients; the mask of the second outlines most of the breast. Not written."""
    folder.malignant("P-one").malignant("P-two")
    breast = drawing.breast()[1].copy()
    breast[:60] = False
    drawing.png(folder.path / "masks/2.png", breast.astype(float))
    return folder


def test_a_check_counts_doubts_and_lists_them_with_rows(check, doubtful):
    found = check(doubtful.write(), "--list")

    assert (found["accepted"], found["doubtful_images"], found["doubts"]) == (2, 1, {LARGE: 1})
    assert [item["doubts"] for item in found["items"]] == [[], [f"{LARGE}: 74% of the breast"]]


def test_a_check_ends_with_doubts_in_plain_words(call, doubtful):
    shown = call("check", doubtful.write(), "--list").stdout

    assert shown.rstrip().endswith(f"     1  {Doubt.MASK_LARGE.sentence}")
    assert "1 image is doubtful" in shown
    assert f"accepted; doubtful: {LARGE}: 74% of the breast" in shown


def test_a_second_check_knows_the_doubts_of_the_first(check, doubtful):
    folder = doubtful.write()

    assert check(folder) == check(folder)
    assert check(folder)["doubts"] == {LARGE: 1}


def test_preparing_leaves_doubtful_masks_out_and_says_what_to_do(call, doubtful, tmp_path):
    words = ("prepare", doubtful.write(), "--out", tmp_path / "out", "--size", 64)
    result = call(*words, "--format", "json", code=1)

    found = json.loads(result.stdout)
    assert (found["accepted"], found["rejected"]) == (1, {"doubtful mask": 1})
    assert (result.exception.exit_code, "\n" in str(result.exception)) == (12, False)
    assert "1 doubtful mask was rejected" in str(result.exception)
    assert "set reviewed: yes" in str(result.exception)
    assert "--accept-doubts" in str(result.exception)


def test_doubtful_masks_are_prepared_where_they_are_accepted(prepare, doubtful, tmp_path):
    found = prepare(doubtful.write(), tmp_path / "out", "--accept-doubts")

    assert (found["accepted"], found["doubts"]) == (2, {LARGE: 1})


def test_masks_that_are_doubtful_only_together_are_left_out_too(call, folder, tmp_path):
    for number in range(5):
        folder.add(f"P{number}", pathology="malignant", mask=True)
    words = ("prepare", folder.write(), "--out", tmp_path / "out", "--size", 64)

    result = call(*words, "--list", code=1)

    assert "doubtful mask: masks all alike: 5 of 5 masks" in result.stdout
    assert "5 doubtful masks were rejected" in str(result.exception)


def test_a_prepared_folder_keeps_its_doubts_and_one_without_them_is_still_read(
    prepare, doubtful, tmp_path
):
    def doubts():
        options = {"size": 64, "seed": 0, "val_fraction": 0, "test_fraction": 0}
        cohort = load_cohort("here", tmp_path / "out", cache_dir=tmp_path, **options)
        return [len(image.case.doubts) for image in cohort.images]

    prepare(doubtful.write(), tmp_path / "out", "--accept-doubts")
    assert doubts() == [0, 1]

    path = tmp_path / "out/manifest.json"
    content = json.loads(path.read_text())
    del content["sha256"]  # as earlier versions wrote it
    for case in content["cases"]:
        del case["doubts"], case["outcome"]["doubts"]
    path.write_text(json.dumps(content))
    assert doubts() == [0, 0]


def test_a_reviewed_row_is_not_doubtful(prepare, doubtful, tmp_path):
    doubtful.rows[1]["reviewed"] = "yes"

    found = prepare(doubtful.write(), tmp_path / "out")

    assert (found["accepted"], found["doubts"]) == (2, {})


def test_reviewed_is_yes_or_no(check, doubtful):
    doubtful.rows[0]["reviewed"], doubtful.rows[1]["reviewed"] = "perhaps", "No"

    found = check(doubtful.write())

    assert found["rejected"] == {"bad reviewed": 1}
    assert found["doubts"] == {LARGE: 1}


def test_an_outcome_of_an_older_version_has_no_doubts():
    content = RowResult(digest="d").to_json()
    del content["doubts"]

    assert RowResult.from_json(content).doubts == ()


def test_every_doubt_has_a_sentence():
    assert all(doubt.sentence.endswith(".") for doubt in Doubt)


def test_training_from_the_folder_itself_says_that_masks_are_doubtful(doubtful, tmp_path, capsys):
    options = {"size": 64, "seed": 0, "val_fraction": 0, "test_fraction": 0}
    folder = doubtful.write()

    load_cohort("here", folder, cache_dir=tmp_path / "cache", progress=True, **options)

    assert "here: 1 doubtful mask is used; review with" in capsys.readouterr().err
