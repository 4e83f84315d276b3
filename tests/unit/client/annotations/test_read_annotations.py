import json

import cv2
import numpy as np
import pytest

from mamfed_client.annotations import MarkedRegions, read_annotations
from mamfed_client.annotations.shapes import Annotation, Shape
from mamfed_client.imaging.rejections import FileRejected, Reason

BOX = Shape("box", ((0, 0), (3, 3)))
POINT = Shape("point", ((1, 1),))
CIRCLE = Shape("circle", ((4, 2),), (1, 1))


def picture(path, *marked, rows=5, columns=7):
    pixels = np.zeros((rows, columns), np.uint8)
    for place in marked:
        pixels[place] = 255
    assert cv2.imwrite(str(path), pixels)
    return Annotation(path)


def test_files_and_shapes_are_united_and_counted(tmp_path):
    small, large = (
        picture(tmp_path / "1.png", (0, 0)),
        picture(tmp_path / "2.png", (9, 13), rows=10, columns=14),
    )
    found = read_annotations([small, large, Annotation(shapes=(BOX, POINT, CIRCLE))], 5, 7)
    assert isinstance(found, MarkedRegions)
    places = [[0, 0], [1, 1], [1, 4], [2, 3], [2, 4], [2, 5], [3, 4], [4, 6]]
    assert np.argwhere(found.mask).tolist() == places
    assert found.mask.dtype == bool
    assert (found.resampled, found.boxes, found.points) == (1, 1, 1)


@pytest.mark.parametrize(
    ("shapes", "detail"),
    [
        ((BOX,), "1 box and no outline"),
        ((BOX, BOX), "2 boxes and no outline"),
        ((BOX, BOX, POINT), "2 boxes and 1 point and no outline"),
        ((BOX, POINT, POINT), "1 box and 2 points and no outline"),
        ((), "marks nothing in the image"),
        ((Shape("circle", ((90, 90),), (2, 2)),), "marks nothing in the image"),
    ],
)
def test_shapes_without_an_outline_are_an_empty_mask(shapes, detail):
    with pytest.raises(FileRejected) as refusal:
        read_annotations([Annotation(shapes=shapes)], 5, 7)
    assert refusal.value.reason is Reason.EMPTY_MASK
    assert refusal.value.detail.endswith(detail)


def test_no_annotation_at_all_is_an_empty_mask():
    with pytest.raises(FileRejected) as refusal:
        read_annotations([], 5, 7)
    assert refusal.value.reason is Reason.EMPTY_MASK


def test_points_alone_are_a_mask():
    assert read_annotations([Annotation(shapes=(POINT,))], 5, 7).points == 1


def test_boxes_beside_a_mask_file_are_counted_and_left_out(tmp_path):
    file = picture(tmp_path / "1.png", (4, 6))
    found = read_annotations([file, Annotation(shapes=(BOX,))], 5, 7)
    assert np.argwhere(found.mask).tolist() == [[4, 6]]
    assert found.boxes == 1


def test_a_black_mask_file_beside_boxes_is_no_outline(tmp_path):
    with pytest.raises(FileRejected, match="1 box and no outline"):
        read_annotations([picture(tmp_path / "1.png"), Annotation(shapes=(BOX,))], 5, 7)


def test_one_unreadable_file_of_two_refuses_all(tmp_path):
    (tmp_path / "2.png").write_bytes(b"?")
    with pytest.raises(FileRejected) as refusal:
        read_annotations(
            [picture(tmp_path / "1.png", (4, 6)), Annotation(tmp_path / "2.png")], 5, 7
        )
    assert refusal.value.reason is Reason.UNREADABLE_MASK


@pytest.mark.parametrize("name", ["secret-id.png", "secret-id.xml", "secret-id.json", "secret-id"])
def test_a_file_that_is_missing_is_refused_without_its_name(tmp_path, name):
    with pytest.raises(FileRejected, match="FileNotFoundError") as refusal:
        read_annotations([Annotation(tmp_path / name)], 5, 7)
    assert refusal.value.reason is Reason.UNREADABLE_MASK
    assert "secret" not in str(refusal.value)


def test_a_path_that_cannot_exist_is_refused(tmp_path):
    with pytest.raises(FileRejected):
        read_annotations([Annotation(tmp_path / "a\0b")], 5, 7)


def test_a_text_file_beyond_the_limit_is_refused(tmp_path):
    with (tmp_path / "1.json").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(FileRejected, match="larger than 64 MiB"):
        read_annotations([Annotation(tmp_path / "1.json")], 5, 7)


VIA = {
    "k": {
        "filename": "1.png",
        "regions": [{"shape_attributes": {"name": "point", "cx": 1, "cy": 1}}],
    }
}
TABLE = '#filename,region_shape_attributes\n1.png,"{""name"":""point"",""cx"":1,""cy"":1}"\n'
PLIST = (
    '<?xml version="1.0"?><plist><dict><key>Images</key><array><dict><key>ROIs</key><array>'
    "<dict><key>Point_px</key><array><string>(1, 1)</string></array></dict>"
    "</array></dict></array></dict></plist>"
)


@pytest.mark.parametrize("text", [json.dumps(VIA), TABLE, PLIST])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_text_without_suffix_is_known_by_its_content(tmp_path, text, mark):
    (tmp_path / "outlines").write_text(mark + text, encoding="utf-8")
    found = read_annotations([Annotation(tmp_path / "outlines", "1.png")], 5, 7)
    assert np.argwhere(found.mask).tolist() == [[1, 1]]


def test_a_file_of_no_known_format_is_refused(tmp_path):
    (tmp_path / "outlines.roi").write_bytes(b"Iout\0\0Secret^Name")
    with pytest.raises(FileRejected, match="an annotation of unknown format") as refusal:
        read_annotations([Annotation(tmp_path / "outlines.roi")], 5, 7)
    assert "Secret" not in str(refusal.value)
