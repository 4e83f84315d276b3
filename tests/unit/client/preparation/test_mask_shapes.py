"""Whether a mask is a contour, or the ellipse or box of a reader's mark."""

import cv2
import numpy as np
import pytest

from mamfed_client.preparation.mask_shapes import drawn_as, drawn_notes


def drawn(paint, rows=301, columns=217):
    canvas = np.zeros((rows, columns), np.uint8)
    paint(canvas)
    return canvas.astype(bool)


def ellipse(canvas, centre=(100, 120), axes=(40, 23), angle=0):
    cv2.ellipse(canvas, centre, axes, angle, 0, 360, 1, cv2.FILLED)


def polygon(canvas):
    corners = [(60, 60), (120, 70), (140, 120), (100, 170), (70, 130)]
    cv2.fillPoly(canvas, [np.array(corners)], 1)


@pytest.mark.parametrize("axes", [(8, 8), (9, 30), (40, 23), (90, 100)])
def test_an_ellipse_is_one_whichever_program_drew_it(axes):
    assert drawn_as(drawn(lambda c: ellipse(c, axes=axes))) == "ellipse"
    rows, columns = np.ogrid[:301, :217]
    ours = ((columns - 100) / axes[0]) ** 2 + ((rows - 120) / axes[1]) ** 2 <= 1
    assert drawn_as(ours) == "ellipse"


def test_a_box_is_a_box():
    assert drawn_as(drawn(lambda c: cv2.rectangle(c, (20, 30), (90, 80), 1, cv2.FILLED))) == "box"


@pytest.mark.parametrize(
    "paint",
    [
        polygon,
        lambda c: ellipse(c, angle=30),
        lambda c: (ellipse(c), ellipse(c, centre=(130, 140))),
        lambda c: (ellipse(c), polygon(c)),
        lambda c: ellipse(c, axes=(4, 4)),
        lambda c: None,
    ],
)
def test_all_else_is_an_outline(paint):
    assert drawn_as(drawn(paint)) == "outline"


def test_two_ellipses_apart_are_ellipses():
    both = drawn(lambda c: (ellipse(c), ellipse(c, centre=(100, 240))))
    assert drawn_as(both) == "ellipse"


def test_a_data_set_of_ellipses_says_so_and_one_of_contours_does_not():
    (note,) = drawn_notes(["ellipse"] * 3 + ["box", "outline", ""])
    assert note.startswith("4 of 5 masks are ellipses or boxes")
    assert list(drawn_notes(["outline"] * 5 + ["ellipse"] * 4)) == []
    assert list(drawn_notes(["ellipse"] * 4)) == []


def test_check_counts_how_masks_are_drawn(check, folder):
    for number in range(5):
        folder.malignant(f"P{number}")
    found = check(folder.benign("Q").write())
    assert found["masks_drawn_as"] == {"ellipse": 5}  # the tests' lesion is a disk
    assert "5 of 5 masks are ellipses" in found["notes"][0]
