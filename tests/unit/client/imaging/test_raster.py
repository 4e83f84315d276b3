import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from mamfed_client.imaging.raster import SUFFIXES, read_image
from mamfed_client.imaging.reader import read_mammogram
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_common.errors import DataError

GREY = np.array([[0, 51, 1], [102, 255, 2]], np.uint8)


def encoded(suffix, picture, *options):
    done, data = cv2.imencode(suffix, picture, options)
    assert done
    return data.tobytes()


def refused(data):
    with pytest.raises(FileRejected) as caught:
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
    with pytest.raises(FileRejected, match="neither DICOM nor a picture"):
        read_mammogram(tmp_path / "a.bin", data=encoded(".png", GREY))


def test_a_refusal_ends_a_command_with_the_exit_code_of_bad_data(tmp_path):
    with pytest.raises(DataError) as caught:
        read_mammogram(tmp_path / "absent.png")
    assert caught.value.exit_code == 4


def test_reading_needs_neither_torch_nor_flower():
    program = (
        "import sys, mamfed_client.imaging.reader; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'flwr')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# What a picture says of polarity, orientation and further images

SHOWN = np.arange(48).reshape(6, 8)


def tiff_pages(*pages, order="<"):
    """A TIFF of uncompressed pages: each ``(pixels, bits, {tag: value})``, values as SHORT."""
    mark = {"<": b"II", ">": b"MM"}[order]
    data, chain = bytearray(mark + struct.pack(order + "HI", 42, 0)), 4
    for pixels, bits, extra in pages:
        at, width = len(data), np.dtype(f"{order}u{max(1, bits // 8)}")
        data += pixels.astype(width).tobytes() + b"\0" * (pixels.size % 2)
        samples = pixels.shape[2] if pixels.ndim == 3 else 1
        tags = {256: pixels.shape[1], 257: pixels.shape[0], 258: bits, 259: 1, 262: 1, 273: at}
        tags |= {277: samples, 278: pixels.shape[0], 279: pixels.size * width.itemsize} | extra
        struct.pack_into(order + "I", data, chain, len(data))
        data += struct.pack(order + "H", len(tags))
        for tag, value in sorted(tags.items()):
            short = struct.pack(order + "HH", value, 0)
            data += struct.pack(order + "HHI", tag, 3, 1) + short
        chain = len(data)
        data += bytes(4)
    return bytes(data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_white_is_zero_is_turned_bright(bits, order):
    top = 2**bits - 1
    inverted = read_image(tiff_pages((top - SHOWN, bits, {262: 0}), order=order))
    upright = read_image(tiff_pages((SHOWN, bits, {262: 1}), order=order))
    assert inverted.grey.tolist() == upright.grey.tolist()
    assert upright.grey.argmax() == 47


@pytest.mark.parametrize("photometric", [0, 1])
def test_a_tiff_of_12_packed_bits_keeps_its_polarity(photometric):
    levels = SHOWN * 85 if photometric else 4095 - SHOWN * 85
    pairs = levels.reshape(-1, 2)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
    ).reshape(6, 12)
    tags = {256: 8, 258: 12, 262: photometric}
    grey = read_image(tiff_pages((packed, 8, tags))).grey
    assert np.corrcoef(grey.ravel(), SHOWN.ravel())[0, 1] > 0.9999


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({274: 3}, "rotated by TIFF orientation 3"),
        ({274: 6}, "rotated by TIFF orientation 6"),
        ({274: 2}, "rotated by TIFF orientation 2"),
        ({254: 1}, "begins with a thumbnail"),
        ({255: 2}, "begins with a thumbnail"),
        ({254: 4}, "begins with a mask"),
        ({262: 5}, "photometric interpretation 5"),
        ({262: 4}, "photometric interpretation 4"),
        ({339: 2}, "signed pixels"),
    ],
)
def test_a_tiff_of_another_kind_is_refused_by_name(extra, words):
    refusal = refused(tiff_pages((SHOWN, 16, extra)))
    assert (refusal.reason, words in refusal.detail) == (Reason.UNSUPPORTED_IMAGE, True)


def test_a_tiff_of_grey_and_transparency_is_refused():
    assert "2 channels" in refused(tiff_pages((np.dstack([SHOWN, SHOWN]), 16, {}))).detail


def test_a_tiff_of_several_pages_is_refused_and_smaller_views_are_not():
    page, small = (SHOWN, 16, {}), (SHOWN[::2, ::2], 16, {254: 1})
    assert "several pages (2)" in refused(tiff_pages(page, page)).detail
    assert "several pages (2)" in refused(tiff_pages(page, small, page)).detail
    assert read_image(tiff_pages(page, small)).grey.tolist() == SHOWN.tolist()
    assert "begins with a thumbnail" in refused(tiff_pages(small, page)).detail


