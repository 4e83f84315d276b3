"""Which image a DICOM annotation is about, where it is about several."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import NamedTuple

from pydicom.dataset import Dataset

from mamfed_client.annotations.outlines import unreadable


def referenced(items: Iterable[Dataset]) -> frozenset[str]:
    """Collect the SOP Instance UIDs of items with Image SOP Instance Reference (PS3.3 10.3)."""
    uids = (str(item.get("ReferencedSOPInstanceUID") or "") for item in items)
    return frozenset(uid for uid in uids if uid)


class TargetImage(NamedTuple):
    """The image that an annotation should be about.

    Attributes:
        name: Its file's name.
        instance: Its SOP Instance UID; empty where its file has none.
    """

    name: str
    instance: str = ""

    def is_another(self, uid: str | None) -> bool:
        """Tell whether a reference is to another image, as far as the image's UID is known."""
        known = (self.instance, self.name, PurePath(self.name).stem)
        return bool(uid and self.instance) and uid not in known


def shown_image(uids: frozenset[str], image: TargetImage) -> str | None:
    """Choose the image itself, or the one whose file is named by its UID, or the only one.

    Returns:
        Its UID; None where the file names no image.

    Raises:
        FileRejected: There are several and the image is none of them.
    """
    for name in (image.instance, image.name, PurePath(image.name).stem):
        if name in uids:
            return name
    if len(uids) > 1:
        raise unreadable(f"it outlines {len(uids)} images; which is meant is not known")
    return next(iter(uids), None)
