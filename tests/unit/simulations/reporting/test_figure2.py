"""Figure 2: what contours show, sizes that hold any case."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mamfed_common.training.inference import Prediction
from mamfed_common.transforms.sample import Sample
from mamfed_server.report import page
from mamfed_simulations.reporting.figure2 import (
    CONTOURS,
    ROWS,
    Case,
    _window,
    by_site,
    draw_figure2,
)

SIZE = 32


def case(site: str, image: str, marked: float = 0.9) -> Case:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[4:9, 0:6] = True
    grey = np.full((SIZE, SIZE), 20000, np.uint16)
    sample = Sample(grey, np.ones_like(mask), mask, image)
    malignancy = np.where(mask, marked, 0.1).astype(np.float32)
    return Case(site, image, "Vendor", 0.75, sample, Prediction(grey / 65535, malignancy))


def test_a_row_of_pictures_is_drawn_where_a_case_has_one_and_left_out_where_none_has() -> None:
    plain = case("alpha", "1")
    nothing = plain.prediction._replace(reconstruction=None)
    explained = plain.prediction._replace(healthy=np.full((SIZE, SIZE), 0.3, np.float32))
    heights = [
        shape_of(draw_figure2([replace(plain, prediction=prediction), plain], 0.5))[0]
        for prediction in (explained, plain.prediction)
    ]
    assert heights[0] - heights[1] == pytest.approx(130 * 1.55, abs=2)
    alone = shape_of(draw_figure2([replace(plain, prediction=nothing)], 0.5))[0]
    assert heights[1] - alone == pytest.approx(130 * 1.55, abs=2)


def shape_of(png: bytes) -> tuple[int, ...]:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE).shape


@pytest.mark.parametrize(("count", "bands"), [(1, 1), (9, 1), (10, 2)])
def test_figure_2_takes_any_number_of_cases(count: int, bands: int) -> None:
    height, _ = shape_of(draw_figure2([case("alpha", str(n)) for n in range(count)], 0.5))
    assert height == pytest.approx(130 * (0.42 + bands * 8.47), abs=1)


def test_figure_2_keeps_a_sites_columns_together() -> None:
    cases = [case("beta", "1"), case("alpha", "2", marked=0.0), case("beta", "3")]
    assert [c.image for c in by_site(cases)] == ["2", "1", "3"]


def test_contours_are_enlarged_to_what_is_marked_and_stay_inside_the_image() -> None:
    marked = np.zeros((SIZE, SIZE), bool)
    assert _window(marked) == (0, 0, SIZE)
    marked[10:20, 20:25] = True  # 10 rows: a side of 16, centred on row 14.5 and column 22
    assert _window(marked) == (14, 6, 16)
    marked[:] = False
    marked[0, SIZE - 1] = True  # one pixel in a corner: the largest scale
    assert _window(marked) == (24, 0, 8)


def test_what_the_page_says_of_the_figure_names_every_row_and_no_other() -> None:
    template = Path(page.__file__).with_name("templates") / "report.html.j2"
    said = re.search(r"rows: (.*?) of truth and prediction", template.read_text())
    assert said is not None
    parts = [part.strip() for part in re.split(r", and |, ", said[1])]
    rows = [re.sub(r"\W+", " ", row.partition("(")[0]).lower() for row in [*ROWS, CONTOURS]]
    assert len(parts) == len(rows)
    for part, row in zip(parts, rows, strict=True):
        assert part.split()[0] in row.split(), (part, row)
