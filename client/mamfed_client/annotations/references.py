"""Determine which of several images a DICOM annotation refers to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import NamedTuple

from pydicom.dataset import Dataset

from mamfed_client.annotations.outlines import unreadable


def referenced(items: Iterable[Dataset]) -> frozenset[str]:
    """Collect the SOP Instance UIDs of items with an Image SOP Instance Reference (PS3.3 10.3)."""
    uids = (str(item.get("ReferencedSOPInstanceUID") or "") for item in items)
    return frozenset(uid for uid in uids if uid)


class TargetImage(NamedTuple):
    """The image that an annotation should refer to.

    Attributes:
        name: File name of the image.
        instance: SOP Instance UID of the image; empty if its file has none.
    """

    name: str
    instance: str = ""

    def is_another(self, uid: str | None) -> bool:
        """Return whether a reference is known to be to a different image."""
        known = (self.instance, self.name, PurePath(self.name).stem)
        return bool(uid and self.instance) and uid not in known


def shown_image(uids: frozenset[str], image: TargetImage) -> str | None:
    """Choose the reference to the image itself, to its file name, or else the only one.

    Returns:
        The referenced UID; None if the file refers to no image.

    Raises:
        FileRejected: There are several references, and none is to the image.
    """
    for name in (image.instance, image.name, PurePath(image.name).stem):
        if name in uids:
            return name
    if len(uids) > 1:
        raise unreadable(f"it outlines {len(uids)} images, none of which is known to be this one")
    return next(iter(uids), None)
