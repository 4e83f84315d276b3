"""A source, marks in it and the objects made of both; a second way to show an image."""

import io

import numpy as np
import pydicom
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from mamfed_client.imaging.display_steps import DisplaySteps, Window
from mamfed_client.imaging.mammogram import Facts
from mamfed_client.prediction.derived_object import Origin
from mamfed_client.prediction.lesions import mark
from mamfed_client.prediction.objects import Subject, make_objects

ORIGIN = Origin("a" * 64, "b" * 64, 0.3)
SHAPE = (60, 47)
SOURCE = {
    "PatientID": "SECRET-1",
    "PatientName": "Secret^Name",
    "PatientSex": "F",
    "StudyDate": "20240102",
    "StudyTime": "101500",
    "StudyInstanceUID": "1.2.3.1",
    "SeriesInstanceUID": "1.2.3.2",
    "SOPInstanceUID": "1.2.3.3",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2",
    "PatientOrientation": "P\\L",
}
STEPS = DisplaySteps(1.0, 0.0, Window(512.0, 1024.0, ""), np.empty(0, np.uint16), False)


def marks(mask=None, spacing_mm=0.1):
    """Mark two regions far from symmetric, the first the stronger, or those of a mask."""
    if mask is None:
        mask = np.zeros(SHAPE, bool)
        mask[10:20, 30:41] = mask[20:24, 30:33] = mask[50:53, 3:9] = True
    return mark(np.where(mask, 0.8, 0.1).astype(np.float32), ORIGIN.threshold, spacing_mm)


def made_of(marked, kinds, **changed):
    given = {
        "source": SOURCE,
        "facts": Facts(laterality="R", view="CC", spacing_mm=0.1),
        "grey": np.full(marked.mask.shape, 30000, np.uint16),
        "steps": STEPS,
        "pixel": (1.0, 1.0),
    } | changed
    probability = np.where(marked.mask, 0.8, 0.1).astype(np.float32)
    subject = Subject(
        given["source"],
        given["facts"],
        given["grey"],
        probability,
        marked,
        given["steps"],
        given["pixel"],
    )
    return make_objects(subject, kinds, "binary", ORIGIN)


def read(data):
    return pydicom.dcmread(io.BytesIO(data))


def shown_by(state, stored):
    """Apply a presentation state's transformations as pydicom would a file's own; 0..1."""
    levels = apply_modality_lut(stored, state)
    voi = pydicom.Dataset()
    voi.update(state.SoftcopyVOILUTSequence[0])
    voi.PhotometricInterpretation, voi.PixelRepresentation = "MONOCHROME2", 0
    voi.BitsStored, voi.file_meta = 16, state.file_meta
    is_table = "VOILUTSequence" in voi
    levels = np.clip(levels, 0, None).astype(np.int64) if is_table else levels
    shown = apply_voi_lut(levels, voi) / 65535
    return 1 - shown if state.PresentationLUTShape == "INVERSE" else shown
