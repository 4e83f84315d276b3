"""The result type of annotation readers, and helpers that they share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mamfed_client.annotations.shapes import Shape
from mamfed_client.imaging.mammogram import Mask
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_common.runtime import bounded
from mamfed_common.runtime.files import refusal_words
from mamfed_common.runtime.text import NotTextError, decode_text


class NamedMask(NamedTuple):
    """A mask ``(H, W)`` bool with its class or value as named in the file; empty if unnamed."""

    mask: Mask
    name: str = ""


class Outlines(NamedTuple):
    """All regions, of any class, that a file marks in an image.

    Attributes:
        shapes: The outlines, in pixels of ``grid``.
        masks: The masks, each with its own size.
        grid: Rows and columns of the image as stated in the file; None if not stated.
        listed: Whether the file mentions the image at all.
        declared: Names of all classes in the file, including those of other images.
        by_value: Whether masks are named by pixel value.
        by_program: Whether a program made the regions, without any record of a review.
        of_another: Whether the file refers by SOP Instance UID to an image other than this one.
    """

    shapes: tuple[Shape, ...] = ()
    masks: tuple[NamedMask, ...] = ()
    grid: tuple[int, int] | None = None
    listed: bool = True
    declared: frozenset[str] = frozenset()
    by_value: bool = False
    by_program: bool = False
    of_another: bool = False


MASK_REASONS = frozenset(
    {Reason.UNREADABLE_MASK, Reason.MASK_SIZE, Reason.EMPTY_MASK, Reason.UNKNOWN_CLASS}
)
"""Reasons specific to annotations; others come from code shared with image readers."""


def unreadable(detail: str) -> FileRejected:
    """Return a rejection of an annotation file as unreadable."""
    return FileRejected(Reason.UNREADABLE_MASK, detail)


@contextmanager
def errors_as_unreadable() -> Iterator[None]:
    """Turn any exception, except MemoryError, into a rejection of the annotation.

    pydicom alone has been seen to raise nine exception classes. Their messages, and warnings, may
    quote the file, so they are discarded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FileRejected as error:
        if error.reason in MASK_REASONS:
            raise
        raise unreadable(str(error)) from None
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(f"{type(error).__name__} while reading the annotation") from None


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file of at most ``limit`` bytes.

    Raises:
        FileRejected: The file is larger or cannot be read.
    """
    try:
        return bounded.read_bytes(path, limit)
    except bounded.UnfitFileError as error:
        raise unreadable(refusal_words(error)) from None
    except (OSError, ValueError) as error:  # ValueError if the path contains a zero byte
        raise unreadable(f"{type(error).__name__} while reading the file") from None


def text_of(data: bytes) -> str:
    """Decode text as saved by editors and spreadsheets.

    Raises:
        FileRejected: The data are not text, or the encoding is unsupported.
    """
    try:
        return decode_text(data)
    except NotTextError as error:
        raise unreadable(str(error)) from None


def find_name(names: Iterable[str], image_name: str) -> str | None:
    """Find the entry for an image in a file that lists several.

    Folders and case are ignored. If no name is equal, a name that differs only in its suffix is
    accepted, because outlines are often drawn on a PNG copy.

    Args:
        names: The images' names as spelled in the file.
        image_name: File name of the image; if empty, the file must have a single entry.

    Returns:
        The name as spelled in the file; None if there is none.

    Raises:
        FileRejected: Several entries match.
    """
    entries = list(dict.fromkeys(names))
    if not image_name:
        return _only(entries)
    for form in (_base_name, _stem):
        matches = [entry for entry in entries if form(entry) == form(image_name)]
        if matches:
            return _only(matches)
    return None


def _only(entries: list[str]) -> str | None:
    if len(entries) > 1:
        raise unreadable(f"{len(entries)} entries match the image; expected one")
    return entries[0] if entries else None


def _base_name(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name.casefold()


def _stem(name: str) -> str:
    return PurePosixPath(_base_name(name)).stem
