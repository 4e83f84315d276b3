"""Which image a DICOM annotation is about, where it is about several."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

from pydicom.dataset import Dataset

from mamfed_client.annotations.outlines import unreadable


def referenced(items: Iterable[Dataset]) -> frozenset[str]:
    """Collect the SOP Instance UIDs of items with Image SOP Instance Reference (PS3.3 10.3)."""
    uids = (str(item.get("ReferencedSOPInstanceUID") or "") for item in items)
    return frozenset(uid for uid in uids if uid)


def shown_image(uids: frozenset[str], image_name: str) -> str | None:
    """Choose the one image, or the one whose file is named by its SOP Instance UID.

    Returns:
        Its UID; None where the file names no image.

    Raises:
        Refusal: There are several and the file's name is none of them.
    """
    stem = PurePath(image_name).stem
    for name in (image_name, stem):
        if name in uids:
            return name
    if len(uids) > 1:
        raise unreadable(f"it outlines {len(uids)} images; which is meant is not known")
    return next(iter(uids), None)
