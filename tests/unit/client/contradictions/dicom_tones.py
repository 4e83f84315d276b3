"""DICOM, whatever the codec: polarity, windows, tables and padding against the pixels."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from tests.unit.client.contradictions.drawn import breast, dicom, likeness
from tests.unit.client.contradictions.matrix import RIGHT, Case

from mamfed_client.imaging.dicom import read_dicom
from mamfed_client.imaging.rejections import Reason

READER = "DICOM"
TOP = 4095


def _lut(entries, first=0, bits=12, dtype="<u2"):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries).astype(dtype).tobytes())
    return item


def _modality(lut):
    lut.ModalityLUTType = "US"
    return lut


def _case(what, outcome, pixels=breast, **elements):
    def run():
        stored = pixels()
        padding = {
            key: elements.pop(key)
            for key in ("PixelPaddingValue", "PixelPaddingRangeLimit")
            if key in elements
        }
        data = dicom(stored.astype("<u2").tobytes(), **padding, **elements)
        elements.update(padding)
        return likeness(read_dicom(data, "a.dcm"))

    return Case(READER, what, outcome, run)


def _inverted():
    return TOP - breast()


def _with_dense_lesion():
    """MONOCHROME1 whose densest tissue is 0, inside and at the chest wall."""
    stored = TOP - breast()
    stored[(stored < 1400)] = 0
    return stored


def _lost_to_it():
    pixels = breast().copy()
    pixels[pixels > TOP - 1400] = TOP
    return pixels


def _framed(value):
    def pixels():
        framed = breast().copy()
        framed[:9] = framed[-9:] = framed[:, -12:] = value
        return framed

    return pixels


RAMP = np.arange(TOP + 1)
CASES = [
    _case("MONOCHROME2, and low is bright", Reason.INVERTED, _inverted),
    _case(
        "MONOCHROME1, and high is bright", Reason.INVERTED, PhotometricInterpretation="MONOCHROME1"
    ),
    _case(
        "MONOCHROME1 and IDENTITY, and low is bright",
        RIGHT,
        _inverted,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="IDENTITY",
    ),
    _case(
        "MONOCHROME1 and IDENTITY, and high is bright",
        RIGHT,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="IDENTITY",
    ),
    _case(
        "MONOCHROME2 and INVERSE, and low is bright",
        RIGHT,
        _inverted,
        PresentationLUTShape="INVERSE",
    ),
    _case("MONOCHROME2 and INVERSE, and high is bright", RIGHT, PresentationLUTShape="INVERSE"),
    _case(
        "a rescale that turns bright and dark round",
        Reason.INVERTED,
        RescaleSlope=-1,
        RescaleIntercept=TOP,
    ),
    _case(
        "a VOI LUT that turns bright and dark round",
        Reason.INVERTED,
        VOILUTSequence=[_lut(TOP - RAMP)],
    ),
    _case("a window above all pixels", RIGHT, WindowCenter=9000, WindowWidth=500),
    _case("a window below the tissue", RIGHT, WindowCenter=100, WindowWidth=50),
    _case("a narrow window in the tissue", RIGHT, WindowCenter=1900, WindowWidth=20),
    _case(
        "a sigmoid far from the pixels",
        RIGHT,
        WindowCenter=-3000,
        WindowWidth=900,
        VOILUTFunction="SIGMOID",
    ),
    _case(
        "a window below the tissue, then a fitting one",
        RIGHT,
        WindowCenter=[100, 2048],
        WindowWidth=[50, 4096],
    ),
    _case("a VOI LUT for other values", RIGHT, VOILUTSequence=[_lut(RAMP, first=20000)]),
    _case("a VOI LUT of one level", RIGHT, VOILUTSequence=[_lut(RAMP * 0 + 7)]),
    _case("a VOI LUT whose bytes are swapped", RIGHT, VOILUTSequence=[_lut(RAMP, dtype=">u2")]),
    _case(
        "a VOI LUT of one level, then a fitting one",
        RIGHT,
        VOILUTSequence=[_lut(np.minimum(RAMP, 300)), _lut(RAMP)],
    ),
    _case(
        "a modality LUT of two levels", RIGHT, ModalityLUTSequence=[_modality(_lut(RAMP // 3000))]
    ),
    _case(
        "a modality LUT whose bytes are swapped",
        RIGHT,
        ModalityLUTSequence=[_modality(_lut(RAMP, dtype=">u2"))],
    ),
    _case("Rescale Slope 0", RIGHT, RescaleSlope=0, RescaleIntercept=5),
    _case(
        "a rescale, and a window meant for values without",
        RIGHT,
        RescaleSlope=1,
        RescaleIntercept=-20000,
        WindowCenter=2048,
        WindowWidth=4096,
    ),
    _case("padding that is the air", RIGHT, PixelPaddingValue=0, PixelPaddingRangeLimit=60),
    _case(
        "a range of padding that reaches into tissue",
        RIGHT,
        PixelPaddingValue=0,
        PixelPaddingRangeLimit=1900,
    ),
    _case(
        "a range of padding that covers the tissue",
        RIGHT,
        PixelPaddingValue=60,
        PixelPaddingRangeLimit=4000,
    ),
    _case("a padding value amid the tissue's", RIGHT, PixelPaddingValue=1966),
    _case("padding that no pixel has", RIGHT, PixelPaddingValue=4095),
    _case("padded edges, dark", RIGHT, _framed(0), PixelPaddingValue=0),
    _case("padded edges, bright", RIGHT, _framed(4095), PixelPaddingValue=4095),
    _case(
        "padded edges, spelled with bits that are not stored",
        RIGHT,
        _framed(4095),
        PixelPaddingValue=65535,
    ),
]
