"""Read values from a DICOM header in which any element may be absent, empty or corrupt.

Every function treats a corrupt element as absent, so that a bad spacing does not lose a good image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.sequence import Sequence as Items

IDENTITY = (
    *("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("Modality", "ImageLaterality", "Laterality"),
)
"""Elements that tell one object from another; all of them are short."""


def value(dataset: Dataset, keyword: str) -> object:
    """Return an element's value; None if it is absent or pydicom cannot parse it."""
    try:
        return dataset.get(keyword)
    except MemoryError:
        raise
    except Exception:  # pydicom parses on access and may raise anything
        return None


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return an element's values as stripped text."""
    content = value(dataset, keyword)
    if content is None:
        return ()
    is_multiple = isinstance(content, Sequence) and not isinstance(content, str | bytes)
    return tuple(str(item).strip() for item in (content if is_multiple else (content,)))  # type: ignore[attr-defined]


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element's first value as stripped text, or an empty string."""
    return next(iter(texts(dataset, keyword)), "")


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return an element's values as numbers; empty if any of them is not a finite number."""
    try:
        values = tuple(float(item) for item in texts(dataset, keyword))
    except ValueError:
        return ()
    return values if all(map(math.isfinite, values)) else ()


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence; empty if the element is not a sequence."""
    content = value(dataset, keyword)
    return tuple(content) if isinstance(content, Items) else ()


def frame_groups(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a functional group, shared or of the first frame (PS3.3 C.7.6.16.1)."""
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    frame = items(dataset, "PerFrameFunctionalGroupsSequence")[:1]
    return tuple(item for group in (*shared, *frame) for item in items(group, keyword))


def codes(dataset: Dataset, keyword: str) -> frozenset[str]:
    """Return the code values of a code sequence (PS3.3 8.8), ignoring the coding scheme.

    Vendors call the same scheme SRT, SNM3 or 99SDM; its values cannot be confused with SCT codes.
    """
    return frozenset(text(item, "CodeValue") for item in items(dataset, keyword)) - {""}


def words(free_text: str) -> str:
    """Return lower-case words separated by single spaces, with a space at both ends.

    ``" spot " in words(...)`` then finds the whole word, whatever the punctuation around it.
    """
    return " ".join(["", *re.findall(r"[^\W_]+", free_text.lower()), ""])
