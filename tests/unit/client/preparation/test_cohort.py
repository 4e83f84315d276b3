import json
from dataclasses import asdict

import numpy as np
import pytest

from mamfed_client.imaging.rejections import Reason
from mamfed_client.preparation.cohort import load_cohort
from mamfed_common.domain import PARTS, PURPOSES
from mamfed_common.errors import DataError


@pytest.fixture
def load(tmp_path):
    def load_folder(folder, **options):
        usual = {"size": 48, "seed": 1, "val_fraction": 0.2, "test_fraction": 0.2}
        usual["cache_dir"] = tmp_path / "cache"
        return load_cohort("here", folder.write(), **(usual | options))

    return load_folder


def names(cohort, purpose):
    return sorted(s.name for part in PARTS for s in cohort.samples(purpose, part))


@pytest.fixture
def mixed(folder):
    """Five malignant and five benign patients, two images each."""
    for number in range(5):
        for _ in range(2):
            folder.malignant(f"M{number}").benign(f"B{number}")
    return folder


def test_samples_come_by_purpose_and_part(load, mixed):
    cohort = load(mixed)
    images = {"train": 6, "val": 2, "test": 2}
    none = dict.fromkeys(PARTS, 0)
    assert cohort.counts.images["malignant"] == cohort.counts.images["benign"] == images
    assert cohort.counts.patients["malignant"] == {"train": 3, "val": 1, "test": 1}
    assert cohort.counts.rows == 20
    samples = cohort.samples("malignant", "train")
    assert len(samples) == 6
    assert all(sample.mask.any() for sample in samples)
    assert not any(sample.mask.any() for sample in cohort.samples("benign", "train"))
    assert len(samples[1:3]) == 2
    assert none == load(mixed).counts.rejected | none


def test_a_patients_images_are_in_one_part(load, mixed):
    parts = {}
    for image in load(mixed).images:
        parts.setdefault(image.case.row.patient_id, set()).add(image.part)
    assert all(len(part) == 1 for part in parts.values())


def test_patients_who_share_a_picture_are_in_one_part(load, mixed):
    mixed.write()
    images = mixed.path / "images"
    (images / "6.png").write_bytes((images / "2.png").read_bytes())  # of B1
    for seed in range(5):
        cohort = load(mixed, seed=seed)
        parts = {
            image.part
            for image in cohort.images
            if mixed.rows[image.case.row.row_number - 2]["patient_id"] in ("B0", "B1")
        }
        assert len(parts) == 1
        assert cohort.intake.linked_patients == 2


def test_the_order_of_rows_changes_neither_split_nor_samples(load, mixed):
    first = {image.case.row.image: image.part for image in load(mixed).images}
    mixed.rows.reverse()
    assert {image.case.row.image: image.part for image in load(mixed).images} == first


def test_every_purpose_is_split_by_itself(load, folder):
    folder.malignant("M1").malignant("M2")
    folder.benign("B1").benign("B2")
    for number in range(20):
        folder.benign(f"S{number}", birads="3")
    cohort = load(folder, val_fraction=0)
    for purpose in ("malignant", "benign"):
        assert cohort.counts.images[purpose] == {"train": 1, "val": 0, "test": 1}
    assert cohort.counts.images["without_malignancy"]["test"] == 5
    assert cohort.counts.excluded == {"patient has BI-RADS 3-6 or malignant row": 20}


def test_a_split_column_is_obeyed(load, folder):
    folder.benign("P1", split="test").benign("P2", split="test").benign("P3", split="train")
    assert load(folder).counts.images["benign"] == {"train": 1, "val": 0, "test": 2}


def test_a_split_column_and_folds_contradict_each_other(load, folder):
    folder.benign("P1", split="test").benign("P2", split="train")
    with pytest.raises(DataError, match="split column already names the test patients"):
        load(folder, fold=(0, 2))


def test_a_folder_is_divided_by_fold(load, folder):
    for number in range(6):
        folder.benign(f"P{number}")
    cohorts = [load(folder, fold=(fold, 3)) for fold in range(3)]
    tested = [{i.case.row.image for i in c.images if i.part == "test"} for c in cohorts]
    assert [len(some) for some in tested] == [2, 2, 2]
    assert len(set().union(*tested)) == 6


def test_a_leaking_split_column_is_an_error(load, folder):
    folder.benign("P1", split="test").benign("P1", split="train")
    with pytest.raises(DataError, match="two parts: rows 2, 3"):
        load(folder)


