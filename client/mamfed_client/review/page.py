"""Write the page that a radiologist signs off: a folder's contents, and whether they look right."""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from mamfed_client.imaging.doubts import Doubt
from mamfed_client.preparation.ingest import AcceptedImage, Intake
from mamfed_client.review.charts import counts_by_property, distributions, grey_levels
from mamfed_client.review.contact_sheet import ImagePicture, choose, draw, main_category
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
"""Maximum rows listed per rejection reason."""

SERVES: dict[Purpose, str] = {
    "malignant": "stage 2",
    "benign": "stage 1",
    "without_malignancy": "false alarms",
}
SHEETS: dict[Purpose | None, str] = {
    "malignant": "Malignant with an outline: stage 2",
    "benign": "Patients without any suspicious finding: stage 1",
    "without_malignancy": "Not malignant, but excluded from stage 1: used to count false alarms",
    None: "Readable, but not used by any stage",
}


class CheckSummary(NamedTuple):
    """What was checked and when, as shown in the sign-off.

    Attributes:
        folder: The folder's name.
        when: Time of the check, in UTC.
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
    """Write one self-contained HTML file that only its owner can read.

    It names no patient, but shows images: keep it only where the images may be kept.

    Args:
        out: The file to write; only an earlier page of a check is replaced.
        document: The counts of :func:`mamfed_client.preparation.summary.summarise_intake`.
        intake: The intake that was counted.
        folder: The folder that was checked; the sign-off shows its name.
        names: Whether to show file names.
        most: Maximum images on the contact sheet, which are read again; up to half as many
            rejected images are added.
        now: Time of the check; None uses the current time.

    Raises:
        OutputError: The file cannot be written.
    """
    check_place(out)
    drawn, failed = draw(choose(intake.accepted, most))
    refused = draw_refused(intake, most // 2)
    checked = CheckSummary(folder.resolve().name, f"{now or datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    page = _render(document, intake, drawn, failed, refused, checked, names=names)
    try:
        write_atomic(out, page.encode(errors="replace"))  # file names may not be valid UTF-8
    except OSError as error:
        raise cannot_write(out, error) from None


def check_place(out: Path) -> None:
    """Check the path before starting work that may take hours.

    Raises:
        OutputError: The file cannot be written, or is not a page of mamfed's.
    """
    check_file(out, is_page, "page of mamfed's")
    if out.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{out}: not an .html file; use a name like check.html")


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
    return _template().render(
        document=document,
        checked=checked,
        points=_points(document, failed),
        explanations=EXPLANATIONS,
        rejected_rows=_rejected_rows(intake),
        counts=counts_by_property(document, intake.accepted),
        grey=grey_levels(drawn),
        histograms=distributions(intake.accepted, drawn),
        refused=refused,
        doubtful=[picture for picture in drawn if picture.case.doubts],
        doubted=_doubted(intake.accepted),
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


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("mamfed_client.review"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(counted=counted, base64=lambda data: b64encode(data).decode())
    return environment.get_template("check.html")


def _points(document: dict[str, Any], failed: Sequence[int]) -> list[tuple[str, str]]:
    """List the points to consider before using the folder, with the number of images affected."""
    counts = [
        ("Doubtful, to be reviewed first", document["doubtful_images"], "image"),
        ("Rejected, cannot be used", sum(document["rejected"].values()), "image"),
        ("Excluded from a stage by a rule", sum(document["left_out"].values()), "image"),
        ("Laterality unknown", document["lateralities"].get("unknown", 0), "image"),
        ("Vendor unknown", document["vendors"].get("unknown", 0), "image"),
        ("Pixel spacing unknown, so no sizes in mm", document["without_spacing"], "image"),
        ("Mask of another size than its image, resampled", document["masks_resampled"], "mask"),
        ("Same picture under several patients", document["patients_sharing_a_picture"], "patient"),
        (f"Could not be read again ({_rows(failed)})", len(failed), "image"),
    ]
    return [(text, counted(count, noun)) for text, count, noun in counts if count]


def _doubted(cases: Iterable[AcceptedImage]) -> list[tuple[Doubt, int, str]]:
    """List the rows of each doubt, in the order of the pictures."""
    rows: defaultdict[Doubt, list[int]] = defaultdict(list)
    for case in cases:
        for doubt in dict.fromkeys(doubtful.doubt for doubtful in case.doubts):
            rows[doubt].append(case.row.row_number)
    return [(doubt, len(rows[doubt]), _rows(rows[doubt])) for doubt in Doubt if doubt in rows]


def _rejected_rows(intake: Intake) -> dict[str, str]:
    """List the rows of each rejection reason; row numbers reveal nothing about a patient."""
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


def _listed_by(drawn: ImagePicture) -> Purpose | None:
    return main_category(drawn.case)


def _serves(case: AcceptedImage) -> str:
    return ", ".join(text for purpose, text in SERVES.items() if purpose in case.purposes)


def _css(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{level:02x}" for level in colour)
