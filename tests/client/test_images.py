import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from mamfed_client.images import SUFFIXES, read_image
from mamfed_client.reading import read_mammogram
from mamfed_client.rejections import Reason, Refusal
from mamfed_common.errors import DataError

GREY = np.array([[0, 51, 1], [102, 255, 2]], np.uint8)


def encoded(suffix, picture, *options):
    done, data = cv2.imencode(suffix, picture, options)
    assert done
    return data.tobytes()


def refused(data):
    with pytest.raises(Refusal) as caught:
        read_image(data)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_8_bit_levels_are_spread_over_16_bits(suffix):
    mammogram = read_image(encoded(suffix, GREY))
    assert mammogram.grey.dtype == np.uint16
    assert mammogram.grey.tolist() == [[0, 13107, 257], [26214, 65535, 514]]
    assert mammogram.valid is None
    np.testing.assert_allclose(mammogram.pixels, GREY / 255, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_levels_are_kept(suffix):
    stored = np.array([[0, 1, 13107], [4095, 65534, 65535]], np.uint16)
    assert read_image(encoded(suffix, stored)).grey.tolist() == stored.tolist()


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_grey_jpeg_is_read(progressive):
    flat = np.full((16, 24), 128, np.uint8)
    data = encoded(".jpg", flat, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    assert np.abs(read_image(data).grey.astype(int) - 128 * 257).max() <= 257


def test_a_pgm_like_those_of_mini_mias_is_read():
    by_hand = b"P5\n# made by xv\n3 2\n255\n" + GREY.tobytes()
    assert read_image(by_hand).grey.tolist() == (GREY * 257.0).tolist()


def test_a_big_endian_tiff_is_read():
    entries = [(256, 3, 3 << 16), (257, 4, 2), (258, 3, 8 << 16), (259, 3, 1 << 16)]
    entries += [(262, 3, 1 << 16), (273, 4, 8), (277, 3, 1 << 16), (278, 4, 2), (279, 4, 6)]
    directory = struct.pack(">H", len(entries)) + b"".join(
        struct.pack(">HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    data = b"MM\0*" + struct.pack(">I", 14) + GREY.tobytes() + directory + bytes(4)
    assert read_image(data).grey.tolist() == (GREY * 257.0).tolist()


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_with_equal_channels_counts_as_grey(channels):
    picture = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])[..., :channels]
    assert read_image(encoded(".png", picture)).grey.tolist() == (GREY * 257.0).tolist()


def test_true_colour_is_refused():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[1, 1] = 10, 20, 30
    refusal = refused(encoded(".png", picture))
    assert (refusal.reason, "colour" in refusal.detail) == (Reason.UNSUPPORTED_IMAGE, True)


def test_transparent_pixels_are_refused():
    refusal = refused(encoded(".png", np.full((4, 4, 4), 100, np.uint8)))
    assert (refusal.reason, "transparent" in refusal.detail) == (Reason.UNSUPPORTED_IMAGE, True)


def test_floating_point_pixels_are_refused():
    refusal = refused(encoded(".tif", np.ones((4, 4), np.float32)))
    assert (refusal.reason, "float32" in refusal.detail) == (Reason.UNSUPPORTED_IMAGE, True)


def png_of(width, height):
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    return b"\x89PNG\r\n\x1a\n" + chunk + encoded(".png", GREY)[33:]


def tiff_of(width, height, kind, byte_order="<"):
    head = {"<": b"II*\0", ">": b"MM\0*"}[byte_order] + struct.pack(byte_order + "I", 8)
    value = {3: byte_order + "HH", 4: byte_order + "I"}[kind]
    sides = [(width, 0) if kind == 3 else (width,), (height, 0) if kind == 3 else (height,)]
    entries = [
        struct.pack(byte_order + "HHI", tag, kind, 1) + struct.pack(value, *side)
        for tag, side in zip((256, 257), sides, strict=True)
    ]
    return head + struct.pack(byte_order + "H", 2) + b"".join(entries) + bytes(4)


def big_tiff_of(width, height):
    entries = [
        struct.pack("<HHQQ", tag, 16, 1, side) for tag, side in ((256, width), (257, height))
    ]
    return b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2) + b"".join(entries) + bytes(8)


def jpeg_of(width, height):
    data = encoded(".jpg", GREY)
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


@pytest.mark.parametrize(
    "make",
    [
        png_of,
        jpeg_of,
        big_tiff_of,
        lambda width, height: tiff_of(width, height, 3),
        lambda width, height: tiff_of(width, height, 4),
        lambda width, height: tiff_of(width, height, 4, ">"),
        lambda width, height: f"P5\n{width} #width\n{height}\n255\n".encode(),
    ],
)
def test_a_huge_picture_is_refused_by_its_header(make):
    refusal = refused(make(60000, 50000))
    assert refusal.reason is Reason.TOO_LARGE
    assert "60000 x 50000 pixels" in refusal.detail
    if make is not jpeg_of:  # libjpeg would read on past the end of the data
        assert refused(make(400, 500)).reason is Reason.UNREADABLE_IMAGE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.UNREADABLE_IMAGE),
        (b"garbage", Reason.UNREADABLE_IMAGE),
        (b"\x89PNG\r\n\x1a\n", Reason.TRUNCATED),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), Reason.UNREADABLE_IMAGE),
        (b"II*\0\xff\0\0\0", Reason.TRUNCATED),
        (b"II*\0\x08\0\0\0\0\0\0\0", Reason.UNREADABLE_IMAGE),
        (b"P5 255", Reason.UNREADABLE_IMAGE),
        (b"\xff\xd8\xff\xe0", Reason.TRUNCATED),
    ],
)
def test_broken_files_are_refused_by_name(content, reason):
    assert refused(content).reason is reason


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".pgm"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.99])
def test_no_picture_cut_short_is_read(suffix, kept):
    noise = np.random.default_rng(0).integers(0, 256, (60, 50)).astype(np.uint8)
    data = encoded(suffix, noise)
    reason = refused(data[: int(len(data) * kept)]).reason
    assert reason in (Reason.UNREADABLE_IMAGE, Reason.TRUNCATED)


def test_suffixes_choose_the_reader_and_content_the_format(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix.upper()}"
        path.write_bytes(encoded(".png", GREY))
        assert read_mammogram(path).grey.shape == GREY.shape
    with pytest.raises(Refusal, match="neither DICOM nor a picture"):
        read_mammogram(tmp_path / "a.bin", data=encoded(".png", GREY))


def test_a_refusal_ends_a_command_with_the_exit_code_of_bad_data(tmp_path):
    with pytest.raises(DataError) as caught:
        read_mammogram(tmp_path / "absent.png")
    assert caught.value.exit_code == 4


def test_reading_needs_neither_torch_nor_flower():
    program = (
        "import sys, mamfed_client.reading; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'flwr')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
