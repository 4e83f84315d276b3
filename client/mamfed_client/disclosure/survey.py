"""Describe a site's data in counts that a person sends to the coordinator before there is a plan.

Each count and value rests on ``policy.min_patients_to_report`` patients or stays here. Counts are
rounded down to multiples of that number, and values to two digits. This blurs the difference of
two surveys, and does not rule out that one more patient tips a figure: a site writes few of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mamfed_client.disclosure.audit_log import AuditLog
from mamfed_client.disclosure.patients_behind import is_too_few
from mamfed_client.disclosure.release import OTHER_VENDOR, known_vendor
from mamfed_client.preparation.cohort import parts_of, read_images
from mamfed_client.preparation.ingest import AcceptedImage
from mamfed_client.preparation.patient_split import declared_parts
from mamfed_client.preparation.prepare_row import CHECK_SIZE
from mamfed_client.preparation.sample_store import StoredSample
from mamfed_client.preparation.site_data import division_of
from mamfed_client.site.identity import load_node_key, load_welcome
from mamfed_client.site.settings import SiteHome, SiteSettings
from mamfed_common.domain import PARTS, PURPOSES, Part
from mamfed_common.errors import SetupError
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.files import write_atomic
from mamfed_common.runtime.terminal import reading_progress
from mamfed_common.runtime.wording import counted
from mamfed_common.security.survey import (
    MEASURES,
    PART_WORDS,
    Cell,
    Figure,
    Measure,
    Medium,
    Survey,
)

MEASURED = 500
"""Most images that are opened, drawn from all: enough for quartiles."""
FILM = frozenset({"cbis-ddsm", "mini-mias"})
DIGITAL = frozenset({"inbreast", "vindr-mammo", "cdd-cesm"})
"""Layouts of public data sets, which say what their images were taken with."""
TONES: dict[int, Measure] = {
    5: "tone_5", 25: "tone_25", 50: "tone_50", 75: "tone_75", 95: "tone_95"
}  # fmt: skip


class _Image(NamedTuple):
    """An image with the data set it is of, whose numbers of patients may also be another's."""

    data_set: str
    layout: str
    case: AcceptedImage
    entry: StoredSample
    part: Part | None = None

    @property
    def patient(self) -> tuple[str, str]:
        return self.data_set, self.case.row.patient_id

    @property
    def maker(self) -> str:
        return known_vendor(self.case.row.vendor or "unknown")


def describe_site(settings: SiteSettings, plan: TrainingPlan | None = None) -> Survey:
    """Count and measure a site's usable images; the survey is not signed yet.

    Args:
        settings: The site's.
        plan: Draws the parts of patients whose table does not say them; None: only tables do.

    Raises:
        DataError: A data set cannot be used.
        OutputError: A prepared folder, which keeps its parts, cannot be written.
    """
    minimum, images = settings.policy.min_patients_to_report, _read(settings, plan)
    groups = {
        "uses": _grouped(images, lambda image: image.case.purposes),
        "makers": _grouped(images, lambda image: [image.maker]),
        "views": _grouped(images, lambda image: [_view(image)]),
        "media": _grouped(images, lambda image: [_medium(image)]),
    }
    cells = {name: _cells(each, minimum) for name, each in groups.items()}
    values = _measured(images)
    figures = {m: f for m, each in values.items() if (f := _figure(each, minimum))}
    kept = sum(len(groups[name]) - len(cells[name]) for name in groups)
    divided = _divided(groups["uses"])
    parts = {use: _cells(each, minimum) for use, each in divided.items()}
    kept += sum(len(divided[use]) - len(parts[use]) for use in divided)
    return Survey.model_validate(
        {
            "site": settings.name,
            "minimum": minimum,
            **cells,
            "parts": {use: each for use, each in parts.items() if each},
            "measures": figures,
            "withheld": kept + len(values) - len(figures),
        }
    )


def release_survey(home: SiteHome, settings: SiteSettings, survey: Survey, out: Path) -> Survey:
    """Sign a survey, record it in the audit log, and only then write it (0600).

    Raises:
        AuditError: The log is damaged or cannot be written; then nothing is written.
        SetupError: The node's key cannot be used.
    """
    key = load_node_key(home)
    signed = survey.signed(key)
    text = signed.model_dump_json(indent=1) + "\n"
    AuditLog(home.audit, key).append(
        "survey",
        policy_sha256=settings.policy.sha256(),
        bytes=len(text.encode()),
        values=survey.model_dump(mode="json", exclude={"signature"}),
        to=_receiver(home),
    )
    write_atomic(out, text)
    return signed


def lines_of(survey: Survey) -> Iterator[str]:
    """Yield all that a survey holds, in words, one line each."""
    yield f"site: {survey.site}"
    for title, cells in (
        ("use", survey.uses),
        ("maker", survey.makers),
        ("view", survey.views),
        ("taken as", survey.media),
    ):
        for name, cell in cells.items():
            images, patients = counted(cell.images, "image"), counted(cell.patients, "patient")
            yield f"{title} {name.replace('_', ' ')}: {patients}, {images} at least"
    for purpose, by_part in survey.parts.items():
        told = (
            f"{PART_WORDS[p]} {counted(cell.patients, 'patient')}" for p, cell in by_part.items()
        )
        yield f"{purpose.replace('_', ' ')} by part: {', '.join(told)} at least"
    for measure, figure in survey.measures.items():
        quartiles = "quartiles stay here"
        if figure.quartiles:
            quartiles = "quartiles " + ", ".join(f"{value:g}" for value in figure.quartiles)
        patients = f"at least {counted(figure.patients, 'patient')}"
        yield f"{MEASURES[measure]}: mean {figure.mean:g}, {quartiles} ({patients})"
    yield (
        f"withheld: {counted(survey.withheld, 'figure')} over fewer than "
        f"{counted(survey.minimum, 'patient')}"
    )


