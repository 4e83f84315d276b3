"""What lies at this site, in counts: no patient, no file, no image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mamfed_client.imaging.doubts import Doubt
from mamfed_client.review.explanations import EXPLANATIONS
from mamfed_client.site.data_account import DataAccount, DataSetAccount, read_account
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.domain import PARTS, PURPOSES, Purpose

PURPOSE_WORDS: dict[Purpose, str] = {
    "benign": "Benign, stage 1",
    "malignant": "Malignant with an outline, stage 2",
    "without_malignancy": "Without malignancy, to count false alarms",
}


class Counted(NamedTuple):
    """A count with what it counts, and an explanation that may be empty."""

    what: str
    number: int
    why: str = ""


class PurposeRow(NamedTuple):
    """The images of one purpose: how many train, choose the round, and test.

    Attributes:
        purpose: What they are for, in words.
        images: Images by part: train, val, test.
        patients: Patients by part.
    """

    purpose: str
    images: tuple[int, ...]
    patients: tuple[int, ...]


class DataView(NamedTuple):
    """What lies here.

    Attributes:
        when: When it was counted, UTC; empty if nothing was counted yet.
        plan: First digits of the plan that divides the patients.
        data_sets: Names of the data sets, with where they are: prepared, or read as they are.
        files: Images that the folders list.
        accepted: Images that can be read.
        patients: Patients of these; a patient in two data sets counts twice.
        rows: The images by purpose and part.
        vendors: Images by maker.
        doubts: Images by doubt, with what it means.
        rejected: Images that cannot be used, by reason.
        excluded: Readable images that a rule excludes from a stage, by reason.
        other_files: Other files in the folders, by kind.
        notes: Remarks about the folders; they name no patient.
    """

    when: str = ""
    plan: str = ""
    data_sets: tuple[str, ...] = ()
    files: int = 0
    accepted: int = 0
    patients: int = 0
    rows: tuple[PurposeRow, ...] = ()
    vendors: tuple[Counted, ...] = ()
    doubts: tuple[Counted, ...] = ()
    rejected: tuple[Counted, ...] = ()
    excluded: tuple[Counted, ...] = ()
    other_files: tuple[Counted, ...] = ()
    notes: tuple[str, ...] = ()


def data_view(home: SiteHome) -> DataView:
    """Read what lies here from the last count.

    Raises:
        SetupError: ``site.yaml`` or ``data.json`` cannot be read.
    """
    account = read_account(home)
    if account is None:
        return DataView(data_sets=tuple(d.name for d in load_site_settings(home).data))
    return view_of(account)


def view_of(account: DataAccount) -> DataView:
    """Add up the counts of all data sets."""
    sets = account.data_sets
    summaries = [data_set.summary for data_set in sets]
    return DataView(
        when=f"{account.time:%Y-%m-%d %H:%M} UTC",
        plan=account.plan_sha256[:12],
        data_sets=tuple(f"{d.name}{' (prepared)' if d.prepared else ''}" for d in sets),
        files=_sum(summaries, "files"),
        accepted=_sum(summaries, "accepted"),
        patients=_sum(summaries, "patients"),
        rows=tuple(_row(sets, purpose) for purpose in PURPOSES),
        vendors=_tally(summaries, "vendors"),
        doubts=_tally(summaries, "doubts", _meaning_of_doubt),
        rejected=_tally(summaries, "rejected", lambda why: EXPLANATIONS.get(why, "")),
        excluded=_tally(summaries, "left_out", lambda why: EXPLANATIONS.get(why, "")),
        other_files=_tally(summaries, "other_files"),
        notes=tuple(f"{d.name}: {note}" for d in sets for note in d.summary.get("notes", ())),
    )


def _row(sets: Iterable[DataSetAccount], purpose: Purpose) -> PurposeRow:
    images: Counter[str] = Counter()
    patients: Counter[str] = Counter()
    for data_set in sets:
        images.update(data_set.images.get(purpose, {}))
        patients.update(data_set.patients.get(purpose, {}))
    return PurposeRow(
        PURPOSE_WORDS[purpose],
        tuple(images[part] for part in PARTS),
        tuple(patients[part] for part in PARTS),
    )


def _sum(summaries: Iterable[Mapping[str, Any]], key: str) -> int:
    return sum(int(summary.get(key, 0)) for summary in summaries)


def _tally(
    summaries: Iterable[Mapping[str, Any]], key: str, explain: Any = lambda word: ""
) -> tuple[Counted, ...]:
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update(summary.get(key, {}))
    ordered = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Counted(word, count, explain(word)) for word, count in ordered)


def _meaning_of_doubt(word: str) -> str:
    return Doubt(word).sentence if word in set(Doubt) else ""
