"""HTML pages for readers: one per study, hung as radiologists expect, and a list of studies."""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from mamfed_client.prediction.account import contradictions
from mamfed_client.prediction.answer import (
    DIFFERENCE,
    HEALTHY,
    MARKED,
    ON_PAGE,
    RECONSTRUCTION,
)
from mamfed_client.prediction.folder import STUDIES, PredictionFolder, Record
from mamfed_client.prediction.kinds import WORDS
from mamfed_client.prediction.pictures import small_jpeg
from mamfed_common import __version__
from mamfed_common.runtime.bounded import STATE_BYTES, open_regular, read_bytes
from mamfed_common.runtime.files import cannot_write, write_atomic
from mamfed_common.runtime.fingerprint import sha256_of
from mamfed_common.runtime.wording import counted

INDEX = "index.html"
PAGE_VERSION = 5
"""Increase it with every change to a page."""
FINGERPRINT = '<meta name="mamfed-fingerprint" content="{}">'
HEAD = 1024
"""Number of bytes at the start of a page that contain its fingerprint."""
USUAL_VIEWS = ("CC", "MLO")
"""In hanging order, from top to bottom."""


class HungImage(NamedTuple):
    """An image on a page.

    Attributes:
        record: Its record.
        pictures: JPEG files by name: the marked image; the image repainted with healthy tissue, if
            the model has a painter; what the network subtracts and the difference, if it subtracts.
        mirrored: Whether the page shows the image mirrored relative to its file.
    """

    record: Record
    pictures: dict[str, bytes]
    mirrored: bool


class FindingStrength(NamedTuple):
    """The strength of a study's marked regions, by which studies are ordered, highest first.

    The highest probability of a pixel cannot order studies: with a trained network it is 1.00 in
    most of them. The mean of a region is lower, because it includes the region's rim.

    Attributes:
        region: Mean probability of the strongest region, as in the FROC curve; 0 if nothing is
            marked.
        pixel: Highest probability of any pixel.
        area_mm2: Area of the strongest region; 0 if there is none or the spacing is unknown.
    """

    region: float
    pixel: float
    area_mm2: float


class HangingRow(NamedTuple):
    """The images of one view, side by side.

    Attributes:
        view: The view's name.
        right: Images of the right breast, which hang on the left.
        left: Images of the left breast.
    """

    view: str
    right: list[HungImage]
    left: list[HungImage]


class Study(NamedTuple):
    """A study in the list.

    Attributes:
        name: Its pseudonym.
        files: Its images' files, each with its folder, as the user knows them.
        patient: The patient's number; empty unless the site's policy lets pages show it.
        images: Number of images.
        marked: Number of images with marked regions.
        strength: Strength of its regions, see :func:`strength_of`.
        views: Sides and views.
        thumbnail: JPEG of the image with the strongest region; None if it was removed.
    """

    name: str
    files: list[str]
    patient: str
    images: int
    marked: int
    strength: FindingStrength
    views: str
    thumbnail: bytes | None


def write_pages(folder: PredictionFolder, document: dict[str, Any]) -> None:
    """Write the pages of changed studies and the list of all studies; remove outdated pages.

    Each page contains a fingerprint of its records and of the code that draws it.

    Args:
        folder: The predictions.
        document: The content of ``predictions.json``.

    Raises:
        OutputError: A page cannot be written.
    """
    by_study: defaultdict[str, list[Record]] = defaultdict(list)
    for record in document["per_image"]:
        by_study[record["study"]].append(record)
    environment = _environment()
    study_page, index_page = (environment.get_template(n) for n in ("study.html", INDEX))
    common = {"model": document["model"], "version": __version__, "notice": document["notice"]}
    try:
        for path in (folder.path / STUDIES).glob("*.html"):
            if path.stem not in by_study:
                path.unlink()
        for name, records in by_study.items():
            path = folder.path / STUDIES / f"{name}.html"
            shows = sha256_of([PAGE_VERSION, __version__, records])
            if not _has_page(path, shows):
                page = study_page.render(**_study(folder, records), **common, fingerprint=shows)
                write_atomic(path, page.encode(errors="replace"))
        listed = sorted(
            (_summary(folder, name, records) for name, records in by_study.items()),
            key=lambda study: (*(-part for part in study.strength), study.name),
        )
        page = index_page.render(studies=listed, document=document, **common)
        write_atomic(folder.path / INDEX, page.encode(errors="replace"))
    except OSError as error:
        raise cannot_write(folder.path, error) from None


