"""``mamfed-client data show``: draw one prepared image as a picture."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.mammogram import Mask
from mamfed_client.preparation.ingest import AcceptedImage
from mamfed_client.preparation.prepared_folder import load_intake, open_store
from mamfed_common.errors import DataError, OutputError
from mamfed_common.runtime.bounded import STATE_BYTES, read_bytes
from mamfed_common.runtime.files import cannot_write, write_atomic
from mamfed_common.runtime.output_checks import check_file
from mamfed_common.transforms.sample import Sample

Picture = npt.NDArray[np.uint8]
Draw = Callable[[Sample], npt.NDArray[Any]]

BREAST, LESION = (230, 159, 0), (213, 94, 0)
"""Okabe and Ito's orange and vermilion, which colour-blind readers can distinguish from grey."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MARK = b"tEXtSoftware\0mamfed-client data show"
"""Type and content of the PNG chunk that identifies our own pictures."""
PANEL = 768
"""Longest side of a panel in pixels."""


def show_row(
    folder: Path,
    row_number: int,
    out: Path | None,
    draw: Draw,
    *,
    key_path: Path | None = None,
) -> dict[str, Any]:
    """Write a PNG of a sample; return the facts about it.

    Args:
        folder: A prepared folder.
        row_number: The image's row in the original table or listing.
        out: The picture to write, which may replace an earlier one of ours. None uses a default
            name in the current folder, where no other picture is replaced.
        draw: What the picture shows: :func:`panels` or :func:`sample_alone`.
        key_path: Key of an encrypted folder.

    Raises:
        DataError: The folder, row or sample does not exist.
        OutputError: Another picture or file exists, or the picture cannot be written.
    """
    is_named, out = out is not None, out or Path(f"row-{row_number}{NAME_SUFFIX[draw]}.png")
    check_file(out, _is_picture, "picture of mamfed's")
    if out.suffix.lower() != ".png":
        raise OutputError(f"{out}: not a .png file; use a name like row-{row_number}.png")
    intake, size, encrypted = load_intake(folder)
    case = next((c for c in intake.accepted if c.row.row_number == row_number), None)
    if case is None:
        raise DataError(f"{folder}: row {row_number} {_why_not(intake.rejected, row_number)}")
    store = open_store(folder, key_path, encrypted=encrypted)
    entry = store.find(case.result.digest) if case.result.digest else None
    if entry is None:
        raise DataError(f"{folder}: row {row_number} serves no stage and has no sample")
    sample = entry.load(case.row.image)
    picture = draw(sample)
    _, encoded = cv2.imencode(".png", picture if picture.ndim == 2 else picture[..., ::-1])
    _write(out, _marked(encoded.tobytes()), replace=is_named)
    return _facts(case, sample, size) | {"picture": str(out)}


def _write(out: Path, content: bytes, *, replace: bool) -> None:
    """Write a picture; a default file name never replaces another picture."""
    try:
        if not replace and out.exists() and read_bytes(out, STATE_BYTES) not in (b"", content):
            raise OutputError(f"{out}: another picture exists; name a new file with --out")
        write_atomic(out, content)
    except OSError as error:
        raise cannot_write(out, error) from None


def _marked(png: bytes) -> bytes:
    """Insert a chunk that names mamfed after a PNG's header (PNG 11.2.1, 11.3.3.2)."""
    end = len(PNG_SIGNATURE) + 25
    check = zlib.crc32(MARK).to_bytes(4, "big")
    chunk = (len(MARK) - 4).to_bytes(4, "big") + MARK + check
    return png[:end] + chunk + png[end:]


def _is_picture(head: bytes) -> bool:
    return head.startswith(PNG_SIGNATURE) and MARK in head


def sample_alone(sample: Sample) -> npt.NDArray[np.uint16]:
    """Return the network's input, ``(S, S)`` uint16, for use with an exported network."""
    return sample.image


def panels(sample: Sample) -> Picture:
    """Return image, outlines and mask side by side, ``(H, 3 W, 3)`` uint8 in RGB."""
    side = min(PANEL, sample.image.shape[0])
    grey = cv2.resize(
        (sample.image >> 8).astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA
    )
    breast_mask, mask = (shrunk(flags, (side, side)) for flags in (sample.breast_mask, sample.mask))
    image: Picture = np.repeat(grey[..., None], 3, axis=-1)
    outlined = image.copy()
    for flags, colour in ((breast_mask, BREAST), (mask, LESION)):
        outline(outlined, flags, colour)
    black: Picture = np.zeros_like(image)
    black[mask] = 255
    return np.concatenate([image, outlined, black], axis=1)


NAME_SUFFIX: dict[Draw, str] = {panels: "", sample_alone: "-sample"}
"""Suffix of a picture's default file name, by what it shows."""


def outline(picture: Picture, flags: Mask, colour: tuple[int, int, int]) -> None:
    """Outline the true pixels in an RGB picture of the same height and width, in place."""
    lines, _ = cv2.findContours(flags.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, lines, -1, colour, max(1, picture.shape[0] // 400))


def thickened(flags: Mask, reach: int) -> Mask:
    """Dilate a finding so that its outline stays clear of it: a calcification may be tiny."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    wide: Mask = cv2.dilate(flags.astype(np.uint8), kernel) > 0
    return wide


def shrunk(flags: Mask, size: tuple[int, int]) -> Mask:
    """Shrink flags to a width and a height so that a single true pixel stays visible."""
    share = cv2.resize(flags.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    small: Mask = np.asarray(share > 0)
    return small


def _why_not(rejected: Any, row_number: int) -> str:
    reasons = [r.reason for r in rejected if r.row_number == row_number]
    return f"was rejected: {reasons[0]}" if reasons else "is not a row of this folder"


def _facts(case: AcceptedImage, sample: Sample, size: int) -> dict[str, Any]:
    result = case.result
    return {
        "row": case.row.row_number,
        "laterality": result.laterality,
        "laterality_from": result.laterality_source,
        "view": result.view,
        "view_from": result.view_source,
        "vendor": result.vendor,
        "model": result.model,
        "spacing_mm": result.spacing_mm,
        "file_size": [result.columns, result.rows],
        "size": size,
        "serves": sorted(case.purposes),
        "breast_share": round(float(sample.breast_mask.mean()), 4),
        "lesion_pixels": int(sample.mask.sum()),
    }
