import json

import numpy as np
import pytest

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.rejections import FileRejected, Reason

RING = np.zeros((5, 7), bool)
RING[1:4, 2:5] = True
RING[2, 3] = False
RING_COUNTS = [11, 3, 2, 1, 1, 1, 2, 3, 11]
RING_TEXT = ";32NO0129"
"""``RING`` as pycocotools 2.0.11 encodes it."""


def write(path, *annotations, rows=5, columns=7, **image):
    entry = {"id": 3, "file_name": "images/1.png", "height": rows, "width": columns} | image
    entries = [{"id": i, "image_id": 3, "category_id": 1} | a for i, a in enumerate(annotations)]
    other = {"image_id": 4, "segmentation": [[0, 0, 7, 0, 7, 5, 0, 5]]}
    images = [entry, {"id": 4, "file_name": "2.png"}]
    path.write_text(json.dumps({"images": images, "annotations": [*entries, other]}))
    return path


def rows_of(mask):
    return ["".join("#" if pixel else "." for pixel in row) for row in mask]


def test_polygons_count_from_the_corner_of_the_first_pixel(tmp_path, marked):
    polygons = [[1, 1, 4, 1, 4, 3, 1, 3], [5, 3, 7, 3, 7, 5, 5, 5]]
    path = write(tmp_path / "c.json", {"segmentation": polygons, "bbox": [1, 1, 6, 4]})
    assert marked(path, 5, 7) == [".......", ".###...", ".###...", ".....##", ".....##"]


@pytest.mark.parametrize("counts", [RING_COUNTS, RING_TEXT])
def test_run_lengths_are_laid_out_column_after_column(tmp_path, marked, counts):
    runs = {"size": [5, 7], "counts": counts}
    path = write(tmp_path / "c.json", {"segmentation": runs, "iscrowd": 1})
    assert marked(path, 5, 7) == rows_of(RING)


def test_compressed_runs_of_one_to_four_characters_are_read(tmp_path):
    """The text is pycocotools' for these runs."""
    runs = [1, 40, 1200, 36000, 3, 20, 22736]
    segmentation = {"size": [200, 300], "counts": "1X1`U1hSS1cjNdklN]Vf0"}
    path = write(tmp_path / "c.json", {"segmentation": segmentation}, rows=200, columns=300)
    mask = read_annotations([Annotation(path, "1.png")], 200, 300).mask
    assert (mask.T.ravel() == np.repeat(np.arange(7) % 2 == 1, runs)).all()


def test_all_kinds_in_one_file_are_united(tmp_path):
    path = write(
        tmp_path / "c.json",
        {"segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]]},
        {"segmentation": {"size": [5, 7], "counts": RING_COUNTS}},
        {"bbox": [0, 0, 7, 5], "segmentation": []},
        {"bbox": [0, 0, 7, 5]},
    )
    found = read_annotations([Annotation(path, "1.png")], 5, 7)
    assert found.mask.sum() == 9
    assert (found.boxes, found.resampled) == (2, 0)


def test_boxes_alone_are_no_mask(tmp_path, marked):
    with pytest.raises(FileRejected, match="1 box and no outline") as refusal:
        marked(write(tmp_path / "c.json", {"bbox": [1, 1, 2, 2]}), 5, 7)
    assert refusal.value.reason is Reason.EMPTY_MASK


def test_outlines_drawn_on_a_copy_of_half_the_size_are_stretched(tmp_path):
    path = write(tmp_path / "c.json", {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]})
    found = read_annotations([Annotation(path, "1.png")], 10, 14)
    expected = np.zeros((10, 14), bool)
    expected[2:6, 2:8] = True
    assert (found.mask == expected).all()
    assert found.resampled == 1


def test_run_lengths_of_half_the_size_are_stretched(tmp_path):
    path = write(tmp_path / "c.json", {"segmentation": {"size": [5, 7], "counts": RING_TEXT}})
    found = read_annotations([Annotation(path, "1.png")], 10, 14)
    assert (found.mask == RING.repeat(2, axis=0).repeat(2, axis=1)).all()
    assert found.resampled == 1


def test_outlines_on_an_image_of_another_aspect_are_refused(tmp_path, marked):
    path = write(tmp_path / "c.json", {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]})
    with pytest.raises(FileRejected, match="mask 7 x 5, image 7 x 9") as refusal:
        marked(path, 9, 7)
    assert refusal.value.reason is Reason.MASK_SIZE


def test_an_image_without_a_stated_size_takes_outlines_as_they_are(tmp_path, marked):
    path = write(tmp_path / "c.json")
    assert marked(path, 2, 3, image_name="2.dcm") == ["###", "###"]


def test_an_image_that_is_not_listed_has_an_empty_mask(tmp_path, marked):
    with pytest.raises(FileRejected, match="does not list the image") as refusal:
        marked(write(tmp_path / "c.json"), 5, 7, image_name="9.png")
    assert refusal.value.reason is Reason.EMPTY_MASK


def test_an_image_listed_twice_is_refused(tmp_path, marked):
    with pytest.raises(FileRejected, match="2 entries match"):
        marked(write(tmp_path / "c.json", file_name="2.png"), 5, 7, image_name="2.png")


@pytest.mark.parametrize(
    ("annotation", "detail"),
    [
        ({}, "KeyError"),
        ({"bbox": [1, 2]}, "ValueError"),
        ({"segmentation": 5}, "TypeError"),
        ({"segmentation": [[1, 2, 3]]}, "ValueError"),
        ({"segmentation": [["a", 2]]}, "ValueError"),
        ({"segmentation": {"size": [5, 7]}}, "KeyError"),
    ],
)
def test_an_annotation_that_is_not_understood_is_refused(tmp_path, marked, annotation, detail):
    with pytest.raises(FileRejected, match=detail) as refusal:
        marked(write(tmp_path / "c.json", annotation), 5, 7)
    assert refusal.value.reason is Reason.UNREADABLE_MASK


@pytest.mark.parametrize(
    ("size", "counts", "detail"),
    [
        ([5, 7], [34], "do not fill 7 x 5"),
        ([5, 7], [36], "do not fill 7 x 5"),
        ([5, 7], [36, -1], "do not fill 7 x 5"),
        ([5, 7], [], "do not fill 7 x 5"),
        ([5, 7], RING_TEXT[:-1], "do not fill 7 x 5"),
        ([0, 7], [0], "a mask of 7 x 0 pixels"),
        ([100_000, 100_000], [0], "a mask of 100000 x 100000 pixels"),
        ([5, 7], RING_TEXT + "P", "truncated"),
        ([5, 7], RING_TEXT + " ", "an invalid character"),
        ([5, 7], "o" * 5000, "that is too long"),
    ],
)
def test_run_lengths_that_make_no_sense_are_refused(tmp_path, marked, size, counts, detail):
    path = write(tmp_path / "c.json", {"segmentation": {"size": size, "counts": counts}})
    with pytest.raises(FileRejected, match=detail) as refusal:
        marked(path, 5, 7)
    assert refusal.value.reason is Reason.UNREADABLE_MASK
