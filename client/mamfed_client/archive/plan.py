"""What a pull would bring: the images of all studies that match, asked without fetching any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydicom.uid import UID

from mamfed_client.archive.objects import (
    KINDS,
    MODALITY,
    Archive,
    ObjectFound,
    ObjectName,
    Query,
    SeriesFound,
    StudyFound,
)
from mamfed_client.archive.worklist import Worklist, WorklistRow


class PlannedImage(NamedTuple):
    """An image to pull."""

    name: ObjectName
    patient: str


@dataclass
class PullPlan:
    """What a pull would bring.

    Attributes:
        studies: The studies by UID.
        images: The images to pull, by SOP Instance UID.
        rows: The worklist's rows about each study.
        left_out: Number of other objects, by modality or kind.
        vendors: Number of images by manufacturer, as the archive says it.
        rows_without_study: Worklist rows for which the archive has no study.
    """

    studies: dict[str, StudyFound] = field(default_factory=dict)
    images: dict[str, PlannedImage] = field(default_factory=dict)
    rows: dict[str, list[WorklistRow]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    vendors: Counter[str] = field(default_factory=Counter)
    rows_without_study: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the plan in counts, without identifiers."""
        by_month = Counter(_month(study.date) for study in self.studies.values())
        return {
            "studies": len(self.studies),
            "images": len(self.images),
            "other_objects": dict(sorted(self.left_out.items())),
            "images_by_vendor": dict(sorted(self.vendors.items())),
            "studies_by_month": dict(sorted(by_month.items())),
            "worklist_rows_without_study": self.rows_without_study,
        }


def make_plan(
    archive: Archive,
    query: Query,
    worklist: Worklist | None,
    said: Callable[[int], None] = lambda _: None,
) -> PullPlan:
    """Ask an archive for all studies that match, their series and images.

    Args:
        archive: The archive.
        query: What to look for; with a worklist only its dates count.
        worklist: The studies to pull; None: all of the query.
        said: Called with the number of studies so far.

    Raises:
        LinkError: The archive refuses this site, or does not answer.
    """
    plan = PullPlan()
    wanted = worklist.queries() if worklist is not None else {query: []}
    for each, rows in wanted.items():
        found = [study for study in archive.studies(each) if _matches(study, each)]
        if worklist is not None and not found:
            plan.rows_without_study += len(rows)
        for study in found:
            plan.rows.setdefault(study.uid, []).extend(rows)
            if study.uid not in plan.studies:
                plan.studies[study.uid] = study
                _add_images(plan, archive, study)
                said(len(plan.studies))
    return plan


def _matches(study: StudyFound, query: Query) -> bool:
    """Return whether a study is what was asked for: some archives ignore keys that they lack."""
    return all(
        not asked or not said or asked == said.strip()
        for asked, said in (
            (query.patient, study.patient),
            (query.accession, study.accession),
            (query.study, study.uid),
        )
    ) and (not study.date or (query.first or "0") <= study.date <= (query.last or "99999999"))


def _add_images(plan: PullPlan, archive: Archive, study: StudyFound) -> None:
    for series, objects in _series(plan, archive, study):
        for found in objects:
            if found.kind and found.kind not in KINDS:
                plan.left_out[UID(found.kind).name] += 1
            elif found.uid not in plan.images:
                name = ObjectName(study.uid, series.uid, found.uid)
                plan.images[found.uid] = PlannedImage(name, study.patient)
                plan.vendors[series.vendor or "not said"] += 1


def _series(
    plan: PullPlan, archive: Archive, study: StudyFound
) -> Iterator[tuple[SeriesFound, Sequence[ObjectFound]]]:
    """Yield the series of mammograms, and count the objects of all others."""
    for series in archive.series(study.uid):
        if series.modality in ("", MODALITY):
            yield series, archive.objects(series)
        else:
            count = series.objects
            plan.left_out[series.modality] += (
                len(archive.objects(series)) if count is None else count
            )


def _month(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}" if len(date) == 8 and date.isdigit() else "not said"
