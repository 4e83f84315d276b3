"""Transfer syntaxes: what is written comes back, by independent decoders and by the client."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames

from mamfed_client.imaging.preprocess import prepare
from mamfed_client.imaging.reader import read_mammogram
from mamfed_common.runtime.seeds import generator
from mamfed_simulations.phantoms.phantom import Population, draw_patient
from mamfed_simulations.phantoms.transfer_syntaxes import (
    LOSSY,
    NEAR,
    SYNTAXES,
    encode,
    stored_pixels,
)
from mamfed_simulations.phantoms.vendor_variants import displayed_tone, padding, write_variants
from mamfed_simulations.phantoms.vendors import VENDORS

SHAPE = (241, 187)  # odd on purpose
BITS = (8, 10, 12, 14, 16)
VENDOR_SYNTAX = [(vendor, syntax) for vendor in VENDORS for syntax in SYNTAXES]
LEVEL = 1 / 255

DECODERS = {
    "jpeg-baseline": imagecodecs.jpeg8_decode,
    "jpeg-lossless": imagecodecs.jpegsof3_decode,
    "jpeg-lossless-sv1": imagecodecs.jpegsof3_decode,
    "jpeg-ls": imagecodecs.jpegls_decode,
    "jpeg-ls-near": imagecodecs.jpegls_decode,
    "jpeg-2000-lossless": imagecodecs.jpeg2k_decode,
    "jpeg-2000": imagecodecs.jpeg2k_decode,
}


def slopes(bits, shape=SHAPE):
    """Smooth grey with a little noise, from the smallest to the largest value."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(bits).normal(0, 0.005, shape)
    levels = 0.5 + 0.48 * np.sin(x / 31) * np.cos(y / 23) + noise
    levels[0, 0], levels[-1, -1] = 0, 1
    dtype = np.uint8 if bits <= 8 else np.uint16
    return np.rint(levels.clip(0, 1) * (2**bits - 1)).astype(dtype)


def dataset_of(pixels, bits):
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    data = pixels.tobytes()
    dataset.add_new("PixelData", "OB" if bits <= 8 else "OW", data + b"\0" * (len(data) % 2))
    return dataset


def write(path, pixels, bits, syntax):
    dataset = dataset_of(pixels, bits)
    encode(dataset, syntax)
    dataset.save_as(path, enforce_file_format=True)
    return pydicom.dcmread(path)


def frame_of(dataset):
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    return frame


def decoded(dataset, syntax):
    """pydicom reads native pixels and RLE by itself; imagecodecs the codestreams."""
    if syntax in DECODERS:
        return DECODERS[syntax](frame_of(dataset))
    return dataset.pixel_array


def segments(codestream):
    """Give marker and content of a JPEG's segments up to its first scan."""
    at = 2
    while True:
        marker, size = codestream[at + 1], int.from_bytes(codestream[at + 2 : at + 4], "big")
        yield marker, codestream[at + 4 : at + 2 + size]
        if marker == 0xDA:
            return
        at += 2 + size


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("syntax", [s for s in SYNTAXES if s not in LOSSY])
def test_a_lossless_syntax_gives_back_every_pixel(tmp_path, syntax, bits):
    pixels = slopes(bits)
    dataset = write(tmp_path / "a.dcm", pixels, bits, syntax)
    assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
    assert "LossyImageCompression" not in dataset
    np.testing.assert_array_equal(decoded(dataset, syntax), pixels)


@pytest.mark.parametrize(
    ("syntax", "bits", "most"),
    [
        ("jpeg-baseline", 8, 12),
        ("jpeg-ls-near", 8, NEAR),
        ("jpeg-ls-near", 12, NEAR),
        ("jpeg-2000", 8, 4),
        ("jpeg-2000", 12, 25),
    ],
)
def test_a_lossy_syntax_changes_pixels_a_little_and_says_so(tmp_path, syntax, bits, most):
    pixels = slopes(bits)
    dataset = write(tmp_path / "a.dcm", pixels, bits, syntax)
    error = np.abs(decoded(dataset, syntax).astype(int) - pixels)
    assert 0 < error.max() <= most
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == LOSSY[syntax]
    ratio = pixels.nbytes / len(frame_of(dataset))
    assert float(dataset.LossyImageCompressionRatio) == pytest.approx(ratio, rel=0.01)
    assert ratio > 1


def test_baseline_jpeg_has_no_more_than_8_bits():
    with pytest.raises(ValueError, match="8 bits"):
        encode(dataset_of(slopes(12), 12), "jpeg-baseline")


@pytest.mark.parametrize(("syntax", "predictor"), [("jpeg-lossless", 4), ("jpeg-lossless-sv1", 1)])
def test_jpeg_lossless_has_the_predictor_that_its_syntax_demands(tmp_path, syntax, predictor):
    dataset = write(tmp_path / "a.dcm", slopes(12), 12, syntax)
    found = dict(segments(frame_of(dataset)))
    assert found[0xC3][:5] == bytes([12, 0, 241, 0, 187])  # precision, rows, columns
    assert found[0xDA][3] == predictor
    assert found[0xDA][5] == 0  # no point transform


@pytest.mark.parametrize("syntax", [*DECODERS, "rle"])
def test_a_codestream_lies_in_one_fragment_of_even_length(tmp_path, syntax):
    element = write(tmp_path / "a.dcm", slopes(8), 8, syntax)["PixelData"]
    assert (element.VR, element.is_undefined_length) == ("OB", True)
    assert len(element.value) % 2 == 0
    offsets, fragment = element.value[:12], element.value[12:]
    assert offsets == bytes.fromhex("feff00e004000000 00000000")
    assert fragment[:4] == bytes.fromhex("feff00e0")
    assert int.from_bytes(fragment[4:8], "little") == len(fragment) - 8


