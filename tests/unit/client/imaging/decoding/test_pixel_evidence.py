"""Uncompressed pixels held against what the header says of them; compressed ones in the matrix."""

import numpy as np
import pytest
from pydicom import uid
from tests.unit.client.imaging.decoding.test_pixel_data import compressed, jpeg2000, make, native

from mamfed_client.imaging.decoding.pixel_data import stored_values
from mamfed_client.imaging.decoding.pixel_evidence import (
    check_byte_order,
    check_shape,
    check_sign,
    check_spare_bits,
)
from mamfed_client.imaging.rejections import FileRejected, Reason


def read(dataset):
    return stored_values(dataset, is_mammogram=True)


def contradicted(dataset):
    with pytest.raises(FileRejected) as caught:
        read(dataset)
    assert caught.value.reason is Reason.CONTRADICTION
    return caught.value.detail


def test_what_the_header_says_rightly_is_read(breast):
    assert np.array_equal(read(native(breast)), breast)
    signed = (breast.astype(int) - 2048).astype(np.int16)
    assert np.array_equal(read(native(signed, PixelRepresentation=1)), signed)
    assert np.array_equal(read(native(breast << 4, HighBit=15)), breast)


def test_signed_pixels_under_an_unsigned_header_are_refused(breast):
    signed = (breast.astype(int) - 2048).astype(np.int16)
    assert "signed" in contradicted(native(signed))
    assert "signed" in contradicted(native(signed & 0xFFF))


def test_unsigned_pixels_under_a_signed_header_are_refused(breast):
    assert "unsigned" in contradicted(native(breast, PixelRepresentation=1))


def test_values_whose_upper_bits_were_cut_are_refused(breast):
    assert "wrap round" in contradicted(native(breast << 1 & 0xFFF))
    eight = (breast & 0xFF).astype(np.uint8)
    assert "wrap round" in contradicted(
        make(uid.ExplicitVRLittleEndian, eight.tobytes(), eight.shape, 8)
    )


@pytest.mark.parametrize("pixels", [lambda b: b << 2, lambda b: b << 4])
def test_values_of_more_bits_than_the_header_says_are_refused(breast, pixels):
    assert "more than 12 bits" in contradicted(native(pixels(breast)))


def test_an_overlay_above_the_value_is_still_dropped(breast):
    marked = breast.copy()
    marked[20:60, 10:90] |= 1 << 14
    assert np.array_equal(read(native(marked)), breast)


def test_a_lossy_decoder_may_overshoot_and_no_more(breast):
    stream = jpeg2000(breast, level=50, reversible=False)
    assert read(compressed(uid.JPEG2000, stream, breast.shape)).max() <= 4095
    stream = jpeg2000(breast << 2, level=50, reversible=False)
    assert "more than 12 bits" in contradicted(compressed(uid.JPEG2000, stream, breast.shape))


@pytest.mark.parametrize("bits", [12, 16])
def test_bytes_in_the_wrong_order_are_refused(breast, bits):
    pixels = breast << (bits - 12)
    elements = {"BitsStored": bits, "HighBit": bits - 1}
    assert "wrong order" in contradicted(native(pixels.byteswap(), **elements))
    assert np.array_equal(read(native(pixels, **elements)), pixels)


def test_rows_and_columns_that_are_swapped_are_refused(breast):
    rows, columns = breast.shape
    assert "swapped" in contradicted(native(breast, Rows=columns, Columns=rows))


def test_a_signed_codestream_under_an_unsigned_header_is_refused(breast):
    stream = jpeg2000((breast.astype(int) - 2048).astype(np.int16), bitspersample=12)
    for syntax in (uid.JPEG2000Lossless, uid.HTJ2KLossless):
        assert "codestream is signed" in contradicted(compressed(syntax, stream, breast.shape))


def test_masks_are_not_held_against_their_neighbours(breast):
    mask = np.where(breast > 2048, 4095, 0).astype(np.uint16)
    assert np.array_equal(stored_values(native(mask)), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 3), (40, 1)])
def test_images_of_a_few_pixels_tell_nothing(shape):
    pixels = np.full(shape, 4095, np.uint16)
    pixels[::2] = 0
    check_sign(pixels, 12)
    check_spare_bits(pixels, 0, 10, signed=False, lossy=False)
    check_byte_order(pixels)
    check_shape(pixels)


def test_labels_as_white_as_can_be_are_no_contradiction(breast):
    labelled = ((breast >> 5) * (breast > 200)).astype(np.uint8)  # nothing crosses the middle
    labelled[5:20, 140:165:3] = 255
    check_sign(labelled, 8)
