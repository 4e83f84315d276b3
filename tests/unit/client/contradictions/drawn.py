"""The breast that all image cases show, and how alike a sample of it is to the true one."""

from __future__ import annotations

import functools
import io

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from mamfed_client.imaging.mammogram import Facts, Mammogram
from mamfed_client.imaging.preprocess import prepare

SIZE = 64
BITS = 12


@functools.cache
def breast():
    """12 bits ``(230, 170)``: air near 0, a breast that thins out, on both sides of the middle."""
    y, x = np.mgrid[:230, :170]
    depth = np.clip(1 - (x / 120) ** 2 - ((y - 115) / 95) ** 2, 0, 1) ** 0.4
    tone = np.where(depth > 0, depth * (0.5 + 0.28 * np.cos(x / 13) * np.cos(y / 17)), 0) + 0.006
    noise = np.random.default_rng(0).normal(0, 0.0015, tone.shape)
    pixels = np.rint((tone + noise).clip(0, 1) * 4095).astype(np.uint16)
    pixels.setflags(write=False)
    return pixels


@functools.cache
def truth():
    return sample_of(Mammogram(breast(), None, Facts(laterality="L")))


def sample_of(mammogram):
    return prepare(mammogram, None, SIZE)[0].image.astype(float)


def likeness(mammogram):
    """Correlate the sample of what was read with the true one."""
    return float(np.corrcoef(sample_of(mammogram).ravel(), truth().ravel())[0, 1])


def dicom(pixel_data, *, syntax=ExplicitVRLittleEndian, vr="OW", encapsulated=False, **elements):
    """A mammogram's file as bytes; elements override the usual, None takes one out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.18"
    dataset.Modality, dataset.ImageLaterality, dataset.ViewPosition = "MG", "L", "CC"
    dataset.Rows, dataset.Columns = breast().shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS, BITS - 1
    dataset.PixelRepresentation = 0
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.add_new("PixelData", vr, pixel_data + b"\0" * (len(pixel_data) % 2))
    dataset["PixelData"].is_undefined_length = encapsulated
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
