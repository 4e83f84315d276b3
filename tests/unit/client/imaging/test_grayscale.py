import math

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian

from mamfed_client.imaging.grayscale import to_grey
from mamfed_client.imaging.rejections import FileRejected, Reason

STORED = np.array([[0, 1000, 2000, 4000]], np.uint16)
STRETCHED = [0, 16384, 32768, 65535]


@pytest.fixture
def header(tmp_path, drawing):
    def write_and_read(**elements):
        drawing.dicom(tmp_path / "a.dcm", STORED, **elements)
        return pydicom.dcmread(tmp_path / "a.dcm")

    return write_and_read


@pytest.fixture
def show(header):
    def grey_levels(stored=STORED, **elements):
        return to_grey(np.asarray(stored), header(**elements))[0].ravel().tolist()

    return grey_levels


def lut(entries, *, first=0, bits=16, dtype="<u2", count=None):
    item = Dataset()
    item.LUTDescriptor = [(count or len(entries)) % 65536, first, bits]
    item.LUTData = np.asarray(entries).astype(dtype).tobytes()
    return item


def window(centre, width, function="LINEAR_EXACT"):
    return {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": function}


def test_without_window_levels_reach_from_the_darkest_to_the_brightest_pixel(show):
    assert show() == STRETCHED
    assert show(STORED + 500) == STRETCHED


def test_one_level_alone_is_black_and_no_division_by_zero(show):
    assert show(np.array([[7, 7]], np.uint16)) == [0, 0]


def test_a_linear_window_spans_width_less_one_about_half_below_the_centre(show):
    # From 1499.5 to 2499.5: 1500 -> 0.0005, 2000 -> 0.5005, 2499 -> 0.9995.
    levels = show(
        np.array([[0, 1500, 2000, 2499, 2500]], np.uint16), **window(2000, 1001, "LINEAR")
    )
    assert levels == [0, 33, 32800, 65502, 65535]


def test_a_window_without_function_is_linear(header):
    dataset = header(WindowCenter=2000, WindowWidth=1001)
    assert to_grey(np.array([[1500, 3000]], np.uint16), dataset)[0].tolist() == [[33, 65535]]


def test_an_exact_window_spans_its_width(show):
    stored = np.array([[1499, 1500, 1750, 2500, 2501]], np.uint16)
    assert show(stored, **window(2000, 1000)) == [0, 0, 16384, 65535, 65535]


def test_a_sigmoid_window_follows_its_formula(show):
    stored = np.array([[0, 2000, 2250, 4095]], np.uint16)
    expected = [65535 / (1 + math.exp(-4 * (x - 2000) / 1000)) for x in (0, 2000, 2250, 4095)]
    assert show(stored, **window(2000, 1000, "SIGMOID")) == [round(level) for level in expected]


def test_the_first_of_several_windows_counts(show):
    several = window([2000, 9], [2000, 9])
    assert show(**several) == show(**window(2000, 2000)) == [0, 0, 32768, 65535]


def test_the_first_lut_of_several_is_preferred_to_a_window(show):
    doubled = lut(np.minimum(2 * np.arange(4096), 4095), bits=12)
    half = lut(np.arange(4096) // 2, bits=12)
    levels = show(VOILUTSequence=[doubled, half], **window(1, 1))
    assert levels == [0, round(2000 / 4095 * 65535), round(4000 / 4095 * 65535), 65535]


def test_levels_outside_a_lut_take_its_first_and_last_entry(show):
    three = lut([10, 20, 65535], first=1000)
    stored = np.array([[0, 999, 1000, 1001, 1002, 4000]], np.uint16)
    assert show(stored, VOILUTSequence=[three]) == [10, 10, 10, 20, 65535, 65535]


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
def test_an_8_bit_lut_of_more_than_256_entries_does_not_wrap(show, dtype):
    # 8-bit entries lie two to a word or one to a word; pydicom 3 wraps the index at 256.
    coarse = lut(np.arange(4096) // 16, bits=8, dtype=dtype)
    assert show(VOILUTSequence=[coarse]) == [0, 62 * 257, 125 * 257, 250 * 257]


def test_a_lut_of_65536_entries_is_announced_as_0(show):
    assert show(VOILUTSequence=[lut(np.arange(65536) // 2)]) == [0, 500, 1000, 2000]


def test_entries_beyond_the_announced_bits_are_not_cut(show):
    twelve = lut(np.arange(4096) * 2, bits=12)
    assert show(VOILUTSequence=[twelve])[-1] == round(8000 / 8190 * 65535)


@pytest.mark.parametrize(("kind", "first"), [("SS", -2048), ("US", 65536 - 2048)])
def test_a_lut_may_begin_below_zero_however_that_is_spelled(show, kind, first):
    falling = lut(np.arange(4096)[::-1], bits=12)
    falling.add_new("LUTDescriptor", kind, [4096, first, 12])
    stored = np.array([[-2048, 0, 2047]], np.int16)
    levels = show(stored, PixelRepresentation=1, VOILUTSequence=[falling])
    assert levels == [65535, round(2047 / 4095 * 65535), 0]


def test_a_lut_of_a_big_endian_file_is_read_in_its_byte_order(header):
    ramp = lut(np.arange(4096), bits=12, dtype=">u2")
    dataset = header(TransferSyntaxUID=ExplicitVRBigEndian, VOILUTSequence=[ramp])
    assert to_grey(STORED, dataset)[0].ravel().tolist()[1] == round(1000 / 4095 * 65535)


def test_a_broken_lut_gives_way_to_the_window(show):
    short = lut([1, 2], count=4096)
    flat = lut([7] * 4096)
    incomplete = Dataset()
    for item in (short, flat, incomplete):
        assert show(VOILUTSequence=[item], **window(2000, 2000)) == [0, 0, 32768, 65535]


@pytest.mark.parametrize(
    ("centre", "width", "function"),
    [
        (2000, 0, "LINEAR_EXACT"),
        (2000, -9, "SIGMOID"),
        (2000, 1, "LINEAR"),
        (1_000_000, 10, "LINEAR"),
        (-1_000_000, 10, "SIGMOID"),
        ("1e308", "1e-308", "LINEAR_EXACT"),
    ],
)
def test_a_window_that_shows_nothing_gives_way_to_the_stretch(show, centre, width, function):
    assert show(**window(centre, width, function)) == STRETCHED


@pytest.mark.parametrize(
    ("keyword", "kind", "content"),
    [
        ("WindowCenter", "DS", b"Mrs."),
        ("WindowCenter", "DS", b"inf "),
        ("RescaleSlope", "DS", b"nan "),
        ("PixelPaddingValue", "US", b"abc"),
        ("VOILUTSequence", "DS", b"1234"),
    ],
)
def test_an_element_that_makes_no_sense_counts_as_absent(header, keyword, kind, content):
    dataset = header(WindowWidth=100, RescaleIntercept=0)
    tag = Tag(keyword)
    dataset._dict[tag] = RawDataElement(tag, kind, len(content), content, 0, False, True)
    assert to_grey(STORED, dataset)[0].ravel().tolist() == STRETCHED


def test_the_rescale_comes_before_the_window(show):
    # Rescaled: -1000, 1000, 3000, 7000; a window from 0 to 4000.
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    assert show(**rescale, **window(2000, 4000)) == [0, 16384, 49151, 65535]


def test_a_falling_rescale_turns_the_stretch_round(show):
    assert show(RescaleSlope=-1, RescaleIntercept=4000) == [65535, 49151, 32768, 0]


def test_the_modality_lut_comes_before_the_window(show):
    halved = lut(np.arange(4096) // 2)
    halved.ModalityLUTType = "US"
    assert show(ModalityLUTSequence=[halved], **window(1000, 2000)) == STRETCHED


def test_both_ways_to_say_that_low_is_bright_together_invert_once(show):
    inverted = [65535, 49151, 32768, 0]
    assert show(PhotometricInterpretation="MONOCHROME1") == inverted
    assert show(PresentationLUTShape="INVERSE") == inverted
    both = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    assert show(**both) == inverted
    assert show(PresentationLUTShape="IDENTITY") == STRETCHED


def test_the_window_comes_before_the_inversion(show):
    levels = show(PhotometricInterpretation="MONOCHROME1", **window(2500, 3000))
    assert levels == [65535, 65535, 43690, 0]


def test_a_frame_s_own_window_counts_where_the_image_has_none(show):
    frame, groups = Dataset(), Dataset()
    for keyword, value in window(2000, 2000).items():
        setattr(frame, keyword, value)
    groups.FrameVOILUTSequence = [frame]
    assert show(SharedFunctionalGroupsSequence=[groups]) == [0, 0, 32768, 65535]


def test_a_frame_s_own_rescale_counts_where_the_image_has_none(show):
    frame, groups = Dataset(), Dataset()
    frame.RescaleSlope, frame.RescaleIntercept = -1, 4000
    groups.PixelValueTransformationSequence = [frame]
    assert show(PerFrameFunctionalGroupsSequence=[groups]) == [65535, 49151, 32768, 0]


def test_8_bit_and_signed_values_are_looked_up_at_their_place(show):
    assert show(np.array([[0, 51, 255]], np.uint8)) == [0, 13107, 65535]
    assert show(np.array([[-128, -77, 127]], np.int8), PixelRepresentation=1) == [0, 13107, 65535]
    assert show(np.array([[-1, 0, 1]], np.int16), PixelRepresentation=1) == [0, 32768, 65535]


def test_values_are_not_written_to(header):
    stored = STORED.copy()
    stored.setflags(write=False)
    assert to_grey(stored, header())[0].ravel().tolist() == STRETCHED


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 1.5, "RescaleIntercept": -300}])
def test_windows_agree_with_pydicom(header, function, signed, rescale):
    dtype = np.int16 if signed else np.uint16
    stored = np.random.default_rng(0).integers(0, 4096, (30, 40)).astype(dtype) - 2048 * signed
    stored = stored.astype(dtype)
    dataset = header(PixelRepresentation=signed, **rescale, **window(700.5, 1234.5, function))
    ends = np.array([-2048, 2047] if signed else [0, 4095])
    low, high = apply_modality_lut(ends, dataset)
    theirs = apply_voi_lut(apply_modality_lut(stored, dataset), dataset)
    expected = (theirs - low) / (high - low) * 65535
    assert np.abs(to_grey(stored, dataset)[0] - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_luts_agree_with_pydicom(header, bits):
    random = np.random.default_rng(bits)
    curve = np.sort(random.integers(0, 2**bits, 900))
    dataset = header(VOILUTSequence=[lut(curve, first=50, bits=bits)])
    stored = random.integers(0, 4096, (30, 40)).astype(np.uint16)
    expected = apply_voi_lut(stored, dataset) / (2**bits - 1) * 65535
    assert np.abs(to_grey(stored, dataset)[0] - expected).max() <= 0.5 + 1e-6


class TestPadding:
    def test_it_is_black_invalid_and_no_part_of_the_stretch(self, header):
        stored = np.array([[0, 1000, 2000, 3000, 4095]], np.uint16)
        grey, valid, *_ = to_grey(stored, header(PixelPaddingValue=4095))
        assert grey.tolist() == [[0, 21845, 43690, 65535, 0]]
        assert valid.tolist() == [[True, True, True, True, False]]

    def test_it_is_black_in_monochrome1_too(self, header):
        dataset = header(PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1")
        grey, *_ = to_grey(np.array([[0, 1000, 3000]], np.uint16), dataset)
        assert grey.tolist() == [[0, 65535, 0]]

    @pytest.mark.parametrize(("one", "other"), [(0, 10), (10, 0)])
    def test_a_range_includes_both_limits_in_either_order(self, header, one, other):
        dataset = header(PixelPaddingValue=one, PixelPaddingRangeLimit=other)
        grey, valid, *_ = to_grey(np.array([[0, 5, 10, 11, 21]], np.uint16), dataset)
        assert valid.tolist() == [[False, False, False, True, True]]
        assert grey.tolist() == [[0, 0, 0, 0, 65535]]

    def test_a_signed_value_is_found_however_it_is_spelled(self, header):
        stored = np.array([[-2048, 0, 5]], np.int16)
        for spelled in (-2048, 0xF800, 0x800):
            dataset = header(PixelRepresentation=1)
            kind = "SS" if spelled < 0 else "US"
            dataset.add_new("PixelPaddingValue", kind, spelled)
            assert to_grey(stored, dataset)[1].tolist() == [[False, True, True]]

    def test_an_image_without_padded_pixels_has_no_mask(self, header):
        assert to_grey(STORED, header())[1] is None
        assert to_grey(STORED, header(PixelPaddingValue=17))[1] is None

    def test_it_does_not_count_among_the_levels_that_a_window_tells_apart(self, header):
        # Only the padding lies below the window, so the image itself would be white.
        stored = np.array([[0, 1000, 2000]], np.uint16)
        grey, *_ = to_grey(stored, header(PixelPaddingValue=0, **window(500, 100)))
        assert grey.tolist() == [[0, 0, 65535]]

    def test_an_image_of_nothing_else_is_refused(self, header):
        with pytest.raises(FileRejected, match="every pixel is") as caught:
            to_grey(np.full((2, 2), 9, np.uint16), header(PixelPaddingValue=9))
        assert caught.value.reason is Reason.UNREADABLE_IMAGE
