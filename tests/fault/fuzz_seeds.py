"""Small sound files in every format that is read: what mutants are bred from."""

import io

import cv2
import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

SECRET = "Secret"
"""In every text that identifies the patient, and never in a message."""
ROWS, COLUMNS = 320, 240
NATIVE = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big-endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
}


def draw(bits):
    """A half ellipse with noise inside and black outside, in the given number of bits."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    radius = np.hypot((y - ROWS / 2) / (ROWS * 0.45), x / (COLUMNS * 0.8))
    noise = np.random.default_rng(0).normal(0, 0.005, radius.shape)
    levels = np.where(radius < 1, 0.1 + (1 - radius) * 0.6 + noise, 0).clip(0, 1)
    return np.rint(levels * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def dataset(pixels, bits):
    """A mammogram's data set without its pixels, with a nested sequence."""
    made = pydicom.Dataset()
    made.file_meta = FileMetaDataset()
    made.SOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    made.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    made.PatientName, made.PatientID = f"{SECRET}^Name", f"{SECRET}-id"
    made.PatientBirthDate, made.Modality, made.Manufacturer = "19610203", "MG", "HOLOGIC, Inc."
    made.ImageLaterality, made.ViewPosition, made.PatientOrientation = "L", "CC", ["A", "R"]
    made.PresentationIntentType, made.ImagerPixelSpacing = "FOR PRESENTATION", [0.07, 0.07]
    view, modifier = pydicom.Dataset(), pydicom.Dataset()
    view.CodeValue, view.CodingSchemeDesignator = "R-10242", "SRT"
    modifier.CodeValue, modifier.CodeMeaning = "R-102D2", SECRET
    view.ViewModifierCodeSequence = Sequence([modifier])
    made.ViewCodeSequence = Sequence([view])
    made.WindowCenter, made.WindowWidth = 2 ** (bits - 1), 2**bits
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated, made.BitsStored = pixels.dtype.itemsize * 8, bits
    made.HighBit, made.PixelRepresentation = bits - 1, 0
    return made


def file_bytes(made, syntax):
    """The bytes of a data set's file."""
    made.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def native(syntax):
    pixels = draw(12)
    made = dataset(pixels, 12)
    order = ">u2" if syntax == uid.ExplicitVRBigEndian else "<u2"
    made.add_new("PixelData", "OW", pixels.astype(order).tobytes())
    return file_bytes(made, syntax)


def run_length():
    pixels = draw(12)
    made = dataset(pixels, 12)
    made.add_new("PixelData", "OW", pixels.tobytes())
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.compress(uid.RLELossless, generate_instance_uid=False)
    return file_bytes(made, uid.RLELossless)


def compressed(syntax, codestream, bits=12):
    made = dataset(draw(bits), bits)
    made.add_new("PixelData", "OB", encapsulate([bytes(codestream)]))
    made["PixelData"].is_undefined_length = True
    return file_bytes(made, syntax)


def dicom_seeds():
    """Name -> bytes of a DICOM file; the names are those of the transfer syntaxes."""
    grey, grey8 = draw(12), draw(8)
    lossless = {"lossless": True, "bitspersample": 12}
    jpeg, jpeg2000 = imagecodecs.jpeg8_encode, imagecodecs.jpeg2k_encode
    return {name: native(syntax) for name, syntax in NATIVE.items()} | {
        "rle": run_length(),
        "jpeg-8": compressed(uid.JPEGBaseline8Bit, jpeg(grey8, level=95), 8),
        "jpeg-12": compressed(uid.JPEGExtended12Bit, jpeg(grey, level=95, bitspersample=12)),
        "jpeg-57": compressed(uid.JPEGLossless, jpeg(grey, predictor=4, **lossless)),
        "jpeg-70": compressed(uid.JPEGLosslessSV1, jpeg(grey, predictor=1, **lossless)),
        "jpeg-ls": compressed(uid.JPEGLSLossless, imagecodecs.jpegls_encode(grey)),
        "jpeg-ls-near": compressed(
            uid.JPEGLSNearLossless, imagecodecs.jpegls_encode(grey, level=2)
        ),
        "jpeg2000": compressed(
            uid.JPEG2000Lossless,
            jpeg2000(grey, codecformat="j2k", reversible=True, bitspersample=12),
        ),
        "jpeg2000-lossy": compressed(
            uid.JPEG2000, jpeg2000(grey, codecformat="j2k", level=60, bitspersample=12)
        ),
        "htj2k": compressed(uid.HTJ2KLossless, imagecodecs.htj2k_encode(grey, reversible=True)),
    }


def picture_seeds():
    """Name -> bytes of a picture; the name is the suffix."""
    forms = {"png": draw(16), "tif": draw(16), "jpg": draw(8), "pgm": draw(8)}
    return {name: cv2.imencode(f".{name}", pixels)[1].tobytes() for name, pixels in forms.items()}
