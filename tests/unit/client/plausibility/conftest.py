"""A breast that looks like one to every check, and ways to spoil it."""

import cv2
import numpy as np
import pytest

from mamfed_client.imaging.mammogram import Facts, Mammogram
from mamfed_client.imaging.preprocess import analyse
from mamfed_client.plausibility import judge_image, judge_mask

ROWS, COLUMNS = 512, 400


def draw(view="CC", seed=0, width=180):
    """Half an ellipse with texture, chest wall at the left, ``(512, 400)`` float in 0..1.

    An MLO has a muscle of a width in its upper corner.
    """
    y, x = np.mgrid[:ROWS, :COLUMNS]
    rng = np.random.default_rng(seed)
    coarse = cv2.GaussianBlur(rng.random((ROWS, COLUMNS)), (0, 0), 12)
    fine = cv2.GaussianBlur(rng.random((ROWS, COLUMNS)), (0, 0), 2)
    coarse, fine = ((layer - layer.min()) / np.ptp(layer) for layer in (coarse, fine))
    breast = (x / 280) ** 2 + ((y - 256) / 215) ** 2 < 1
    levels = 0.25 + 0.4 * coarse + 0.2 * fine
    if view == "MLO":
        muscle = x < width * (1 - y / 400)
        breast |= muscle
        levels[muscle] += 0.1
    return np.where(breast, levels, 0), breast


def disk(row=256, column=120, radius=40):
    y, x = np.mgrid[:ROWS, :COLUMNS]
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def mammogram(levels, view="CC"):
    grey = np.rint(np.clip(levels, 0, 1) * 65535).astype(np.uint16)
    return Mammogram(np.ascontiguousarray(grey), facts=Facts(view=view))


@pytest.fixture
def judged():
    """Kinds of doubt about an image, given as levels in 0..1."""

    def judge(levels, view="CC"):
        image = mammogram(levels, view)
        return [found.doubt for found in judge_image(image, analyse(image)).doubts]

    return judge


@pytest.fixture
def mask_judged():
    """Kinds of doubt about a mask of the drawn breast, or of levels in 0..1."""

    def judge(mask, levels=None, outlines=0):
        image = mammogram(draw()[0] if levels is None else levels)
        look = analyse(image)
        own = judge_image(image, look)
        found = judge_mask(np.ascontiguousarray(mask), look, own, outlines)
        return [one.doubt for one in found.doubts]

    return judge
