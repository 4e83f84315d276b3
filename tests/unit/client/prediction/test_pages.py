"""How images hang, and what the pages say."""

import base64
import re

import cv2
import numpy as np
import pytest

from mamfed_client.imaging.geometry import Box, Transform
from mamfed_client.prediction.lesions import Lesion
from mamfed_client.prediction.pictures import draw_labels, hung_frame, whole_frame
from mamfed_client.prediction.study_page import HungImage, hang


def record(side, view, chest_wall="left"):
    return {"laterality": side, "view": view, "chest_wall": chest_wall}


def names(images):
    return [(image.record["laterality"], image.record["view"]) for image in images]


def test_the_right_breast_hangs_at_the_left_and_cc_above_mlo():
    offered = [("L", "MLO"), ("L", "ML"), ("R", "MLO"), ("L", "CC"), ("R", "CC"), (None, "CC")]
    rows, unknown = hang(HungImage(record(*one), {}, False) for one in offered)
    assert [row.view for row in rows] == ["CC", "MLO", "ML"]
    assert [names(row.right) + names(row.left) for row in rows] == [
        [("R", "CC"), ("L", "CC")],
        [("R", "MLO"), ("L", "MLO")],
        [("L", "ML")],
    ]
    assert names(unknown) == [(None, "CC")]


def transform(*, flipped):
    """The breast in rows 10..90 and columns 0..50, or at the other side."""
    left, right = (50, 100) if flipped else (0, 50)
    return Transform(100, 100, 10, 90, left, right, flipped, 64)


@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("flipped", [False, True])
def test_chest_walls_meet_in_the_middle_however_the_file_is(side, flipped):
    way = transform(flipped=flipped)
    image = np.zeros((100, 100), np.uint8)
    chest_wall = 95 if flipped else 5
    image[10:90, chest_wall - 5 : chest_wall + 5] = 200
    shown = hung_frame(way, side).show(image, (100, 100))
    half = shown.shape[1] // 2
    bright = "right" if shown[:, half:].mean() > shown[:, :half].mean() else "left"
    assert bright == {"R": "right", "L": "left"}[side]


def test_a_breast_of_unknown_side_is_shown_as_it_is():
    for flipped in (False, True):
        assert not hung_frame(transform(flipped=flipped), None).mirrored


@pytest.mark.parametrize("mirrored", [False, True])
def test_labels_stand_beside_their_lesion_also_in_a_mirrored_picture(mirrored):
    way = transform(flipped=False)
    frame = hung_frame(way, "R" if mirrored else "L")
    assert frame.mirrored == mirrored
    x, y = frame.place(Box(30, 40, 10, 20))
    assert (x, y) == (pytest.approx(0.8 if mirrored else 0.4), pytest.approx(0.25))


def test_a_label_at_the_edge_stays_in_the_picture():
    shape = (400, 300)
    picture = np.zeros((*shape, 3), np.uint8)
    lesion = Lesion(2, 298, Box(0, 5, 295, 300), 25, None, 0.5, 0.6)
    drawn = draw_labels(picture, [lesion], whole_frame(shape)) > 128
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert len(rows) > 50
    assert rows.min() >= 0
    assert columns.max() < 300
    assert columns.max() - columns.min() > 30


def test_a_label_is_read_on_bright_tissue_too():
    lesion = Lesion(2, 298, Box(200, 205, 100, 105), 25, None, 0.5, 0.6)
    bright = np.full((400, 300, 3), 255, np.uint8)
    drawn = draw_labels(bright, [lesion], whole_frame((400, 300)))
    rows, columns = np.nonzero((drawn < 50).all(axis=2))
    plate = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert 0.4 < (plate < 50).mean() < 0.95


def lit(boxes):
    lesions = [Lesion(0, 0, box, 25, None, 0.5, 0.6) for box in boxes]
    drawn = draw_labels(np.zeros((400, 300, 3), np.uint8), lesions, whole_frame((400, 300)))
    return (drawn > 128).any(axis=2).sum()


def test_labels_of_lesions_side_by_side_do_not_cover_each_other():
    boxes = [Box(100 + shift, 120, 50, 60 + shift) for shift in range(4)]
    assert lit(boxes) > 3.8 * lit(boxes[:1]), "digits differ a little in their pixels"


def test_a_picture_full_of_labels_is_drawn_all_the_same():
    assert lit([Box(5, 10, 295, 300)] * 100) > 0


def pictures_of(page):
    data = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page.read_text())
    assert data
    return [
        cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_GRAYSCALE)
        for one in data
    ]


def test_a_page_shows_what_it_says(write_phantom, predicted, tmp_path):
    write_phantom("aurora", "R", "CC", mirrored=True)
    write_phantom("aurora", "L", "CC")
    predicted(tmp_path / "in")
    (page,) = (tmp_path / "out/studies").iterdir()
    text = page.read_text()
    assert text.count("mirrored relative to the file") == 1
    assert "Research use only" in text
    listed = (tmp_path / "out/index.html").read_text()
    assert f"study {page.stem[:8]}" in listed
    assert f"rediction for study {page.stem[:8]}</h1>" in text
    strongest = re.search(r"<b>([0-9.]+)</b> strongest|highest probability ([0-9.]+)", listed)
    assert (
        f" {strongest[1] or strongest[2]}" in re.search(r'class="verdict">.*?</p>', text, re.S)[0]
    )
    assert "No R MLO" not in text, "no view was taken of which no image came"
    right, left = pictures_of(page)[:2]
    for picture, wall in ((right, slice(-20, None)), (left, slice(0, 20))):
        other = slice(0, 20) if wall.start == -20 else slice(-20, None)
        assert picture[:, wall].mean() > picture[:, other].mean() + 10


def test_pages_ask_the_network_for_nothing(write_phantom, predicted, tmp_path):
    predicted(write_phantom().path)
    for page in (tmp_path / "out").rglob("*.html"):
        text = page.read_text()
        assert "Content-Security-Policy" in text
        assert not re.findall(r'(?:src|href)="(?!data:|#|studies/|\.\./index\.html)', text)
        assert "<script" not in text
