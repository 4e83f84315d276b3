"""A site says which class or value is malignant: on the command line, or in its table."""

import json

import cv2
import numpy as np
import pytest

from mamfed_client.annotations.classes import MalignantClasses

UNKNOWN = {"class not known": 1}


@pytest.fixture
def labelled(folder, drawing):
    """A malignant patient whose mask is a map: breast 1, lesion 2. Not written."""
    folder.malignant("P-one")
    labels = drawing.breast()[1].astype(np.uint8) + drawing.lesion()
    cv2.imwrite(str(folder.path / "masks/1.png"), labels)
    return folder


@pytest.fixture
def categorised(folder, drawing):
    """A malignant patient with a COCO file of two classes, of which none is known. Not written."""
    folder.malignant("P-one")
    square = [[30, 80, 50, 80, 50, 100, 30, 100]]
    document = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "categories": [{"id": 1, "name": "type-a"}, {"id": 2, "name": "type-b"}],
        "annotations": [
            {
                "image_id": 1,
                "category_id": n,
                "segmentation": square if n == 2 else [[0, 0, 9, 0, 9, 9]],
            }
            for n in (1, 2)
        ],
    }
    (folder.path / "masks/1.json").write_text(json.dumps(document))
    folder.rows[0]["mask"] = "masks/1.json"
    return folder


def test_a_map_of_values_is_refused_and_the_line_says_what_to_do(check, labelled):
    found = check(labelled.write(), "--list", code=3)

    assert found["rejected"] == UNKNOWN
    assert (
        "pixels of 1, 2; name the malignant values with --mask-values"
        in found["items"][0]["detail"]
    )


def test_a_value_on_the_command_line_or_in_the_table_settles_it(check, prepare, labelled, tmp_path):
    folder = labelled.write()

    assert check(folder, "--mask-values", 2)["accepted"] == 1
    assert check(folder, code=3)["rejected"] == UNKNOWN
    assert prepare(folder, tmp_path / "out", "--mask-values", 2)["accepted"] == 1
    labelled.rows[0]["mask_values"] = "2"
    labelled.write()
    assert check(folder)["accepted"] == 1
    assert check(folder, "--mask-values", 1)["accepted"] == 1


def test_another_value_makes_another_sample(prepare, folder, drawing, tmp_path, content_of):
    folder.malignant("P-one")
    lesions = drawing.lesion() + np.roll(drawing.lesion(), 35, axis=0) * np.uint8(2)
    cv2.imwrite(str(folder.path / "masks/1.png"), lesions)

    def samples(value):
        prepare(folder.write(), tmp_path / "out", "--mask-values", value)
        return [name for name in content_of(tmp_path / "out") if name.endswith(".safetensors")]

    assert len(samples(1)) == len(samples(2)) == 1
    assert samples(1) != samples(2)


def test_what_is_left_out_by_judgement_is_not_taken_for_a_missing_disk(
    call, prepare, labelled, tmp_path
):
    prepare(labelled.write(), tmp_path / "out", "--mask-values", 2)

    words = ("prepare", labelled.path, "--out", tmp_path / "out", "--size", 64)

    assert "class not known" in call(*words, "--list", code=3).stdout


def test_a_class_on_the_command_line_or_in_the_table_settles_it(check, categorised):
    folder = categorised.write()

    assert check(folder, code=3)["rejected"] == UNKNOWN
    found = check(folder, "--classes", "Type-B")
    assert (found["accepted"], found["regions_of_other_classes"]) == (1, 1)
    categorised.rows[0]["classes"] = "type-a | type-b"
    categorised.write()
    assert check(folder)["regions_of_other_classes"] == 0


def test_what_the_site_says_is_part_of_what_is_read_again():
    assert (
        str(MalignantClasses(values=("1",)))
        != str(MalignantClasses(values=("2",)))
        != str(MalignantClasses(("2",)))
    )
