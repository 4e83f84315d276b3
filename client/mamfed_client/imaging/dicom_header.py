"""Values of a DICOM header, where any element may be absent, empty or broken.

Every function takes a broken element for an absent one: a bad spacing must not cost a good image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.sequence import Sequence as Items


def value(dataset: Dataset, keyword: str) -> object:
    """Return an element's value, None where there is none or pydicom cannot make sense of it."""
    try:
        return dataset.get(keyword)
    except MemoryError:
        raise
    except Exception:  # values are parsed when asked for: whatever parsing raises, it is no value
        return None


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return an element's values as stripped text."""
    found = value(dataset, keyword)
    if found is None:
        return ()
    several = isinstance(found, Sequence) and not isinstance(found, str | bytes)
    return tuple(str(item).strip() for item in (found if several else (found,)))  # type: ignore[attr-defined]


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element's first value as stripped text, empty where there is none."""
    return next(iter(texts(dataset, keyword)), "")


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return an element's values; none of them where one is no finite number."""
    try:
        found = tuple(float(item) for item in texts(dataset, keyword))
    except ValueError:
        return ()
    return found if all(map(math.isfinite, found)) else ()


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence, none where the element is something else."""
    found = value(dataset, keyword)
    return tuple(found) if isinstance(found, Items) else ()


def frame_groups(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a functional group, shared or of the first frame (PS3.3 C.7.6.16.1)."""
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    frame = items(dataset, "PerFrameFunctionalGroupsSequence")[:1]
    return tuple(item for group in (*shared, *frame) for item in items(group, keyword))


def codes(dataset: Dataset, keyword: str) -> frozenset[str]:
    """Return the code values of a code sequence (PS3.3 8.8), whatever scheme they name.

    Vendors name the same scheme SRT, SNM3 or 99SDM; its values look unlike those of SCT.
    """
    return frozenset(text(item, "CodeValue") for item in items(dataset, keyword)) - {""}


def words(free_text: str) -> str:
    """Spell a text as lower-case words between single spaces, also at both ends.

    So ``" spot " in words(...)`` finds the whole word however it is set off.
    """
    return " ".join(["", *re.findall(r"[^\W_]+", free_text.lower()), ""])