def _has_page(path: Path, shows: str) -> bool:
    """Return whether a page has this fingerprint; an interrupted call may not have written it."""
    try:
        with open_regular(path) as file:
            return FINGERPRINT.format(shows).encode() in file.read(HEAD)
    except OSError:
        return False


def hang(images: Iterable[HungImage]) -> tuple[list[HangingRow], list[HungImage]]:
    """Arrange images as radiologists hang them: CC above MLO, the right breast on the left.

    Returns:
        The rows, with other views after the usual ones, and the images of unknown side.
    """
    rows = {view: HangingRow(view, [], []) for view in USUAL_VIEWS}
    unknown = []
    for image in images:
        side, view = image.record["laterality"], image.record["view"] or "view unknown"
        if side is None:
            unknown.append(image)
            continue
        row = rows.setdefault(view, HangingRow(view, [], []))
        (row.right if side == "R" else row.left).append(image)
    return [row for row in rows.values() if row.right or row.left], unknown


def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("mamfed_client.prediction"), PackageLoader("mamfed_client.review")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        counted=counted,
        base64=lambda data: b64encode(data).decode(),
        file=file_of,
        probability=probability_text,
    )
    return environment


def _study(folder: PredictionFolder, records: Sequence[Record]) -> dict[str, Any]:
    images = [_hung(folder, record) for record in records]
    rows, unknown = hang(images)
    return {
        "study": records[0]["study"],
        "records": records,
        "contradictions": contradictions(records),
        "rows": rows,
        "unknown": unknown,
        "ordered": [*(i for row in rows for i in (*row.right, *row.left)), *unknown],
        "marked": sum(bool(r["lesions"]) for r in records),
        "strength": strength_of(records),
        "patient": _patient(records),
        "words": WORDS,
        "panels": {
            MARKED: "marked",
            HEALTHY: "repainted as healthy tissue",
            RECONSTRUCTION: "subtracted picture",
            DIFFERENCE: "difference to the subtracted picture",
        },
    }


def _hung(folder: PredictionFolder, record: Record) -> HungImage:
    """Read an image's pictures, without those that have been removed."""
    pictures = {}
    for name in (MARKED, HEALTHY, RECONSTRUCTION, DIFFERENCE):
        path = folder.image(record["image"]) / f"{ON_PAGE}{name}.jpg"
        if path.is_file():
            pictures[name] = read_bytes(path, STATE_BYTES)
    side = record["laterality"]
    hung_side = record["chest_wall"] if side is None else {"R": "right", "L": "left"}[side]
    return HungImage(record, pictures, record["chest_wall"] != hung_side)


def strength_of(records: Sequence[Record]) -> FindingStrength:
    """Return the strength of the marked regions on a study's images."""
    regions = [(x["score"], x["area_mm2"] or 0.0) for r in records for x in r["lesions"]]
    region, area_mm2 = max(regions, default=(0.0, 0.0))
    return FindingStrength(region, max(r["score"] for r in records), area_mm2)


def probability_text(value: float, digits: int = 2) -> str:
    """Format a probability so that one near 1 does not look like certainty."""
    if value >= 0.9995:
        return "over 0.999"
    return f"{value:.3f}" if value >= 0.995 else f"{value:.{digits}f}"


def file_of(source: str) -> str:
    """Return a source's file name with its folder, which tells patients apart."""
    path = Path(source)
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def _summary(folder: PredictionFolder, name: str, records: Sequence[Record]) -> Study:
    views = sorted({f"{r['laterality'] or '?'} {r['view'] or '?'}" for r in records})
    return Study(
        name=name,
        files=[file_of(record["source"]) for record in records],
        patient=_patient(records),
        images=len(records),
        marked=sum(bool(r["lesions"]) for r in records),
        strength=strength_of(records),
        views=", ".join(views),
        thumbnail=_thumbnail(folder, max(records, key=lambda r: strength_of([r]))),
    )


def _patient(records: Sequence[Record]) -> str:
    """Return the patient numbers in the records, which hold them only if the policy allows it."""
    return ", ".join(dict.fromkeys(r["patient"] for r in records if r.get("patient")))


def _thumbnail(folder: PredictionFolder, record: Record) -> bytes | None:
    """Return the picture of the study's page, reduced for the list."""
    path = folder.image(record["image"]) / f"{ON_PAGE}{MARKED}.jpg"
    return small_jpeg(read_bytes(path, STATE_BYTES)) if path.is_file() else None
