import struct

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from mamfed_client.imaging.decoding.codestreams import jpeg2000_header, jpeg_header
from mamfed_client.imaging.decoding.pixel_data import stored_values
from mamfed_client.imaging.mammogram import MAX_PIXELS
from mamfed_client.imaging.rejections import FileRejected, Reason

NOISY = np.random.default_rng(0).integers(0, 4096, (37, 29), dtype=np.uint16)
FLAT = np.where(np.arange(37)[:, None] < 15, NOISY, 0).astype(np.uint16)
SMALL = (NOISY >> 4).astype(np.uint8)


def make(syntax, data, shape=NOISY.shape, bits=12, *, vr="OB", **elements):
    """A data set in memory, of pixel data as they stand in the file."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.add_new("PixelData", vr, data)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def native(pixels, syntax=uid.ExplicitVRLittleEndian, **elements):
    return make(syntax, pixels.tobytes(), pixels.shape, vr="OW", **elements)


def compressed(syntax, codestream, shape=NOISY.shape, bits=12, **elements):
    return make(syntax, encapsulate([bytes(codestream)]), shape, bits, **elements)


def refused(dataset):
    with pytest.raises(FileRejected) as caught:
        stored_values(dataset)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def jpeg2000(pixels, **options):
    options = {"codecformat": "j2k", "reversible": True} | options
    return bytes(imagecodecs.jpeg2k_encode(pixels, **options))


def lossless(pixels, bits=12, predictor=1):
    options = {"lossless": True, "predictor": predictor, "bitspersample": bits}
    return bytes(imagecodecs.jpeg8_encode(pixels, **options))


def run_length(pixels):
    """Segments by byte, the highest first (PS3.5 annex G), packed by imagecodecs."""
    planes = pixels.astype(f">u{pixels.itemsize}").view(np.uint8).reshape(-1, pixels.itemsize).T
    segments = [bytes(imagecodecs.packbits_encode(plane.tobytes())) for plane in planes]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = np.cumsum([64, *map(len, segments)])[:-1]
    header = [len(segments), *starts, *[0] * (15 - len(segments))]
    return struct.pack("<16L", *header) + b"".join(segments)


# Which bits are the value


def test_the_bits_above_the_value_are_dropped_as_overlays_were_once_stored_there():
    words = np.array([[0xF001, 0x1FFF], [0x0000, 0x8ABC]], "<u2")
    assert stored_values(native(words)).tolist() == [[0x001, 0xFFF], [0, 0xABC]]


def test_a_value_in_the_high_bits_is_shifted_down():
    words = np.array([[0x001F, 0xFFF0]], "<u2")
    assert stored_values(native(words, HighBit=15)).tolist() == [[0x001, 0xFFF]]


def test_the_sign_of_a_twos_complement_is_extended():
    words = np.array([[0x0FFF, 0x0800, 0x07FF, 0xF001]], "<u2")
    stored = stored_values(native(words, PixelRepresentation=1))
    assert stored.tolist() == [[-1, -2048, 2047, 1]]
    assert stored.dtype == np.int16


def test_full_words_are_viewed_without_a_copy():
    words = np.array([[0, 65535]], "<u2")
    dataset = native(words, BitsStored=16, HighBit=15)
    assert np.shares_memory(stored_values(dataset), np.frombuffer(dataset.PixelData, np.uint8))
    signed = native(words, BitsStored=16, HighBit=15, PixelRepresentation=1)
    assert stored_values(signed).tolist() == [[0, -1]]


def test_eight_bits_are_read_in_either_byte_order():
    for syntax, data in (
        (uid.ExplicitVRLittleEndian, bytes([1, 2, 3, 4, 5, 0])),
        (uid.ExplicitVRBigEndian, bytes([2, 1, 4, 3, 0, 5])),  # bytes swapped in words, annex D
    ):
        stored = stored_values(make(syntax, data, (1, 5), 8, vr="OW"))
        assert stored.tolist() == [[1, 2, 3, 4, 5]]
    stored = stored_values(make(uid.ExplicitVRBigEndian, bytes([1, 2]), (1, 2), 8, vr="OB"))
    assert stored.tolist() == [[1, 2]]


def test_big_endian_words_are_read():
    dataset = native(np.array([[1, 0x0234]], ">u2"), uid.ExplicitVRBigEndian)
    assert stored_values(dataset).tolist() == [[1, 0x234]]


# Every syntax

SYNTAXES = {
    "rle": (uid.RLELossless, run_length(NOISY)),
    "jpeg-57": (uid.JPEGLossless, lossless(NOISY, predictor=4)),
    "jpeg-70": (uid.JPEGLosslessSV1, lossless(NOISY)),
    "jpeg-ls": (uid.JPEGLSLossless, bytes(imagecodecs.jpegls_encode(NOISY))),
    "jpeg2000": (uid.JPEG2000Lossless, jpeg2000(NOISY, bitspersample=12)),
    "htj2k": (uid.HTJ2KLossless, bytes(imagecodecs.htj2k_encode(NOISY, reversible=True))),
}
LOSSY = {
    "jpeg-8": (uid.JPEGBaseline8Bit, bytes(imagecodecs.jpeg8_encode(SMALL, level=95)), 8),
    "jpeg-12": (
        uid.JPEGExtended12Bit,
        bytes(imagecodecs.jpeg8_encode(NOISY, level=95, bitspersample=12)),
        12,
    ),
    "jpeg-ls-near": (
        uid.JPEGLSNearLossless,
        bytes(imagecodecs.jpegls_encode(NOISY, level=3)),
        12,
    ),
    "jpeg2000-lossy": (uid.JPEG2000, jpeg2000(NOISY, level=60, reversible=False), 12),
}
STREAMS = {name: (*stream, 12) for name, stream in SYNTAXES.items()} | LOSSY


@pytest.mark.parametrize("name", SYNTAXES)
def test_lossless_syntaxes_give_back_what_was_stored(name):
    syntax, codestream = SYNTAXES[name]
    assert np.array_equal(stored_values(compressed(syntax, codestream)), NOISY)


@pytest.mark.parametrize(
    ("name", "error"),
    {"jpeg-8": 12, "jpeg-12": 120, "jpeg-ls-near": 3, "jpeg2000-lossy": 250}.items(),
)
def test_lossy_syntaxes_stay_close(name, error):
    syntax, codestream, bits = LOSSY[name]
    stored = stored_values(compressed(syntax, codestream, bits=bits))
    original = SMALL if bits == 8 else NOISY
    assert stored.dtype == original.dtype
    assert 0 < np.abs(stored.astype(int) - original).max() <= error


def test_what_a_lossy_encoder_overshoots_stays_white():
    pixels = np.where(np.add.outer(np.arange(40), np.arange(40)) % 7 < 3, 4095, 0).astype(np.uint16)
    stream = jpeg2000(pixels, level=50, reversible=False)  # 16-bit samples of 12-bit values
    assert imagecodecs.jpeg2k_decode(stream).max() > 4095
    stored = stored_values(compressed(uid.JPEG2000, stream, (40, 40)))
    assert stored.max() == 4095
    assert stored[pixels == 4095].min() > stored[pixels == 0].max()


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_every_predictor_of_lossless_jpeg_is_read(predictor, bits):
    pixels = SMALL if bits == 8 else NOISY >> max(0, 12 - bits) << max(0, bits - 12)
    dataset = compressed(uid.JPEGLossless, lossless(pixels, bits, predictor), bits=bits)
    assert np.array_equal(stored_values(dataset), pixels)


@pytest.mark.parametrize("transform", [1, 3])
def test_the_point_transform_of_lossless_jpeg_is_undone(transform):
    # T.81 H.1.2.1: samples are coded shifted down, so only two numbers of the header differ.
    stream = bytearray(lossless(NOISY >> transform, 12 - transform))
    stream[stream.find(b"\xff\xc3") + 4] = 12
    stream[stream.find(b"\xff\xda") + 9] = transform
    expected = NOISY >> transform << transform
    assert np.array_equal(stored_values(compressed(uid.JPEGLossless, stream)), expected)


@pytest.mark.parametrize(("bits", "top"), [(13, 8191), (16, 65535), (9, 511), (8, 255)])
def test_odd_precisions_of_jpeg_2000_are_read(bits, top):
    pixels = np.array([[0, 1], [top - 1, top]], np.uint8 if bits == 8 else np.uint16)
    stream = jpeg2000(np.tile(pixels, (20, 20)), bitspersample=bits)
    stored = stored_values(compressed(uid.JPEG2000Lossless, stream, (40, 40), bits))
    assert stored[:2, :2].tolist() == pixels.tolist()


def test_signed_jpeg_2000_is_read_whichever_header_says_so():
    pixels = np.tile(np.array([[-2048, -1], [0, 2047]], np.int16), (20, 20))
    signed = jpeg2000(pixels, bitspersample=12)
    stored = stored_values(
        compressed(uid.JPEG2000Lossless, signed, (40, 40), PixelRepresentation=1)
    )
    assert np.array_equal(stored, pixels)
    unsigned = jpeg2000((pixels & 0xFFF).astype(np.uint16), bitspersample=12)
    stored = stored_values(
        compressed(uid.JPEG2000Lossless, unsigned, (40, 40), PixelRepresentation=1)
    )
    assert np.array_equal(stored, pixels)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_other_encoders_files_agree_with_their_uncompressed_twin(name):
    plain = pydicom.dcmread(get_testdata_file("MR_small.dcm")).pixel_array
    stored = stored_values(pydicom.dcmread(get_testdata_file(name)))
    assert stored.dtype == plain.dtype
    assert np.array_equal(stored, plain)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("name", ["rle", "jpeg-70"])
def test_a_frame_may_lie_in_several_fragments(name, count, offsets):
    syntax, codestream = SYNTAXES[name]
    dataset = compressed(syntax, codestream)
    dataset.PixelData = encapsulate([codestream], fragments_per_frame=count, has_bot=offsets)
    assert np.array_equal(stored_values(dataset), NOISY)


def test_a_jp2_file_is_read_by_its_codestream():
    boxed = bytes(imagecodecs.jpeg2k_encode(NOISY, codecformat="jp2", reversible=True))
    assert boxed[4:8] == b"jP  "
    dataset = compressed(uid.JPEG2000Lossless, boxed, bits=16)
    assert np.array_equal(stored_values(dataset), NOISY)


def test_jpeg_with_restart_markers_or_without_an_end_is_complete():
    options = [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    stream = cv2.imencode(".jpg", SMALL, options)[1].tobytes()
    assert b"\xff\xd0" in stream
    whole = stored_values(compressed(uid.JPEGBaseline8Bit, stream, bits=8))
    open_ended = compressed(uid.JPEGBaseline8Bit, stream[:-2], bits=8)
    assert np.array_equal(stored_values(open_ended), whole)


def test_run_lengths_beyond_the_picture_are_cut_off():
    stream = run_length(np.vstack([NOISY, NOISY[:1]]))
    assert np.array_equal(stored_values(compressed(uid.RLELossless, stream)), NOISY)


# What is cut short


def test_missing_bytes_of_uncompressed_pixels_are_noticed():
    dataset = native(NOISY)
    dataset.PixelData = NOISY.tobytes()[:-2]
    assert refused(dataset).reason is Reason.TRUNCATED


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("name", STREAMS)
def test_half_a_picture_is_never_taken_for_a_whole_one(name, share, closed):
    syntax, stream, bits = STREAMS[name]
    stream = stream[: int(len(stream) * share)] + (b"\xff\xd9" if closed else b"")
    reason = refused(compressed(syntax, stream, bits=bits)).reason
    assert reason in (
        (Reason.TRUNCATED, Reason.UNREADABLE_IMAGE) if closed else (Reason.TRUNCATED,)
    )


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("predictor", [1, 6, 7])
def test_a_black_end_does_not_hide_what_is_missing(predictor, share):
    stream = lossless(FLAT, predictor=predictor)
    cut = stream[: int(len(stream) * share)] + b"\xff\xd9"
    assert refused(compressed(uid.JPEGLossless, cut)).reason is Reason.TRUNCATED
    assert np.array_equal(stored_values(compressed(uid.JPEGLossless, stream)), FLAT)


def test_a_fill_byte_does_not_hide_what_is_missing():
    # T.81 B.1.1.2 allows FF before a marker; what is put after it would be taken for a marker.
    syntax, stream, _ = STREAMS["jpeg-70"]
    cut = compressed(syntax, stream[: len(stream) // 2] + b"\xff\xff\xd9")
    assert refused(cut).reason is Reason.TRUNCATED
    whole = compressed(syntax, stream[:-2] + b"\xff\xff\xd9")
    assert np.array_equal(stored_values(whole), NOISY)


@pytest.mark.parametrize("length", [2, 4, 10, 40])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_ends_in_its_header_is_refused(name, length):
    syntax, stream, bits = STREAMS[name]
    reason = refused(compressed(syntax, stream[:length], bits=bits)).reason
    assert reason in (Reason.TRUNCATED, Reason.UNREADABLE_IMAGE)


# What contradicts itself


@pytest.mark.parametrize("name", STREAMS)
def test_another_size_than_the_header_says_is_refused_before_decoding(name):
    syntax, stream, bits = STREAMS[name]
    refusal = refused(compressed(syntax, stream, (37, 30), bits))
    assert refusal.reason in (Reason.UNREADABLE_IMAGE, Reason.TRUNCATED)
    if name != "rle":
        assert refusal.detail == "a codestream of 29 x 37 pixels for 30 x 37"


def test_a_huge_picture_is_refused_by_either_header():
    assert refused(native(NOISY, Rows=60000, Columns=60000)).reason is Reason.TOO_LARGE
    stream = bytearray(SYNTAXES["jpeg-70"][1])
    at = stream.find(b"\xff\xc3")
    stream[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    assert refused(compressed(uid.JPEGLosslessSV1, stream)).reason is Reason.TOO_LARGE


def test_a_picture_of_just_the_most_pixels_is_not_too_large():
    refusal = refused(native(NOISY, Rows=8000, Columns=MAX_PIXELS // 8000))
    assert refusal.reason is Reason.TRUNCATED


def test_tiles_of_a_pixel_are_too_many():
    stream = bytearray(SYNTAXES["jpeg2000"][1])
    stream[24:32] = struct.pack(">II", 10, 10)
    assert jpeg2000_header(bytes(stream)).rows == 37
    stream[8:16] = struct.pack(">II", 2900, 3700)
    with pytest.raises(FileRejected, match="107300 tiles"):
        jpeg2000_header(bytes(stream))


def test_colour_is_refused():
    colour = np.repeat(SMALL[..., None], 3, axis=2)
    stream = imagecodecs.jpeg8_encode(colour)
    assert refused(compressed(uid.JPEGBaseline8Bit, stream, bits=8)).detail == "3 colours"


@pytest.mark.parametrize(
    ("elements", "reason", "words"),
    [
        ({"SamplesPerPixel": 3}, Reason.UNSUPPORTED_IMAGE, "3 colours"),
        ({"NumberOfFrames": 2}, Reason.UNSUPPORTED_IMAGE, "2 frames"),
        ({"BitsAllocated": 32}, Reason.UNSUPPORTED_IMAGE, "32 bits per pixel"),
        ({"BitsStored": 17}, Reason.UNREADABLE_IMAGE, "17 bits up to bit 11 in 16"),
        ({"HighBit": 16}, Reason.UNREADABLE_IMAGE, "12 bits up to bit 16 in 16"),
        ({"Rows": 0}, Reason.UNREADABLE_IMAGE, "29 x 0 pixels"),
        ({"Rows": [1, 2]}, Reason.UNREADABLE_IMAGE, "Rows is not a single integer"),
        ({"Columns": None}, Reason.UNREADABLE_IMAGE, "Columns is not a single integer"),
        ({"Rows": 10}, Reason.UNREADABLE_IMAGE, "2146 bytes of pixels; the header implies 580"),
    ],
)
def test_a_header_without_sense_is_refused(elements, reason, words):
    refusal = refused(native(NOISY, **elements))
    assert refusal.reason is reason
    assert words in refusal.detail


def test_a_data_set_without_pixels_is_refused():
    dataset = native(NOISY)
    del dataset.PixelData
    assert refused(dataset).reason is Reason.NO_PIXELS


def test_pixels_in_another_form_than_the_syntax_says_are_refused():
    dataset = make(uid.ExplicitVRLittleEndian, encapsulate([NOISY.tobytes()]))
    dataset["PixelData"].is_undefined_length = True
    assert "compressed pixels in an uncompressed file" in str(refused(dataset))
    bare = make(uid.JPEGLosslessSV1, NOISY.tobytes())
    assert "fragments are corrupt" in str(refused(bare))
    jpeg = compressed(uid.JPEGLSLossless, SYNTAXES["jpeg-70"][1])
    assert "not JPEG-LS" in str(refused(jpeg))


@pytest.mark.parametrize(
    ("count", "reason"), [(1, Reason.UNREADABLE_IMAGE), (15, Reason.UNREADABLE_IMAGE)]
)
def test_run_lengths_of_another_depth_are_refused(count, reason):
    stream = struct.pack("<L", count) + run_length(NOISY)[4:]
    assert refused(compressed(uid.RLELossless, stream)).reason is reason


def test_run_lengths_that_point_outside_are_refused():
    stream = bytearray(run_length(NOISY))
    stream[8:12] = struct.pack("<L", 2**31)
    assert refused(compressed(uid.RLELossless, stream)).reason is Reason.TRUNCATED


def test_a_second_frame_header_cannot_smuggle_another_size_in():
    stream = SYNTAXES["jpeg-70"][1]
    at = stream.find(b"\xff\xc3")
    frame = stream[at : at + 13]
    with pytest.raises(FileRejected, match="several frame headers"):
        jpeg_header(stream[:at] + frame + stream[at:])


# What is not read


def test_an_unread_syntax_is_refused_by_its_name():
    refusal = refused(make(uid.MPEG2MPML, encapsulate([b"\0\0"])))
    assert refusal.reason is Reason.UNSUPPORTED_SYNTAX
    assert refusal.detail.startswith("MPEG2 Main Profile")


def test_an_unregistered_syntax_is_not_quoted():
    refusal = refused(make("1.2.3.4", encapsulate([b"\0\0"])))
    assert refusal.reason is Reason.UNSUPPORTED_SYNTAX
    assert "1.2.3.4" not in str(refusal)


def progressive():
    return cv2.imencode(".jpg", SMALL, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()


def test_a_process_that_nothing_installed_reads_is_refused():
    refusal = refused(compressed(uid.JPEGLosslessSV1, progressive(), bits=8))
    assert refusal.reason is Reason.UNSUPPORTED_SYNTAX


def test_dct_of_16_bits_which_gdcm_writes_is_refused():
    stream = bytearray(STREAMS["jpeg-12"][1])
    stream[stream.find(b"\xff\xc1") + 4] = 16
    refusal = refused(compressed(uid.JPEGExtended12Bit, stream))
    assert refusal.reason is Reason.UNSUPPORTED_SYNTAX


def test_what_pydicom_has_a_plugin_for_is_read_by_it():
    pytest.importorskip("PIL")
    stored = stored_values(compressed(uid.JPEGBaseline8Bit, progressive(), bits=8))
    assert np.abs(stored.astype(int) - SMALL).max() < 60