def test_a_tiff_whose_pages_go_round_is_refused():
    data = bytearray(tiff_pages((SHOWN, 16, {})))
    data[-4:] = data[4:8]
    assert "form a loop" in refused(bytes(data)).detail


def png_with(*chunks):
    data = encoded(".png", SHOWN.astype(np.uint8))
    inserted = b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return data[:33] + inserted + data[33:]


def exif(orientation, order=">"):
    mark = {"<": b"II", ">": b"MM"}[order]
    entry = struct.pack(order + "HHHIHH", 1, 274, 3, 1, orientation, 0)
    return mark + struct.pack(order + "HI", 42, 8) + entry + bytes(4)


def test_what_a_png_says_that_changes_nothing_is_read():
    for chunks in (
        [(b"gAMA", struct.pack(">I", 45455))],
        [(b"gAMA", struct.pack(">I", 100000))],
        [(b"eXIf", exif(1))],
        [(b"sBIT", b"\x07")],
        [(b"tRNS", struct.pack(">H", 0))],
    ):
        assert read_image(png_with(*chunks)).grey.tolist() == (SHOWN * 257).tolist()


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        ((b"gAMA", struct.pack(">I", 22000)), "tone curve (gamma 0.22)"),
        ((b"eXIf", exif(6)), "rotated by Exif orientation 6"),
        ((b"eXIf", exif(3, "<")), "rotated by Exif orientation 3"),
        ((b"acTL", struct.pack(">II", 2, 0)), "several frames"),
    ],
)
def test_a_png_that_is_to_be_shown_otherwise_is_refused(chunk, words):
    assert words in refused(png_with(chunk)).detail


def test_the_colours_of_a_palette_are_obeyed():
    palette = b"".join(bytes([255 - level] * 3) for level in range(256))
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 8, 6, 8, 3, 0, 0, 0)
    head = struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    data = png_with((b"PLTE", palette))
    assert read_image(data[:8] + head + data[33:]).grey.tolist() == ((255 - SHOWN) * 257).tolist()


def jpeg_with(*segments):
    data = encoded(".jpg", np.full((16, 24), 128, np.uint8))
    inserted = b"".join(
        marker + struct.pack(">H", len(content) + 2) + content for marker, content in segments
    )
    return data[:2] + inserted + data[2:]


def test_a_jpeg_that_is_to_be_turned_or_of_several_images_is_refused():
    assert read_image(jpeg_with((b"\xff\xe1", b"Exif\0\0" + exif(1)))).grey.shape == (16, 24)
    turned = jpeg_with((b"\xff\xe0", b"JFIF\0"), (b"\xff\xe1", b"Exif\0\0" + exif(8)))
    assert "rotated by Exif orientation 8" in refused(turned).detail
    assert "several images" in refused(jpeg_with() + jpeg_with()).detail


def test_a_jpeg_of_four_colours_or_twelve_bits_is_refused_by_name():
    data = bytearray(jpeg_with())
    frame = data.index(b"\xff\xc0")
    assert "12 bits" in refused(bytes(data[: frame + 4] + b"\x0c" + data[frame + 5 :])).detail
    assert "4 colours" in refused(bytes(data[: frame + 9] + b"\x04" + data[frame + 10 :])).detail


def test_a_pgm_of_any_largest_level_is_read():
    for top, width in ((100, "u1"), (4095, ">u2"), (65535, ">u2")):
        for data in (
            b"P5 8 6 # a comment\n%d\n" % top + SHOWN.astype(width).tobytes(),
            b"P2\n8 6\n%d\n" % top + " ".join(map(str, SHOWN.ravel())).encode(),
        ):
            grey = read_image(data).grey
            assert np.corrcoef(grey.ravel(), SHOWN.ravel())[0, 1] > 0.999


def test_a_pgm_that_contradicts_itself_is_refused():
    raster = SHOWN.astype(np.uint8).tobytes()
    assert "above the 40" in refused(b"P5\n8 6\n40\n" + raster).detail
    two = b"P5\n8 6\n255\n" + raster
    assert "data after the image" in refused(two + two).detail
    assert "data after the image" in refused(b"P2\n1 1\n9\n3\nP2\n1 1\n9\n4\n").detail
    assert "0 as the maximum level" in refused(b"P5\n8 6\n0\n" + raster).detail


def test_pixels_that_are_not_what_the_format_says_are_refused(breast):
    little_endian = b"P5\n170 230\n4095\n" + breast.astype("<u2").tobytes()
    assert refused(little_endian).reason is Reason.CONTRADICTION
    assert read_image(b"P5\n170 230\n4095\n" + breast.astype(">u2").tobytes()).grey.max() < 4096
    swapped, cut = breast.byteswap(), (breast & 0xFF).astype(np.uint8)
    signed = (breast.astype(int) - 2048).astype(np.uint16)
    for picture in (swapped, cut, signed):
        for suffix in (".png", ".tif"):
            assert refused(encoded(suffix, picture)).reason is Reason.CONTRADICTION
