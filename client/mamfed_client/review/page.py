"""The page that a radiologist signs off: what a folder holds, and whether it was read rightly."""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from mamfed_client.datasets.mias import TISSUES
from mamfed_client.imaging.doubts import Doubt
from mamfed_client.preparation.ingest import AcceptedImage, Intake
from mamfed_client.review.contact_sheet import ImagePicture, choose, draw, main_category
from mamfed_client.review.distributions import (
    Bars,
    Histogram,
    bars,
    grey_histograms,
    histogram,
    log_histogram,
)
from mamfed_client.review.explanations import EXPLANATIONS
from mamfed_client.review.refused import RefusedPicture, draw_refused
from mamfed_client.review.show import BREAST, LESION
from mamfed_common import __version__
from mamfed_common.domain import Purpose
from mamfed_common.errors import OutputError
from mamfed_common.runtime.files import cannot_write, write_atomic
from mamfed_common.runtime.output_checks import check_file, is_page
from mamfed_common.runtime.wording import counted

ROWS_NAMED = 8
"""Of the rows that share a trouble, so many are named."""

SMALLEST_MM, LARGEST_MM = 1e-6, 1e6
"""Spacings beyond are nonsense, which these show as well."""

SERVES: dict[Purpose, str] = {
    "malignant": "stage 2",
    "benign": "stage 1",
    "without_malignancy": "false alarms",
}
SHEETS: dict[Purpose | None, str] = {
    "malignant": "Malignant, with an outline: stage 2",
    "benign": "Nothing suspicious known of the patient: stage 1",
    "without_malignancy": "Not malignant, but not for stage 1: false alarms are counted on them",
    None: "Readable, but of no use to any stage",
}


BIRADS_DENSITY = "A to D are the densities of BI-RADS, A almost all fat, D extremely dense."
MIAS_DENSITY = (
    "fatty, fatty-glandular and dense-glandular are the three classes of MIAS (its F, G and D), "
    "which are not those of BI-RADS: MIAS' D is not BI-RADS' D."
)
OTHER_DENSITY = "Other words are the table's own."


class CheckSummary(NamedTuple):
    """What was checked, as it stands beside the signature.

    Attributes:
        folder: The folder's name.
        when: When, in UTC.
    """

    folder: str
    when: str