@pytest.mark.parametrize("syntax", ["jpeg-ls", "jpeg-ls-near"])
def test_jpeg_ls_begins_with_its_frame_header_as_vendors_write_it(tmp_path, syntax):
    frame = frame_of(write(tmp_path / "a.dcm", slopes(12), 12, syntax))
    assert frame.startswith(bytes.fromhex("ffd8fff7"))


def test_every_row_of_rle_is_packed_for_itself(tmp_path):
    pixels = np.zeros((4, 5), np.uint16)  # one run, were rows joined
    dataset = write(tmp_path / "a.dcm", pixels, 12, "rle")
    frame = frame_of(dataset)
    assert frame[:12] == bytes([2, 0, 0, 0, 64, 0, 0, 0, 72, 0, 0, 0])
    assert frame[64:72] == bytes([256 - 4, 0] * 4)  # five zeros, four times
    np.testing.assert_array_equal(dataset.pixel_array, pixels)


def test_big_endian_swaps_the_words_of_pixels_tables_and_overlays(tmp_path):
    dataset = dataset_of(np.array([[0x0102, 0x0304]], np.uint16), 12)
    item = pydicom.Dataset()
    item.add_new("LUTData", "OW", b"\x05\x06")
    dataset.VOILUTSequence = [item]
    dataset.add_new(0x60003000, "OW", b"\x07\x08")
    encode(dataset, "big-endian")
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    data = (tmp_path / "a.dcm").read_bytes()
    assert data.endswith(b"\x01\x02\x03\x04")
    assert b"\x06\x05" in data
    assert b"\x08\x07" in data


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_same_image_gives_the_same_bytes(tmp_path, syntax):
    files = []
    for name in "ab":
        write(tmp_path / name, slopes(8), 8, syntax)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_stored_pixels_leave_the_padding_byte_of_an_odd_image_out():
    pixels = slopes(8, (3, 5))
    np.testing.assert_array_equal(stored_pixels(dataset_of(pixels, 8)), pixels)


@pytest.fixture(scope="module")
def scene():
    phantoms = draw_patient(generator(3), SHAPE, Population(), malignant=True)
    return phantoms[1]


@pytest.fixture(scope="module")
def variants(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    return {(v.vendor, v.syntax): v for v in write_variants(folder, scene)}


def test_a_variant_is_written_for_every_vendor_and_syntax(variants):
    assert list(variants) == VENDOR_SYNTAX
    for (vendor, syntax), variant in variants.items():
        dataset = pydicom.dcmread(variant.path, stop_before_pixels=True)
        assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
        assert dataset.get("Manufacturer", "") in ("", VENDORS[vendor].manufacturer)
        assert variant.lossless == (syntax not in LOSSY)
        bits = 8 if syntax == "jpeg-baseline" else VENDORS[vendor].detector.bits_stored
        assert dataset.BitsStored == bits
        assert dataset.BitsAllocated == (8 if bits == 8 else 16)


def test_the_vendors_store_other_values_of_the_same_tone(variants):
    stored = [
        pydicom.dcmread(variants[vendor, "explicit"].path).pixel_array / 2.0**bits
        for vendor, bits in (("aurora", 12), ("borealis", 14), ("cirrus", 10))
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(stored[one] - stored[other]).mean() > 0.03


@pytest.mark.parametrize("vendor", VENDORS)
def test_pydicom_displays_the_same_tone_of_every_vendor(variants, scene, vendor):
    dataset = pydicom.dcmread(variants[vendor, "explicit"].path)
    shown = pydicom.pixels.apply_voi_lut(dataset.pixel_array, dataset).astype(float)
    shown /= 65535 if "VOILUTSequence" in dataset else 2**dataset.BitsStored - 1
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    image = ~padding(scene, VENDORS[vendor])
    np.testing.assert_allclose(shown[image], displayed_tone(scene)[image], atol=0.3 * LEVEL)


@pytest.mark.parametrize(("vendor", "syntax"), VENDOR_SYNTAX)
def test_the_client_reads_the_same_image_from_every_vendor_and_syntax(
    variants, scene, vendor, syntax
):
    variant = variants[vendor, syntax]
    mammogram = read_mammogram(variant.path)
    padded = padding(scene, VENDORS[vendor])
    error = np.abs(mammogram.pixels - displayed_tone(scene))[~padded] / LEVEL
    if variant.lossless:
        assert error.max() <= 1
        valid = np.ones(SHAPE, bool) if mammogram.valid is None else mammogram.valid
        np.testing.assert_array_equal(valid, ~padded)
    else:
        assert error.mean() < 1
        assert np.percentile(error, 99) < 6
    facts = mammogram.facts
    assert (facts.laterality, facts.view) == (scene.laterality, scene.view)
    assert facts.spacing_mm == VENDORS[vendor].detector.spacing_mm


@pytest.mark.parametrize(("vendor", "syntax"), VENDOR_SYNTAX)
def test_a_mask_finds_its_way_back_to_the_file_of_every_vendor_and_syntax(
    variants, scene, vendor, syntax
):
    mammogram = read_mammogram(variants[vendor, syntax].path)
    sample, transform = prepare(mammogram, scene.mask, 512)
    back = transform.invert(sample.mask) >= 0.5
    seen = scene.mask if mammogram.valid is None else scene.mask & mammogram.valid
    assert seen.sum() > 50
    assert (back & seen).sum() / (back | seen).sum() >= 0.98
