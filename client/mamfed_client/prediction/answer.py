"""The files and the record that are made of the network's output for one image."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from mamfed_client.imaging.mammogram import Facts, Pixels
from mamfed_client.prediction.derived_object import Origin
from mamfed_client.prediction.kinds import FILES
from mamfed_client.prediction.lesions import Lesion, MarkedRegions, mark
from mamfed_client.prediction.model import NOTICE, LoadedModel
from mamfed_client.prediction.objects import Made, Subject, make_objects
from mamfed_client.prediction.pictures import (
    draw_difference,
    draw_labels,
    draw_outlines,
    draw_square,
    hung_frame,
    to_jpeg,
    to_png,
    whole_frame,
)
from mamfed_client.prediction.segmentation import Encoding
from mamfed_client.prediction.view import View
from mamfed_common.training.inference import Prediction

MARKED, HEALTHY = "overlay", "healthy"
RECONSTRUCTION, DIFFERENCE = "reconstruction", "difference"
ON_PAGE = "page-"
"""Prefix of the pictures shown on the study's page."""
NOT_ASKED = "not asked for by --as"
NO_HEADER = "a picture has no DICOM header to refer to"
PREPARED = "a prepared sample has no DICOM header to refer to; name the original file"


class Answer(NamedTuple):
    """The results for an image: files by name, and their record."""

    files: dict[str, bytes]
    record: dict[str, Any]


def answer(
    view: View,
    prediction: Prediction,
    model: LoadedModel,
    encoding: Encoding,
    kinds: Collection[str],
) -> Answer:
    """Return the files and the record of the network's prediction for an image."""
    probability = view.transform.invert(prediction.malignancy)
    marked = mark(probability, model.threshold, view.facts.spacing_mm)
    files, shown_at = pictures_of(view, prediction, marked)
    pictures = sorted(files)
    made = objects_of(view, marked, probability, model, encoding, kinds)
    files |= {FILES[kind]: data for kind, data in made.files.items()}
    record = {
        **_image(view),
        **_findings(probability, marked, view.facts),
        "model": model.to_json(),
        "segmentation": FILES["seg"] if "seg" in made.files else None,
        "segmentation_missing": made.missing.get("seg", "" if "seg" in kinds else NOT_ASKED),
        "objects": {kind: FILES[kind] for kind in made.files},
        "objects_missing": made.missing,
        "header_left_out": made.left_out,
        "pictures": pictures,
        "difference_shown_at_full_colour": shown_at,
        "notice": NOTICE,
    }
    return Answer(files, record)


def pictures_of(
    view: View, prediction: Prediction, marked: MarkedRegions
) -> tuple[dict[str, bytes], float | None]:
    """Draw the whole image as PNG files, and the breast as JPEG files for the study's page.

    Returns:
        The files, and the difference shown at full colour; None without a reconstruction.
    """
    drawn = {MARKED: draw_outlines(view.grey, marked.mask)}
    shown_at = None
    if prediction.healthy is not None:
        drawn[HEALTHY] = draw_square(prediction.healthy, view.transform)
    if prediction.reconstruction is not None:
        drawn[RECONSTRUCTION] = draw_square(prediction.reconstruction, view.transform)
        drawn[DIFFERENCE], shown_at = draw_difference(
            view.sample, prediction.reconstruction, view.transform
        )
    frame = hung_frame(view.transform, view.facts.laterality)
    on_page = {
        name: frame.show(picture, (view.transform.rows, view.transform.columns))
        for name, picture in drawn.items()
    }
    draw_labels(drawn[MARKED], marked.lesions, whole_frame(view.grey.shape))
    draw_labels(on_page[MARKED], marked.lesions, frame)
    files = {f"{name}.png": to_png(picture) for name, picture in drawn.items()}
    files |= {f"{ON_PAGE}{name}.jpg": to_jpeg(picture) for name, picture in on_page.items()}
    return files, shown_at


def objects_of(
    view: View,
    marked: MarkedRegions,
    probability: Pixels,
    model: LoadedModel,
    encoding: Encoding,
    kinds: Collection[str],
) -> Made:
    """Make the DICOM objects, or return why there are none."""
    if view.header is None:
        why_not = PREPARED if view.source.entry is not None else NO_HEADER
        return Made({}, dict.fromkeys(kinds, why_not), {})
    origin = Origin(model.facts.weights_sha256, model.facts.plan_sha256, model.threshold)
    subject = Subject(
        view.header, view.facts, view.grey, probability, marked, view.steps, view.pixel
    )
    return make_objects(subject, kinds, encoding, origin)


def _image(view: View) -> dict[str, Any]:
    """Return the record's entries on the image and its geometry."""
    facts, transform = view.facts, view.transform
    return {
        "image": view.identity,
        "source": view.source.name,
        "study": view.study,
        "whose": view.whose,
        "laterality": facts.laterality,
        "laterality_from": facts.laterality_source,
        "view": facts.view,
        "view_from": facts.view_source,
        "vendor": facts.vendor,
        "rows": transform.rows,
        "columns": transform.columns,
        "spacing_mm": facts.spacing_mm,
        "breast_box": [transform.top, transform.bottom, transform.left, transform.right],
        "chest_wall": "right" if transform.flipped else "left",
    }


def _findings(probability: Pixels, marked: MarkedRegions, facts: Facts) -> dict[str, Any]:
    """Describe the marked regions, or that there are none."""
    return {
        "score": float(probability.max()),
        "score_is": "the highest probability of any pixel",
        "marked_pixels": int(marked.mask.sum()),
        "lesions": [
            _lesion(number, lesion, facts) for number, lesion in enumerate(marked.lesions, 1)
        ],
        "lesions_left_out": marked.left_out,
    }


def _lesion(number: int, lesion: Lesion, facts: Facts) -> dict[str, Any]:
    return {
        "number": number,
        "score": lesion.score,
        "peak": lesion.peak,
        "centre_row": lesion.centre_row,
        "centre_column": lesion.centre_column,
        "box": list(lesion.box),
        "pixels": lesion.pixels,
        "area_mm2": lesion.area_mm2,
        "laterality": facts.laterality,
        "view": facts.view,
    }