def write_check_page(
    out: Path,
    document: dict[str, Any],
    intake: Intake,
    *,
    folder: Path,
    names: bool = False,
    most: int = 48,
    now: datetime | None = None,
) -> None:
    """Write one HTML file that needs nothing else, readable by its owner only.

    No patient is named. It shows images: it belongs where the images may be.

    Args:
        out: The file to write; an earlier page of a check is replaced, nothing else.
        document: What :func:`mamfed_client.preparation.summary.summarise_intake` counted.
        intake: What was counted.
        folder: The folder that was checked; its name stands beside the signature.
        names: Whether file names are shown.
        most: Number of images on the contact sheet, which are read again; of refused ones there
            are at most half as many more.
        now: When the folder was checked; None: now.

    Raises:
        OutputError: The file cannot be written.
    """
    check_place(out)
    drawn, failed = draw(choose(intake.cases, most))
    refused = draw_refused(intake, most // 2)
    checked = CheckSummary(folder.resolve().name, f"{now or datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    page = _render(document, intake, drawn, failed, refused, checked, names=names)
    try:
        write_atomic(out, page.encode(errors="replace"))  # names may hold bytes that are no UTF-8
    except OSError as error:
        raise cannot_write(out, error) from None


def check_place(out: Path) -> None:
    """Refuse before the work, which may take hours.

    Raises:
        OutputError: The file cannot be written there, or is somebody else's.
    """
    check_file(out, is_page, "page of mamfed's")
    if out.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{out}: the page is HTML; name a file like check.html")


def _render(
    document: dict[str, Any],
    intake: Intake,
    drawn: Sequence[ImagePicture],
    failed: Sequence[int],
    refused: Sequence[RefusedPicture],
    checked: CheckSummary,
    *,
    names: bool,
) -> str:
    environment = Environment(
        loader=PackageLoader("mamfed_client.review"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(counted=counted, base64=lambda data: b64encode(data).decode())
    return environment.get_template("check.html").render(
        document=document,
        checked=checked,
        points=_points(document, failed),
        explanations=EXPLANATIONS,
        rejected_rows=_rejected_rows(intake),
        counts=_counts(document, intake.cases),
        grey=_grey(drawn),
        histograms=_histograms(intake.cases, drawn),
        refused=refused,
        doubtful=[picture for picture in drawn if picture.case.doubts],
        doubted=_doubted(intake.cases),
        sheets=[
            (SHEETS[purpose], list(group))
            for purpose, group in groupby(
                (picture for picture in drawn if not picture.case.doubts), _listed_by
            )
        ],
        serves=_serves,
        drawn=len(drawn),
        names=names,
        breast=_css(BREAST),
        lesion=_css(LESION),
        version=__version__,
    )


def _points(document: dict[str, Any], failed: Sequence[int]) -> list[tuple[str, str]]:
    """List what is to be known, or looked at, before the folder is used; and of how many."""
    counts = [
        ("Doubtful: to be looked at first", document["doubtful_images"], "image"),
        ("Cannot be used", sum(document["rejected"].values()), "image"),
        ("Kept out of a stage by a rule", sum(document["left_out"].values()), "image"),
        ("Side of the breast not known", document["lateralities"].get("unknown", 0), "image"),
        ("Vendor not known", document["vendors"].get("unknown", 0), "image"),
        ("No pixel spacing: sizes in mm not known", document["without_spacing"], "image"),
        ("Outline of another size than its image, resampled", document["masks_resampled"], "mask"),
        ("Same picture under several patients", document["patients_sharing_a_picture"], "patient"),
        (f"Could not be drawn again ({_rows(failed)})", len(failed), "image"),
    ]
    return [(text, counted(count, noun)) for text, count, noun in counts if count]


def _doubted(cases: Iterable[AcceptedImage]) -> list[tuple[Doubt, int, str]]:
    """Name rows by doubt, in the order of pictures."""
    rows: defaultdict[Doubt, list[int]] = defaultdict(list)
    for case in cases:
        for doubt in dict.fromkeys(found.doubt for found in case.doubts):
            rows[doubt].append(case.row.row_number)
    return [(doubt, len(rows[doubt]), _rows(rows[doubt])) for doubt in Doubt if doubt in rows]


def _rejected_rows(intake: Intake) -> dict[str, str]:
    """Name rows by reason: a number says where to look, and nothing of a patient."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for rejected in intake.rejected:
        rows[str(rejected.reason)].append(rejected.row_number)
    return {reason: _rows(numbers) for reason, numbers in rows.items()}


def _rows(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:ROWS_NAMED])
    more = len(numbers) - ROWS_NAMED
    return f"{'row' if len(numbers) == 1 else 'rows'} {shown}" + (
        f" and {more:,} more" if more > 0 else ""
    )


def _counts(document: dict[str, Any], cases: Sequence[AcceptedImage]) -> list[Bars]:
    without = document["without_spacing"]
    groups = {
        "Vendor": document["vendors"],
        "View": document["views"],
        "View read from": document["view_from"],
        "Side": document["lateralities"],
        "Side read from": document["laterality_from"],
        "Breast density": document["densities"],
        "Label": document["labels"],
        "Pixel spacing": {"known": len(cases) - without, "unknown": without},
        "Lesion outlined": _outlines(cases),
    }
    notes = {"Breast density": _density_note(document["densities"])}
    return [bars(title, counts, notes.get(title, "")) for title, counts in groups.items()]


def _density_note(counts: Mapping[str, int]) -> str:
    """Explain the scales of the densities that were counted."""
    words = counts.keys() - {"unknown"}
    scales = {
        BIRADS_DENSITY: words & set("ABCD"),
        MIAS_DENSITY: words & {*TISSUES.values(), "F", "G"},
    }
    others = words - set().union(*scales.values())
    said = [text for text, found in scales.items() if found]
    return " ".join([*said, OTHER_DENSITY] if others else said)


def _outlines(cases: Iterable[AcceptedImage]) -> dict[str, int]:
    counts = {"on the image's grid": 0, "on another, resampled": 0, "not outlined": 0}
    as_drawn, resampled, none = counts
    for case in cases:
        outlined = as_drawn if not case.outcome.resampled else resampled
        counts[outlined if case.outcome.lesion_share > 0 else none] += 1
    return counts


def _grey(drawn: Iterable[ImagePicture]) -> list[Histogram]:
    levels = defaultdict(list)
    for picture in sorted(drawn, key=lambda d: d.case.row.vendor or "unknown"):
        levels[picture.case.row.vendor or "unknown"].append(picture.levels)
    return grey_histograms(levels)


def _histograms(cases: Sequence[AcceptedImage], drawn: Sequence[ImagePicture]) -> list[Histogram]:
    """Measure all images, but for the breast, which only those that were drawn tell."""
    shares, spacings_mm = _lesion_shares(cases), _spacings_mm(cases)
    areas_mm2 = {
        row: shares[row] * c.outcome.rows * c.outcome.columns * spacings_mm[row] ** 2
        for c in cases
        if (row := c.row.row_number) in shares and row in spacings_mm
    }
    found = [
        histogram("Height of the image", {c.row.row_number: c.outcome.rows for c in cases}, " px"),
        histogram("Pixel spacing", spacings_mm, " mm"),
        histogram(
            "Share of the image that is breast",
            {d.case.row.row_number: 100 * d.breast_share for d in drawn},
            "%",
        ),
        log_histogram(
            "Share of the image that is lesion", {r: 100 * s for r, s in shares.items()}, "%"
        ),
        log_histogram("Area of the lesion", areas_mm2, " mm²"),
    ]
    return [drawing for drawing in found if drawing is not None]


def _lesion_shares(cases: Iterable[AcceptedImage]) -> dict[int, float]:
    return {c.row.row_number: c.outcome.lesion_share for c in cases if c.outcome.lesion_share > 0}


def _spacings_mm(cases: Iterable[AcceptedImage]) -> dict[int, float]:
    """Take spacings as they are said, but none whose square is no number."""
    return {
        c.row.row_number: min(max(c.row.spacing_mm, SMALLEST_MM), LARGEST_MM)
        for c in cases
        if c.row.spacing_mm is not None
    }


def _listed_by(drawn: ImagePicture) -> Purpose | None:
    return main_category(drawn.case)


def _serves(case: AcceptedImage) -> str:
    return ", ".join(text for purpose, text in SERVES.items() if purpose in case.purposes)


def _css(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{level:02x}" for level in colour)
