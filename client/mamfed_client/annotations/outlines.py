"""What a reader of annotations returns, and what all readers share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mamfed_client.annotations.shapes import Shape
from mamfed_client.imaging.mammogram import Mask
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_common.runtime.text import NotTextError, decode_text


class NamedMask(NamedTuple):
    """A mask, ``(H, W)`` bool, and its class or value as the file names it; empty without."""

    mask: Mask
    name: str = ""


class Outlines(NamedTuple):
    """What one file marks in one image, of all its classes.

    Attributes:
        shapes: Its outlines, in pixels of ``grid``.
        masks: Its masks, each of a size of its own.
        grid: Rows and columns of the image as the file states them; None where it states none.
        listed: Whether the file says anything of the image.
        declared: Names of the classes that the file uses, for other images too.
        by_value: Whether the masks are named by values of pixels.
        of_another: Whether it refers to one image, by SOP Instance UID, and that is another one.
        by_program: Whether a program made them and nobody says that they were looked at.
    """

    shapes: tuple[Shape, ...] = ()
    masks: tuple[NamedMask, ...] = ()
    grid: tuple[int, int] | None = None
    listed: bool = True
    declared: frozenset[str] = frozenset()
    by_value: bool = False
    by_program: bool = False
    of_another: bool = False


OF_MASKS = frozenset(
    {Reason.UNREADABLE_MASK, Reason.MASK_SIZE, Reason.EMPTY_MASK, Reason.UNKNOWN_CLASS}
)
"""Reasons that a reader of annotations gives; others come from what it shares with images."""


def unreadable(detail: str) -> FileRejected:
    """Name what is wrong with an annotation file."""
    return FileRejected(Reason.UNREADABLE_MASK, detail)


@contextmanager
def any_trouble_unreadable() -> Iterator[None]:
    """Turn whatever a file brings about into a refusal of the annotation.

    Nine classes of exception were seen to come out of pydicom alone. What they say may quote the
    file, so neither their words nor those of warnings get anywhere.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FileRejected as refusal:
        if refusal.reason in OF_MASKS:
            raise
        raise unreadable(str(refusal)) from None
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(f"{type(error).__name__} while reading the annotation") from None


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a whole file of at most ``limit`` bytes.

    Raises:
        FileRejected: It is larger, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise unreadable(f"{type(error).__name__} while reading the file") from None
    if len(data) > limit:
        raise unreadable(f"a file larger than {limit >> 20} MiB")
    return data


def text_of(data: bytes) -> str:
    """Decode a text as editors and spreadsheets save it.

    Raises:
        FileRejected: It is no text, or of an encoding that is not read.
    """
    try:
        return decode_text(data)
    except NotTextError as error:
        raise unreadable(str(error)) from None


def find_name(names: Iterable[str], image_name: str) -> str | None:
    """Find the entry for an image in a file that lists several.

    Folders and capitals do not count. Without an equal name one that differs in its suffix alone
    is taken: outlines are often drawn on a PNG copy.

    Args:
        names: The images' names as the file spells them.
        image_name: File name of the image; empty takes the only entry.

    Returns:
        The name as the file spells it; None if there is none.

    Raises:
        FileRejected: Several entries fit.
    """
    entries = list(dict.fromkeys(names))
    if not image_name:
        return _only(entries)
    for form in (_base_name, _stem):
        same = [entry for entry in entries if form(entry) == form(image_name)]
        if same:
            return _only(same)
    return None


def _only(entries: list[str]) -> str | None:
    if len(entries) > 1:
        raise unreadable(f"{len(entries)} entries fit the image, one is needed")
    return entries[0] if entries else None


def _base_name(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name.casefold()


def _stem(name: str) -> str:
    return PurePosixPath(_base_name(name)).stem
