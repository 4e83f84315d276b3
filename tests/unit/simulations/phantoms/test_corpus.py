"""Bad files: each is what it claims to be, and the client refuses it for the expected reason."""

from __future__ import annotations

import csv
import hashlib
import warnings
from collections import Counter

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from mamfed_client.imaging.preprocess import prepare
from mamfed_client.imaging.reader import read_mammogram
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_common.errors import OutputError
from mamfed_simulations.phantoms.corpus import KINDS, write_bad_files, write_intake_folder
from mamfed_simulations.phantoms.ineligible_files import DUPLICATES

SEED = 5


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    return folder, write_bad_files(folder, SEED)


def path_of(bad, kind):
    folder, expected = bad
    (name,) = (name for name, _ in expected if name[3:] == f"{kind}.dcm")
    return folder / name


def header_of(bad, kind):
    return pydicom.dcmread(path_of(bad, kind))


def outcome(path):
    """What the client makes of a file alone; that it has a twin shows among others only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, about what is broken on purpose
            prepare(read_mammogram(path), None, 128)
    except FileRejected as refusal:
        return refusal.reason
    return None


def test_there_are_many_kinds_and_every_reason_of_the_file_is_met():
    reasons = {reason for reason, _ in KINDS.values()}
    assert len(KINDS) >= 40
    others = {"TOO_SLOW", "DECODER_CRASHED"}  # of hostile files, which the fuzzer has
    names = list(Reason.__members__)
    of_the_file = names[names.index("UNREADABLE_IMAGE") : names.index("MISSING_MASK")]
    assert set(of_the_file) - others <= {reason.name for reason in reasons}
    assert {Reason.DUPLICATE_IMAGE, Reason.NO_BREAST} <= reasons


def test_a_file_of_each_kind_is_written_beside_one_good_file(bad):
    folder, expected = bad
    assert [reason for _, reason in expected] == [reason for reason, _ in KINDS.values()]
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["00-good.dcm", *(name for name, _ in expected)]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6


def test_the_good_file_is_accepted(bad):
    assert outcome(bad[0] / "00-good.dcm") is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_refuses_a_bad_file_for_the_expected_reason(bad, kind):
    expected = None if kind in DUPLICATES else KINDS[kind][0]
    assert outcome(path_of(bad, kind)) == expected


def test_a_cut_codestream_lies_in_a_sound_container(bad):
    for kind in ("cut-jpeg-2000", "cut-jpeg-lossless", "cut-jpeg-ls"):
        (frame,) = generate_frames(header_of(bad, kind).PixelData, number_of_frames=1)
        assert not frame.rstrip(b"\0").endswith(b"\xff\xd9")


def test_cut_pixels_are_half_of_what_the_header_says(bad):
    dataset = header_of(bad, "cut-pixels")
    assert len(dataset.PixelData) == pytest.approx(dataset.Rows * dataset.Columns, abs=2)


def test_the_two_duplicates_repeat_the_pixels_and_one_the_identifier(bad):
    def digest(dataset):
        return hashlib.sha256(dataset.pixel_array.tobytes()).digest()

    good = pydicom.dcmread(bad[0] / "00-good.dcm")
    copy, same_pixels = (header_of(bad, kind) for kind in DUPLICATES)
    assert good.SOPInstanceUID == copy.SOPInstanceUID != same_pixels.SOPInstanceUID
    assert digest(copy) == digest(same_pixels)
    read = [read_mammogram(bad[0] / "00-good.dcm"), read_mammogram(path_of(bad, "same-pixels"))]
    np.testing.assert_array_equal(read[0].grey, read[1].grey)


def test_the_scout_contradicts_itself(bad):
    dataset = header_of(bad, "biopsy-scout")
    assert (dataset.Rows, dataset.Columns) == (512, 512)
    assert (dataset.PixelSpacing[0], dataset.ImagerPixelSpacing[0]) == (0.975, 0.1)


def test_a_black_image_is_black_however_it_is_displayed(bad):
    for kind in ("black", "flat"):
        dataset = header_of(bad, kind)
        assert dataset.pixel_array.min() == dataset.pixel_array.max()


def test_the_same_seed_writes_the_same_bad_files(bad, tmp_path):
    write_bad_files(tmp_path, SEED)
    for path in bad[0].iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def read_table(folder):
    with (folder / "labels.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def intake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intake")
    return folder, write_intake_folder(folder, 130, 60, SEED)


def test_an_intake_folder_counts_what_is_bad_in_it(intake):
    folder, expected = intake
    rows = read_table(folder)
    assert len(rows) == len(list((folder / "images").iterdir())) == 130
    assert sum(expected.values()) == 60
    first, again = Counter(r for r, _ in KINDS.values()), 60 - len(KINDS)
    second = Counter([reason for reason, _ in KINDS.values()][:again])
    assert Counter(expected) == first + second


def test_the_client_refuses_as_many_files_of_an_intake_folder_as_expected(intake):
    folder, expected = intake
    found = Counter(outcome(folder / row["image"]) for row in read_table(folder))
    duplicates = expected[Reason.DUPLICATE_IMAGE]
    del found[None]
    assert found == Counter(expected) - Counter({Reason.DUPLICATE_IMAGE: duplicates})


def test_no_two_good_images_of_an_intake_folder_have_the_same_pixels(intake):
    folder, _ = intake
    digests, instances = Counter(), Counter()
    for row in read_table(folder):
        path = folder / row["image"]
        if outcome(path) is None:
            mammogram = read_mammogram(path)
            digests[hashlib.sha256(mammogram.grey[::4, ::4].tobytes()).digest()] += 1
            instances[mammogram.facts.instance] += 1
    assert len(digests) == 70
    assert len(instances) == 70 + 1  # same-pixels is renamed


def test_the_table_of_an_intake_folder_knows_masks_and_no_side_of_bad_images(intake):
    folder, _ = intake
    rows = read_table(folder)
    for row in rows:
        assert bool(row["mask"]) == (row["pathology"] == "malignant")
        if row["patient_id"].startswith("BAD"):
            assert (row["laterality"], row["mask"]) == ("", "")
        elif row["mask"]:
            mask = cv2.imread(str(folder / row["mask"]), cv2.IMREAD_UNCHANGED)
            assert mask.any()
    assert 20 < sum(bool(row["mask"]) for row in rows) < 60
    assert {row["vendor"] for row in rows} == {"aurora", "borealis", "cirrus"}


def test_a_duplicate_comes_after_its_original_and_has_its_patient_and_label(intake):
    rows = read_table(intake[0])
    seen = {}
    for row in rows:
        key = (row["patient_id"], row["view"])
        if key in seen:
            same = {k: v for k, v in row.items() if k not in ("image", "mask")}
            assert same == {k: v for k, v in seen[key].items() if k not in ("image", "mask")}
        seen.setdefault(key, row)
    assert len(rows) - len(seen) == len(DUPLICATES)


def test_a_bare_folder_holds_the_same_images_and_nothing_else(intake, tmp_path):
    expected = write_intake_folder(tmp_path, 20, 5, SEED, table=False)
    assert sum(expected.values()) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert len(list((tmp_path / "images").iterdir())) == 20


def test_a_place_that_cannot_be_written_ends_with_an_output_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="choose another folder"):
        write_bad_files(tmp_path / "taken", SEED)
    with pytest.raises(OutputError, match="choose another folder"):
        write_intake_folder(tmp_path / "taken", 3, 1, SEED)
