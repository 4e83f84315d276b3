"""The report's figures: the chosen round, curves and bars that lack something."""

from __future__ import annotations

import cv2
import numpy as np

from mamfed_common.plan import Stage
from mamfed_server.report.figures import BarGroup, draw_curves, draw_dice_bars
from mamfed_server.run_folder.round_record import RoundRecord


def validated(server_round: int, dice: float | None) -> RoundRecord:
    return RoundRecord(
        stage=Stage.FINETUNING,
        server_round=server_round,
        expected=("alpha", "beta"),
        answered=(),
        accepted={},
        refused={"alpha": "no answer", "beta": "no answer"},
        mean_validation_dice=dice,
    )


def shape_of(png: bytes) -> tuple[int, ...]:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE).shape


def test_curves_can_be_drawn_without_an_update_a_validation_or_a_first_stage() -> None:
    assert shape_of(draw_curves([validated(1, None)], {"centralised": []})) == (962, 1170)


def test_a_missing_bar_is_drawn_unlike_a_bar_of_zero() -> None:
    missing, zero = (
        draw_dice_bars([BarGroup("$x$ \\frac", "1 image", {"federated": dice})])
        for dice in (None, 0.0)
    )
    assert missing != zero
    assert shape_of(missing) == shape_of(zero)
