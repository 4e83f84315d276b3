"""The marked mammogram as a secondary capture (PS3.3 A.8.1): a picture that every viewer shows.

Its outlines are part of the pixels. It has no spacing, so that nobody measures on it.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from highdicom import CoordinateSystemNames, PhotometricInterpretationValues
from highdicom.sc import SCImage
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from mamfed_client.imaging.mammogram import Facts, Grey
from mamfed_client.prediction.derived_object import (
    ROOT_OF_FRAME,
    SIDES,
    Encoded,
    Origin,
    check_lossy,
    encode,
    item_of,
    marked_words,
    name,
    repeat,
    series,
    stamp,
)
from mamfed_client.prediction.lesions import MarkedRegions
from mamfed_client.prediction.model import NOTICE
from mamfed_client.prediction.pictures import (
    FONT,
    draw_labels,
    draw_outlines,
    whole_frame,
)
from mamfed_client.prediction.source_header import Content
from mamfed_client.review.show import Picture

SEGMENTED = Code("113076", "DCM", "Segmentation")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
BANNER = 64
"""Rows below the image for side, view and notice, so that they cover none of it."""


def encode_capture(
    marked: MarkedRegions,
    grey: Grey,
    source: Mapping[str, Content],
    facts: Facts,
    origin: Origin,
    pixel: tuple[float, float],
) -> Encoded:
    """Encode the image with its outlines, in colour with 8 bits and at reading size.

    Args:
        marked: The regions.
        grey: ``(H, W)`` uint16, tissue bright.
        source: The result of ``Decoder.source`` for the source image.
        facts: Metadata of the source image.
        origin: The model and threshold.
        pixel: A pixel's height and width; the picture's pixels are square.

    Raises:
        SourceError: The source's header lacks required elements.
    """
    regions = len(marked.lesions) + marked.left_out
    picture = draw_capture(marked, grey, facts, origin, pixel)

    def build(header: Dataset) -> SCImage:
        return SCImage(
            pixel_array=picture,
            photometric_interpretation=PhotometricInterpretationValues.RGB,
            bits_allocated=8,
            coordinate_system=CoordinateSystemNames.PATIENT,
            patient_orientation=("A", "R"),  # replaced: highdicom takes single letters only
            study_instance_uid=header.StudyInstanceUID,
            specific_character_set="ISO_IR 192",
            **series("picture", facts, origin),
        )

    def finish(header: Dataset, image: Dataset) -> None:
        repeat(header, image)
        for keyword in ROOT_OF_FRAME:
            image.pop(keyword, None)
        check_lossy(image)
        _describe(image, header, facts)
        image.ImageComments = f"{marked_words(regions, origin.threshold)}. {NOTICE}"
        stamp(image, header, "Content")
        image.DateOfSecondaryCapture, image.TimeOfSecondaryCapture = (
            image.ContentDate,
            image.ContentTime,
        )
        name(image)

    return encode(source, build, finish)


def _describe(image: Dataset, header: Dataset, facts: Facts) -> None:
    """State what the picture shows, what it was made of, and that it is no longer the original."""
    image.Modality = "OT"  # hanging protocols must not take it for a mammogram
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.PatientOrientation = header.get("PatientOrientation", "")
    image.BodyPartExamined = "BREAST"
    image.Laterality = facts.laterality or ""
    image.DerivationDescription = "Outlines of regions marked by mamfed, scaled to 8 bits"
    image.DerivationCodeSequence = [item_of(SEGMENTED)]
    region = item_of(codes.SCT.Breast)
    if side := SIDES.get(facts.laterality):
        region.AnatomicRegionModifierSequence = [item_of(side)]
    image.AnatomicRegionSequence = [region]
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [item_of(SOURCE_IMAGE)]
    image.SourceImageSequence = [reference]


def draw_capture(
    marked: MarkedRegions, grey: Grey, facts: Facts, origin: Origin, pixel: tuple[float, float]
) -> Picture:
    """Draw the image with outlines, labels, and a banner below, ``(h, w, 3)`` uint8 in RGB."""
    picture = draw_outlines(grey, marked.mask)
    draw_labels(picture, marked.lesions, whole_frame(grey.shape))
    height, width = picture.shape[:2]
    tall, wide = pixel[0] / max(pixel), pixel[1] / max(pixel)
    if (tall, wide) != (1.0, 1.0):
        size = max(1, round(width * wide)), max(1, round(height * tall))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.vstack([picture, _banner(picture.shape[1], marked, facts, origin)])


def _banner(width: int, marked: MarkedRegions, facts: Facts, origin: Origin) -> Picture:
    """Write side, view, what is marked and the notice in two lines."""
    regions = len(marked.lesions) + marked.left_out
    side = {"L": "left", "R": "right", None: "side unknown"}[facts.laterality]
    view = facts.view or "view unknown"
    first = f"{side} {view}: {marked_words(regions, origin.threshold)}"
    banner: Picture = np.zeros((BANNER, width, 3), np.uint8)
    for line, text in enumerate((first, f"mamfed, {NOTICE}")):
        (long, _), _ = cv2.getTextSize(text, FONT, 1.0, 2)
        letters = min(0.7, (width - 16) / long)
        at = (8, 26 + 28 * line)
        cv2.putText(banner, text, at, FONT, letters, (255, 255, 255), 1, cv2.LINE_AA)
    return banner
