"""The marked regions as a presentation state (PS3.3 A.33.1), drawn over the source image.

A presentation state replaces every transformation of its image: without a window of its own, a
viewer would show the image without any. It has the steps by which mamfed read the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from highdicom import VOILUT, ModalityLUTTransformation, PresentationLUTTransformation
from highdicom.color import CIELabColor
from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextJustificationValues,
    TextObject,
)
from pydicom import Dataset

from mamfed_client.imaging.display_steps import DisplaySteps
from mamfed_client.imaging.mammogram import Facts
from mamfed_client.prediction.derived_object import (
    Encoded,
    Origin,
    drop_image_elements,
    encode,
    marked_words,
    name,
    repeat,
    series,
    source_image,
    stamp,
)
from mamfed_client.prediction.lesions import Lesion, MarkedRegions
from mamfed_client.prediction.polygons import Points
from mamfed_client.prediction.source_header import Content
from mamfed_client.review.show import LESION

NOTICE = "mamfed: research use only, not for diagnosis"
LAYER, NOTES = "SUSPICIOUS", "NOTES"
BOTTOM = (0.02, 0.95, 0.98, 0.99)
"""Where the notice stands: left, top, right, bottom of the display, 0..1."""
LABEL_HEIGHT, LABEL_WIDTH = 0.02, 0.08
"""Size of a region's label, as part of the image's longest side."""


def encode_presentation(
    marked: MarkedRegions,
    polygons: tuple[Points, ...],
    source: Mapping[str, Content],
    facts: Facts,
    origin: Origin,
    steps: DisplaySteps,
    pixel: tuple[float, float],
) -> Encoded:
    """Encode the outlines of an image's regions, and how the image is displayed.

    Args:
        marked: The regions.
        polygons: Their outlines, in pixels of the image.
        source: The result of ``Decoder.source`` for the source image.
        facts: Metadata of the source image.
        origin: The model and threshold.
        steps: How the image's stored values become grey levels.
        pixel: A pixel's height and width.

    Raises:
        SourceError: The source's header lacks required elements.
    """
    regions = len(marked.lesions) + marked.left_out

    def build(header: Dataset) -> GrayscaleSoftcopyPresentationState:
        image = source_image(header, *marked.mask.shape)
        layers = [
            GraphicLayer(
                LAYER,
                order=1,
                description="Suspected malignancy, marked by mamfed",
                display_color=CIELabColor.from_rgb(*LESION),
            ),
            GraphicLayer(NOTES, order=2, description="Notes, not part of the marks"),
        ]
        return GrayscaleSoftcopyPresentationState(
            referenced_images=[image],
            content_label="SUSPECTED_MALIGN",
            content_description=marked_words(regions, origin.threshold),
            graphic_layers=layers,
            graphic_annotations=_annotations(marked, polygons, image, layers),
            modality_lut_transformation=ModalityLUTTransformation(
                rescale_intercept=steps.intercept, rescale_slope=steps.slope, rescale_type="US"
            ),
            voi_lut_transformations=[_voi(steps)],
            presentation_lut_transformation=PresentationLUTTransformation(
                presentation_lut_shape="INVERSE" if steps.inverted else "IDENTITY"
            ),
            specific_character_set="ISO_IR 192",
            **series("outlines", facts, origin),
        )

    def finish(header: Dataset, state: Dataset) -> None:
        repeat(header, state)
        drop_image_elements(state)
        state.Laterality = facts.laterality or ""  # Type 2C of a paired body part (C.7.3.1)
        (area,) = state.DisplayedAreaSelectionSequence
        del area.PixelOriginInterpretation  # only for images in tiles (C.10.4)
        area.PresentationPixelAspectRatio = _whole_ratio(*pixel)
        stamp(state, header, "PresentationCreation")
        name(state)

    return encode(source, build, finish)


def _voi(steps: DisplaySteps) -> SoftcopyVOILUTTransformation:
    """Return the window, or else the table, by which the image is displayed."""
    if steps.window is None:
        return SoftcopyVOILUTTransformation(voi_luts=[VOILUT(0, steps.table)])
    window = steps.window
    return SoftcopyVOILUTTransformation(
        window_center=window.centre,
        window_width=window.width,
        voi_lut_function=window.function or "LINEAR",
    )


def _annotations(
    marked: MarkedRegions,
    polygons: Sequence[Points],
    image: Dataset,
    layers: Sequence[GraphicLayer],
) -> list[GraphicAnnotation]:
    """Return the outlines in pixels of the image, and the notes beside them."""
    outlines = [
        GraphicObject(
            GraphicTypeValues.POLYLINE, polygon.astype(np.float32), AnnotationUnitsValues.PIXEL
        )
        for polygon in polygons
    ]
    notice = TextObject(
        NOTICE if marked.lesions else f"{NOTICE}. No region found.",
        AnnotationUnitsValues.DISPLAY,
        bounding_box=BOTTOM,
        text_justification=TextJustificationValues.LEFT,
    )
    labels = [
        _label(number, lesion, marked.mask.shape)
        for number, lesion in enumerate(marked.lesions, start=1)
    ]
    notes = GraphicAnnotation([image], layers[1], text_objects=[notice, *labels])
    if not outlines:
        return [notes]
    return [GraphicAnnotation([image], layers[0], graphic_objects=outlines), notes]


def _label(number: int, lesion: Lesion, shape: tuple[int, ...]) -> TextObject:
    """Return number and score above a region's box, or below it at the upper edge of the image."""
    rows, columns = shape
    high, wide = LABEL_HEIGHT * max(shape), LABEL_WIDTH * max(shape)
    top = lesion.box.top - high if lesion.box.top >= high else lesion.box.bottom
    top, left = min(top, max(rows - high, 0)), min(lesion.box.left, max(columns - wide, 0))
    return TextObject(
        f"{number}: {lesion.score:.2f}",
        AnnotationUnitsValues.PIXEL,
        bounding_box=(left + 1, top + 1, min(left + wide, columns), min(top + high, rows)),
        text_justification=TextJustificationValues.LEFT,
    )


def _whole_ratio(height: float, width: float) -> list[int]:
    """Return a pixel's height and width as whole numbers (C.10.4: an IS of two values)."""
    if abs(height / width - 1) < 1e-3:
        return [1, 1]
    return [round(1000 * height / max(height, width)), round(1000 * width / max(height, width))]
