"""What became of one row's files, once they have been read."""

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
    """A refusal, or the facts of a mammogram. Nothing here names a patient or a file.

    Attributes:
        reason: Why it is refused; None where it is accepted.
        detail: What was found.
        image_sha256: Hash of the image file's content.
        digest: The sample's name in the store; empty where no sample was asked for.
        pixels: Hash of the grey levels: equal ones are one picture, whatever the file.
        patient: Pseudonym of the patient that the file names; empty without.
        alike: Pseudonym of what ``patients.meant`` makes of that patient; empty without.
        instance: Pseudonym of the file's SOP Instance UID; empty without.
        laterality: Which breast, by the table or else by the file.
        laterality_source: What said so.
        view: The view, likewise.
        view_source: What said so.
        file_laterality: Which breast, by the file's own elements alone.
        file_view: The view, likewise.
        spacing_mm: Distance of pixel centres in millimetres, likewise.
        vendor: Who made the unit, likewise.
        model: The unit's model, by the file.
        birads: The BI-RADS assessment, by the file.
        rows: Height of the image in pixels.
        columns: Its width.
        lesion_share: Share of the image's pixels that its annotations mark.
        drawn_as: What ``drawn.drawn_as`` says of its mask; empty without one.
        resampled: How many of its masks had another size than the image.
        others: How many regions of other classes its annotations hold.
        doubts: What may be wrong with it.
        measures: What its site as a whole is judged by.
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
    def refused(cls, refusal: FileRejected) -> Self:
        """Remember a refusal."""
        return cls(refusal.reason, refusal.detail)

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self) | {
            "doubts": doubts.to_json(self.doubts),
            "measures": list(self.measures),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Make the outcome that :meth:`to_json` described; those of an old version have no doubts.

        Raises:
            TypeError, ValueError: It describes none.
        """
        reason = None if content["reason"] is None else Reason(content["reason"])
        found = doubts.from_json(content.get("doubts", ()))
        measures = Measures(*content.get("measures", ()))
        known = {"reason": reason, "doubts": found, "measures": measures}
        return cls(**{**content, **known})