def test_bad_files_cost_their_rows_and_are_named(load, folder, drawing):
    folder.benign("P1").benign("P2").benign("P3").malignant("P4").malignant("P5").benign("P6")
    folder.malignant("P7")
    images, masks = folder.path / "images", folder.path / "masks"
    (images / "2.png").write_bytes(b"garbage")
    drawing.png(images / "3.png", np.zeros((50, 50)))
    drawing.png(masks / "4.png", np.ones((50, 50)))
    (masks / "5.png").write_bytes(b"garbage")
    (images / "6.png").unlink()
    drawing.png(masks / "7.png", np.zeros((181, 131)))
    cohort = load(folder)
    assert [(r.row_number, r.image, r.reason) for r in cohort.intake.rejected] == [
        (3, "images/2.png", Reason.UNREADABLE_IMAGE),
        (4, "images/3.png", Reason.NO_BREAST),
        (5, "images/4.png", Reason.MASK_SIZE),
        (6, "images/5.png", Reason.UNREADABLE_MASK),
        (7, "images/6.png", Reason.MISSING_IMAGE),
        (8, "images/7.png", Reason.EMPTY_MASK),
    ]
    assert cohort.counts.rejected == {str(r.reason): 1 for r in cohort.intake.rejected}
    assert cohort.counts.rows == 7
    assert names(cohort, "benign") == ["images/1.png"]


def test_a_patient_whose_malignant_image_is_unreadable_stays_out_of_stage_1(load, folder):
    folder.benign("P1").malignant("P1").benign("P2")
    (folder.path / "images" / "2.png").write_bytes(b"garbage")
    cohort = load(folder)
    assert names(cohort, "benign") == ["images/3.png"]
    assert names(cohort, "without_malignancy") == ["images/1.png", "images/3.png"]


def test_birads_3_on_another_row_keeps_a_patient_out_of_stage_1(load, folder):
    folder.benign("P1", birads="2").add("P1", birads="3").benign("P2", birads="1")
    assert names(load(folder), "benign") == ["images/3.png"]


def test_birads_4a_with_a_mask_is_malignant(load, folder):
    folder.add("P1", birads="4a", lesion=True, mask=True)
    assert names(load(folder), "malignant") == ["images/1.png"]


def test_the_mask_of_a_benign_row_is_no_target(load, folder):
    folder.add("P1", pathology="benign", mask=True)
    (sample,) = load(folder).samples("benign", "train")
    assert not sample.mask.any()


def test_dicom_and_pictures_may_stand_in_one_table(load, folder, drawing):
    folder.benign("P1", vendor="Film")
    drawing.dicom(folder.path / "a.dcm", drawing.breast()[0] * 4095, Manufacturer="GE")
    folder.rows.append(folder.rows[0] | {"image": "a.dcm", "patient_id": "P2", "vendor": ""})
    cohort = load(folder)
    assert cohort.counts.rejected == {}
    assert cohort.counts.vendors == {"Film": 1, "GE": 1}


def test_counts_are_json_and_name_nobody(load, folder):
    text = json.dumps(asdict(load(folder.benign("Secret").malignant("Secret2")).counts))
    assert "Secret" not in text
    assert set(json.loads(text)["images"]) == set(PURPOSES)


def test_a_folder_without_a_usable_row_is_an_error_with_the_reasons(load, folder):
    folder.add("P1", pathology="malignant").add("P2").benign("P3")
    (folder.path / "images" / "3.png").write_bytes(b"garbage")
    with pytest.raises(DataError, match="no image can be used") as caught:
        load(folder)
    for words in ("1 x unreadable image", "1 x malignant without mask", "1 x no pathology"):
        assert words in str(caught.value)


def test_samples_are_the_same_from_the_cache(load, mixed):
    first = load(mixed).samples("malignant", "test")[0]
    again = load(mixed).samples("malignant", "test")[0]
    assert first.name == again.name
    for before, after in zip(first[:3], again[:3], strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_damaged_cache_entry_is_remade(load, mixed):
    first = load(mixed)
    path = first.images[0].entry.path
    content = path.read_bytes()
    path.write_bytes(content[:100])
    load(mixed)
    assert path.read_bytes() == content


def test_the_progress_bar_is_on_stderr_only(load, mixed, capsys):
    load(mixed, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "preparing here" in err
