import numpy as np
import pydicom
import pytest

from mamfed_client.imaging.doubts import Doubt
from mamfed_client.imaging.grayscale import to_grey
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.imaging.tone_evidence import (
    every_nth,
    find_air,
    share_of_one_level,
    stretched_tones,
)


@pytest.fixture
def shown(tmp_path, drawing):
    """Shows a drawn breast of 12 bits with the header elements given."""
    stored = np.rint(drawing.breast(400, 300)[0] * 4000 + 40).astype(np.uint16)

    def show(change=lambda pixels: pixels, **elements):
        pixels = change(stored)
        drawing.dicom(tmp_path / "a.dcm", pixels, **elements)
        return to_grey(pixels, pydicom.dcmread(tmp_path / "a.dcm"))

    return show


def doubts_of(shown):
    return [found.doubt for found in shown.doubts]


def test_a_sound_file_raises_no_doubt(shown):
    for elements in ({}, {"WindowCenter": 2048, "WindowWidth": 4096, "PixelPaddingValue": 4095}):
        assert shown(**elements).doubts == ()


@pytest.mark.parametrize("turned", [False, True])
def test_the_air_is_found_whichever_end_it_is(drawing, turned):
    breast, _ = drawing.breast(400, 300)
    tones = stretched_tones(every_nth(1 - breast if turned else breast))
    assert find_air(tones) == (1 if turned else -1)
    assert find_air(tones[100:130, :30]) == 0  # too small
    assert find_air(np.tile(np.linspace(0, 1, 90, dtype=np.float32), (90, 1))) == 0


def test_a_bright_air_is_refused_unless_the_header_contradicts_itself(shown):
    with pytest.raises(FileRejected, match="MONOCHROME1") as caught:
        shown(PhotometricInterpretation="MONOCHROME1")
    assert caught.value.reason is Reason.INVERTED
    settled = shown(PresentationLUTShape="INVERSE")
    assert doubts_of(settled) == [Doubt.POLARITY]
    assert np.array_equal(settled.grey, shown().grey)


def test_a_window_that_does_not_fit_gives_way_and_is_said(shown):
    full = shown().grey
    poor = shown(WindowCenter=9000, WindowWidth=10)
    assert doubts_of(poor) == [Doubt.WINDOW]
    assert "100%" in poor.doubts[0].detail
    assert np.array_equal(poor.grey, full)
    second = shown(WindowCenter=[9000, 2000], WindowWidth=[10, 4001])
    assert doubts_of(second) == [Doubt.WINDOW]
    assert np.array_equal(second.grey, shown(WindowCenter=2000, WindowWidth=4001).grey)


def test_a_window_that_cuts_a_tenth_of_the_tissue_is_used(shown):
    clipped = shown(WindowCenter=1150, WindowWidth=1800)
    assert clipped.doubts == ()
    assert 0.001 < (clipped.grey == 65535).mean() < 0.3


def test_padding_inside_the_breast_is_tissue(shown):
    def with_calcification(pixels):
        pixels = pixels.copy()
        pixels[200:203, 60:63] = 17
        pixels[:, -20:] = 17
        return pixels

    found = shown(with_calcification, PixelPaddingValue=17)
    assert not found.valid[:, -20:].any()
    assert found.valid[:, :-30].all()


def test_bright_padding_is_whole_rows_and_columns(shown):
    def with_muscle(pixels):
        pixels = pixels.copy()
        pixels[:12] = 4095
        pixels[150:250, :30] = 4095
        return pixels

    found = shown(with_muscle, PixelPaddingValue=4095)
    assert not found.valid[:12].any()
    assert found.valid[12:].all()
    assert doubts_of(found) == [Doubt.PADDING]
    assert (found.grey[150:250, :30] == 65535).all()


def test_padding_that_is_the_air_is_black_and_no_edge_of_the_image(shown):
    found = shown(PixelPaddingValue=0, PixelPaddingRangeLimit=60)
    assert found.valid is None
    assert found.doubts == ()
    assert not found.grey[:20].any()


def test_a_range_of_padding_that_covers_tissue_is_not_believed(shown):
    found = shown(PixelPaddingValue=0, PixelPaddingRangeLimit=1500)
    assert doubts_of(found) == [Doubt.PADDING]
    assert np.array_equal(found.grey, shown().grey)


def test_the_share_of_one_level_is_that_of_its_bin():
    levels = np.array([0.0] * 3 + [1.0] * 2 + list(np.linspace(0.1, 0.9, 5)))
    assert share_of_one_level(levels) == pytest.approx(0.3)
    assert share_of_one_level(np.ones(4)) == 1
    assert share_of_one_level(np.ones(0)) == 0
