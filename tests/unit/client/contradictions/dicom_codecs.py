"""DICOM: the header against the pixels, in every codec that can hold the contradiction."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.encaps import encapsulate
from tests.unit.client.contradictions.drawn import BITS, breast, dicom, likeness
from tests.unit.client.contradictions.matrix import RIGHT, Case

from mamfed_client.imaging.dicom import read_dicom
from mamfed_client.imaging.rejections import Reason


def _rle(words, bits):
    planes = words.astype(f">u{words.itemsize}").view(np.uint8).reshape(-1, words.itemsize).T
    segments = [bytes(imagecodecs.packbits_encode(plane.tobytes())) for plane in planes]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = np.cumsum([64, *map(len, segments)])[:-1]
    return struct.pack("<16L", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(
        segments
    )


def _jpeg(**options):
    return lambda words, bits: imagecodecs.jpeg8_encode(words, bitspersample=bits, **options)


def _jpeg_ls(level):
    return lambda words, bits: imagecodecs.jpegls_encode(words, level=level)


def _jpeg_2000(**options):
    return lambda words, bits: imagecodecs.jpeg2k_encode(
        words, codecformat="j2k", bitspersample=bits, **options
    )


def _htj2k(words, bits):
    return imagecodecs.htj2k_encode(words, reversible=True)


NATIVE = {
    "explicit": uid.ExplicitVRLittleEndian,
    "implicit": uid.ImplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
}
LOSSLESS = {
    "RLE": (uid.RLELossless, _rle),
    "JPEG lossless": (uid.JPEGLosslessSV1, _jpeg(lossless=True, predictor=1)),
    "JPEG lossless .57": (uid.JPEGLossless, _jpeg(lossless=True, predictor=4)),
    "JPEG-LS": (uid.JPEGLSLossless, _jpeg_ls(0)),
}
WAVELETS = {
    "JPEG 2000": (uid.JPEG2000Lossless, _jpeg_2000(reversible=True)),
    "HTJ2K": (uid.HTJ2KLossless, _htj2k),
}
LOSSY = {
    "JPEG 12 bits": (uid.JPEGExtended12Bit, _jpeg(level=97)),
    "JPEG-LS near": (uid.JPEGLSNearLossless, _jpeg_ls(3)),
    "JPEG 2000 lossy": (uid.JPEG2000, _jpeg_2000(level=60, reversible=False)),
}
CODED = LOSSLESS | WAVELETS | LOSSY
WHOLE_WORDS = (*NATIVE, *LOSSLESS, *WAVELETS)
BITS_EXACT = (*NATIVE, *LOSSLESS)


def _file(reader, words, *, bits=None, **elements):
    if reader in NATIVE:
        order = ">" if reader == "big endian" else "<"
        return dicom(
            words.astype(f"{order}u{words.itemsize}").tobytes(), syntax=NATIVE[reader], **elements
        )
    syntax, encode = CODED[reader]
    stream = bytes(encode(np.ascontiguousarray(words), bits or BITS))
    elements |= {"vr": "OB", "encapsulated": True}
    return dicom(encapsulate([stream]), syntax=syntax, **elements)


def _case(reader, what, outcome, words, **options):
    def run():
        return likeness(read_dicom(_file(reader, words(), **options), "a.dcm"))

    return Case(reader, what, outcome, run)


def _cases(readers, what, outcome, words, **options):
    return [_case(reader, what, outcome, words, **options) for reader in readers]


def _signed():
    return breast().astype(np.int16) - np.int16(2048)


def _twos_complement():
    return _signed().view(np.uint16) & np.uint16(0xFFF)


def _colours(reader):
    syntax, _ = CODED[reader]

    def run():
        eight = np.repeat((breast() >> 4).astype(np.uint8)[..., None], 3, axis=2)
        stream = bytes(
            imagecodecs.jpeg8_encode(eight)
            if reader.startswith("JPEG 12")
            else imagecodecs.jpeg2k_encode(eight, codecformat="j2k", reversible=True)
        )
        data = dicom(encapsulate([stream]), syntax=syntax, vr="OB", encapsulated=True)
        return likeness(read_dicom(data, "a.dcm"))

    return Case(reader, "three colours where the header says one", Reason.UNSUPPORTED_IMAGE, run)


def _eight_bits():
    def run():
        stream = bytes(imagecodecs.jpeg8_encode((breast() >> 4).astype(np.uint8), level=97))
        data = dicom(
            encapsulate([stream]),
            syntax=uid.JPEGBaseline8Bit,
            vr="OB",
            encapsulated=True,
            WindowCenter=2048,
            WindowWidth=4096,
        )
        return likeness(read_dicom(data, "a.dcm"))

    return Case("JPEG baseline", "8 bits where header and window say 12", RIGHT, run)


FULL = {"BitsStored": 16, "HighBit": 15}
TURNED = {"Rows": breast().shape[1], "Columns": breast().shape[0]}
CASES = [
    *_cases((*NATIVE, *CODED), "sound, for comparison", RIGHT, breast),
    *_cases(BITS_EXACT, "signed pixels, unsigned header", Reason.CONTRADICTION, _twos_complement),
    *_cases(WAVELETS, "signed pixels, unsigned header", Reason.CONTRADICTION, _twos_complement),
    *_cases(
        ("JPEG 2000", "JPEG 2000 lossy"),
        "a signed codestream, unsigned header",
        Reason.CONTRADICTION,
        _signed,
    ),
    *_cases(
        (*BITS_EXACT, *WAVELETS, *LOSSY),
        "unsigned pixels, signed header",
        Reason.CONTRADICTION,
        breast,
        PixelRepresentation=1,
    ),
    *_cases(
        WHOLE_WORDS,
        "14 bits, Bits Stored 12",
        Reason.CONTRADICTION,
        lambda: breast() << 2,
        bits=14,
    ),
    _case(
        "JPEG 2000 lossy",
        "14 bits, Bits Stored 12",
        Reason.CONTRADICTION,
        lambda: breast() << 2,
        bits=14,
    ),
    *_cases(
        WHOLE_WORDS,
        "the value in the upper bits, High Bit 11",
        Reason.CONTRADICTION,
        lambda: breast() << 4,
        bits=16,
    ),
    *_cases(
        WHOLE_WORDS,
        "the value in the upper bits, High Bit 15",
        RIGHT,
        lambda: breast() << 4,
        bits=16,
        HighBit=15,
    ),
    *_cases(
        (*WHOLE_WORDS, *LOSSY),
        "values whose upper bits were cut",
        Reason.CONTRADICTION,
        lambda: breast() << 1 & np.uint16(0xFFF),
    ),
    *_cases(
        WHOLE_WORDS,
        "the two bytes of pixels swapped",
        Reason.CONTRADICTION,
        lambda: breast().byteswap(),
        bits=16,
        **FULL,
    ),
    *_cases((*NATIVE, "RLE"), "Rows and Columns swapped", Reason.CONTRADICTION, breast, **TURNED),
    *_cases(
        [reader for reader in CODED if reader != "RLE"],
        "Rows and Columns swapped",
        Reason.UNREADABLE_IMAGE,
        breast,
        **TURNED,
    ),
    *_cases(
        (*NATIVE, *CODED),
        "one colour where the header says three",
        Reason.UNSUPPORTED_IMAGE,
        breast,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
    ),
    *(_colours(reader) for reader in ("JPEG 12 bits", "JPEG 2000", "JPEG 2000 lossy")),
    _eight_bits(),
]
