import struct

import cv2
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
import tifffile

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.rejections import FileRejected, Reason


def write(path, pixels, **options):
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF", ".bmp"])
def test_pixels_that_are_not_zero_are_the_mask(tmp_path, marked, suffix):
    pixels = np.array([[0, 7, 0], [7, 0, 7]], np.uint8)
    assert marked(write(tmp_path / f"1{suffix}", pixels), 2, 3) == [".#.", "#.#"]


def test_16_bit_masks_are_read(tmp_path, marked):
    pixels = np.array([[0, 256], [256, 256]], np.uint16)
    assert marked(write(tmp_path / "1.png", pixels), 2, 2) == [".#", "##"]


def test_1_bit_tiff_masks_are_read(tmp_path, marked):
    pixels = np.array([[0, 1, 0], [1, 1, 0]], bool)
    tifffile.imwrite(tmp_path / "1.tif", pixels, photometric="minisblack")
    assert marked(tmp_path / "1.tif", 2, 3) == [".#.", "##."]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_a_tiff_whose_zero_is_white_is_refused(tmp_path, marked, dtype):
    tifffile.imwrite(tmp_path / "1.tif", np.eye(3, dtype=dtype), photometric="miniswhite")
    with pytest.raises(FileRejected, match="zero is white"):
        marked(tmp_path / "1.tif", 3, 3)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_any_colour_marks_but_opaqueness_does_not(tmp_path, marked, channel):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[1, 2, channel] = 9
    assert marked(write(tmp_path / "1.png", pixels), 2, 3) == ["...", "..#"]


def test_the_smear_about_an_edge_in_a_jpeg_is_no_mask(tmp_path, disk):
    shape = disk(61, 80, 35.2, 30.7, 14)
    write(tmp_path / "1.jpg", shape.astype(np.uint8) * 255)
    stored = cv2.imread(str(tmp_path / "1.jpg"), cv2.IMREAD_UNCHANGED)
    assert (stored != 0).sum() > shape.sum() + 20
    mask = read_annotations([Annotation(tmp_path / "1.jpg")], 61, 80).mask
    assert (mask == shape).all()


def test_a_picture_without_suffix_is_known_by_its_content(tmp_path, marked):
    write(tmp_path / "1.png", np.array([[0, 1]], np.uint8)).rename(tmp_path / "mask")
    assert marked(tmp_path / "mask", 1, 2) == [".#"]


def png(rows, columns):
    """A PNG's header alone."""
    header = struct.pack(">II", columns, rows) + b"\x08\0\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"IEND\0\0\0\0"


def jpeg(rows, columns):
    frame = struct.pack(">HHBHHB", 0xFFC0, 11, 8, rows, columns, 1) + b"\1\x11\0"
    return b"\xff\xd8\xff\xfe\0\4hi\xff" + frame + b"\xff\xda\0\2\xff\xd9"


def tiff(rows, columns, order="<", more=0):
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHIIHHII", 256, 4, 1, columns, 257, 4, 1, rows)
    return magic + struct.pack(f"{order}IH", 8, 2) + entries + struct.pack(f"{order}I", more)


def bmp(rows, columns):
    return b"BM" + bytes(16) + struct.pack("<ii", columns, -rows)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("1.png", png(30_000, 40_000)),
        ("1.jpg", jpeg(30_000, 40_000)),
        ("1.tif", tiff(30_000, 40_000)),
        ("1.tif", tiff(30_000, 40_000, order=">")),
        ("1.bmp", bmp(30_000, 40_000)),
    ],
)
def test_a_huge_picture_is_refused_by_its_header(tmp_path, marked, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FileRejected, match="a mask of 40000 x 30000 pixels") as refusal:
        marked(tmp_path / name, 2, 2)
    assert refusal.value.reason is Reason.UNREADABLE_MASK


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.97])
def test_a_picture_that_is_cut_short_is_refused(tmp_path, marked, suffix, keep):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    path = write(tmp_path / f"1{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(FileRejected) as refusal:
        marked(path, 40, 50)
    assert refusal.value.reason is Reason.UNREADABLE_MASK


def test_a_tiff_of_several_pages_is_refused(tmp_path, marked):
    tifffile.imwrite(tmp_path / "1.tif", np.ones((2, 5, 6), np.uint8), photometric="minisblack")
    with pytest.raises(FileRejected, match="several pages"):
        marked(tmp_path / "1.tif", 5, 6)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_mask_that_is_to_be_turned_is_refused_as_its_image_would_be(tmp_path, marked, suffix):
    turned = {0x0112: 6}
    exif = PIL.Image.Exif()
    exif.update(turned)
    more = {"tiffinfo": turned} if suffix == ".tif" else {"exif": exif}
    mask = PIL.Image.fromarray(np.kron(np.eye(4, dtype=np.uint8) * 255, np.ones((8, 8), np.uint8)))
    mask.save(tmp_path / f"1{suffix}", **more)
    with pytest.raises(FileRejected, match=r"rotated by (Exif|TIFF) orientation 6"):
        marked(tmp_path / f"1{suffix}", 32, 32)
    mask.save(tmp_path / f"2{suffix}")
    assert sum(row.count("#") for row in marked(tmp_path / f"2{suffix}", 32, 32)) == 256


def test_what_has_no_tones_is_read_whatever_a_file_says_of_them(tmp_path, marked):
    mask = np.zeros((5, 6), np.int16)
    mask[1:3, 2:4] = 1
    tifffile.imwrite(tmp_path / "1.tif", mask, photometric="minisblack")
    picture = PIL.Image.fromarray(mask.astype(np.uint8))
    picture.save(tmp_path / "2.tif", tiffinfo={254: 4})
    chunks = PIL.PngImagePlugin.PngInfo()
    chunks.add(b"gAMA", struct.pack(">I", 250_000))
    picture.save(tmp_path / "3.png", pnginfo=chunks)
    for name in ("1.tif", "2.tif", "3.png"):
        assert marked(tmp_path / name, 5, 6) == ["......", "..##..", "..##..", "......", "......"]


def test_text_called_a_png_is_refused(tmp_path, marked):
    (tmp_path / "1.png").write_text("Name^Secret")
    with pytest.raises(FileRejected, match="not a PNG, TIFF, JPEG or BMP") as refusal:
        marked(tmp_path / "1.png", 5, 6)
    assert "Secret" not in str(refusal.value)
