"""What a decoding process says of an image's display is checked before it is used."""

import pytest

from mamfed_client.imaging.display_steps import Window
from mamfed_client.sandbox.protocol import ProtocolError, check_display

GOOD = {"slope": 1, "intercept": -3.5, "window": [500, 900, "SIGMOID"], "entries": 0}
GOOD |= {"inverted": True, "height": 0.1, "width": 0.05}


def test_a_sound_answer_is_taken():
    found = check_display(GOOD)
    assert found[:2] == (1.0, -3.5)
    assert (found.window, found.pixel) == (Window(500.0, 900.0, "SIGMOID"), (0.1, 0.05))


@pytest.mark.parametrize(
    "wrong",
    [
        {"slope": 0},
        {"slope": float("nan")},
        {"intercept": "1"},
        {"window": [500, 0, ""]},
        {"window": [500, 900, "EVIL"]},
        {"window": [500, 900]},
        {"window": None},
        {"entries": 5},
        {"window": None, "entries": 65537},
        {"inverted": 1},
        {"height": 0},
        {"height": 1, "width": 100},
        {"width": None},
    ],
)
def test_any_other_answer_is_refused(wrong):
    with pytest.raises(ProtocolError):
        check_display(GOOD | wrong)
