"""The result of reading one row's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from mamfed_client.imaging import doubts
from mamfed_client.imaging.doubts import Doubts
from mamfed_client.imaging.mammogram import Laterality
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.plausibility.measures import Measures


@dataclass(frozen=True, slots=True)
class RowResult:
    """A rejection, or the facts about a mammogram. Contains no patient name and no file name.

    Attributes:
        reason: Why the row is rejected; None if it is accepted.
        detail: What was found.
        image_sha256: SHA-256 of the image file's content.
        digest: The sample's name in the store; empty if no sample was stored.
        pixels: Hash of the grey levels; equal hashes mean the same picture, in whatever file.
        patient: Pseudonym of the patient named in the file; empty if unknown.
        alike: Pseudonym of that patient's canonical identifier (``patients.canonical_id``); empty
            if unknown.
        instance: Pseudonym of the file's SOP Instance UID; empty if unknown.
        laterality: Which breast, from the table or else from the file.
        laterality_source: Where ``laterality`` comes from.
        view: The view, from the table or else from the file.
        view_source: Where ``view`` comes from.
        file_laterality: Which breast, from the file's own elements alone.
        file_view: The view, from the file's own elements alone.
        spacing_mm: Distance between pixel centres in millimetres, from the table or else the file.
        vendor: The unit's manufacturer, from the table or else the file.
        model: The unit's model, from the file.
        birads: The BI-RADS assessment, from the file.
        rows: Height of the image in pixels.
        columns: Width of the image in pixels.
        lesion_share: Share of the image's pixels that the annotations mark, 0..1.
        drawn_as: How the mask was drawn (``mask_shapes.drawn_as``); empty without a mask.
        resampled: Number of masks whose size differed from the image's.
        others: Number of annotated regions that belong to other classes.
        doubts: Possible problems.
        measures: Measurements by which the whole cohort is judged.
    """

    reason: Reason | None = None
    detail: str = ""
    image_sha256: str = ""
    digest: str = ""
    pixels: str = ""
    patient: str = ""
    alike: str = ""
    instance: str = ""
    laterality: Laterality | None = None
    laterality_source: str = ""
    view: str | None = None
    view_source: str = ""
    file_laterality: Laterality | None = None
    file_view: str | None = None
    spacing_mm: float | None = None
    vendor: str | None = None
    model: str | None = None
    birads: str | None = None
    rows: int = 0
    columns: int = 0
    lesion_share: float = 0.0
    drawn_as: str = ""
    resampled: int = 0
    others: int = 0
    doubts: Doubts = ()
    measures: Measures = field(default_factory=Measures)

    @classmethod
    def rejected(cls, error: FileRejected) -> Self:
        """Return the result of a row that was rejected."""
        return cls(error.reason, error.detail)

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return asdict(self) | {
            "doubts": doubts.to_json(self.doubts),
            "measures": list(self.measures),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Restore a result from :meth:`to_json`; older versions stored no doubts or measures.

        Raises:
            KeyError, TypeError, ValueError: The content is not a result.
        """
        reason = None if content["reason"] is None else Reason(content["reason"])
        restored = {
            "reason": reason,
            "doubts": doubts.from_json(content.get("doubts", ())),
            "measures": Measures(*content.get("measures", ())),
        }
        return cls(**{**content, **restored})