def _read(settings: SiteSettings, plan: TrainingPlan | None) -> list[_Image]:
    site, images = settings.site(), list[_Image]()
    for name, folder in site.cohorts:
        intake, found = read_images(
            name, folder, size=CHECK_SIZE, cache_dir=site.cache, key_path=site.key_path
        )
        parts = declared_parts(intake.statements) or {}
        if not parts and plan is not None:
            usable = [case for case, _ in found]
            parts = parts_of(name, folder, intake, usable, *division_of(plan))
        images += [
            _Image(name, intake.layout, case, entry, parts.get(case.row.patient_id))
            for case, entry in found
        ]
    return images


def _divided(uses: Mapping[str, Sequence[_Image]]) -> dict[str, dict[str, list[_Image]]]:
    """Group the images of each use by part; nothing if the part of an image is not known."""
    if any(image.part is None for group in uses.values() for image in group):
        return {}
    found = {use: _grouped(group, lambda image: [str(image.part)]) for use, group in uses.items()}
    return {use: {part: by[part] for part in PARTS if part in by} for use, by in found.items()}


def _receiver(home: SiteHome) -> str:
    try:
        return load_welcome(home).federation
    except SetupError:
        return "a coordinator, before this site joined"


def _view(image: _Image) -> str:
    view = image.case.row.view or "unknown"
    return view if view in {"CC", "MLO", "ML", "LM", "unknown"} else "other"


def _medium(image: _Image) -> Medium:
    if image.layout in FILM:
        return "film"
    is_unit = image.maker not in {OTHER_VENDOR, "unknown"}
    return "digital" if image.layout in DIGITAL or is_unit else "unknown"


def _grouped(
    images: Iterable[_Image], keys: Callable[[_Image], Iterable[str]]
) -> dict[str, list[_Image]]:
    groups: dict[str, list[_Image]] = {}
    for image in images:
        for key in keys(image):
            groups.setdefault(key, []).append(image)
    order = list(PURPOSES)
    return dict(sorted(groups.items(), key=lambda item: (*(item[0] != p for p in order), item[0])))


def _cells(groups: Mapping[str, Sequence[_Image]], minimum: int) -> dict[str, Cell]:
    """Count each group that has enough patients."""
    return {
        name: Cell(
            patients=_down(len({i.patient for i in group}), minimum),
            images=_down(len(group), minimum),
        )
        for name, group in groups.items()
        if not is_too_few(_persons(i.patient for i in group), minimum)
    }


def _persons(patients: Iterable[tuple[str, str]]) -> set[str]:
    """Return patients by number alone: in two data sets, one number may be one person."""
    return {number for _, number in patients}


def _down(count: int, minimum: int) -> int:
    return count // minimum * minimum


def _measured(
    images: Sequence[_Image],
) -> dict[Measure, dict[tuple[str, str], list[float]]]:
    """Measure images, each value by patient."""
    values: dict[Measure, dict[tuple[str, str], list[float]]] = {}
    chosen = np.random.default_rng(0).permutation(len(images))[:MEASURED]
    with reading_progress("measuring", len(chosen)) as advance:
        for image in (images[position] for position in sorted(chosen)):
            for measure, value in _values(image):
                values.setdefault(measure, {}).setdefault(image.patient, []).append(value)
            advance(1, 0)
    return {measure: values[measure] for measure in MEASURES if measure in values}


def _values(image: _Image) -> Iterator[tuple[Measure, float]]:
    found, spacing = image.case.result, image.case.row.spacing_mm
    sample, scale = image.entry.load("an image"), image.entry.transform().scale
    breast_pixels = np.count_nonzero(sample.breast_mask) / scale**2
    yield "rows", found.rows
    yield "columns", found.columns
    yield "breast_share", breast_pixels / (found.rows * found.columns)
    if spacing is not None:
        yield "spacing_mm", spacing
        yield "breast_cm2", breast_pixels * spacing**2 / 100
    inside: npt.NDArray[np.uint16] = sample.image[sample.breast_mask]
    for percent, tone in zip(TONES, np.percentile(inside, list(TONES)) / 65535, strict=True):
        yield TONES[percent], float(tone)


def _figure(values: Mapping[tuple[str, str], Sequence[float]], minimum: int) -> Figure | None:
    """Return the mean and, where enough patients lie beyond each, the quartiles."""
    if is_too_few(_persons(values), minimum):
        return None
    own = [float(np.median(each)) for each in values.values()]
    quartiles = None
    if len(_persons(values)) >= 4 * minimum:
        low, middle, high = (_two_digits(q) for q in np.percentile(own, (25, 50, 75)))
        quartiles = (low, middle, high)
    mean = _two_digits(float(np.mean(own)))
    return Figure(patients=_down(len(own), minimum), mean=mean, quartiles=quartiles)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
