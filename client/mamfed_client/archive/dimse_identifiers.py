"""What is asked of an archive by DIMSE and what it answers, as data sets (PS3.4 C)."""

from __future__ import annotations

from pydicom import Dataset

from mamfed_client.archive.objects import ObjectName


def failed(answer: Dataset) -> int:
    """Return how many of a retrieval's objects could not be delivered."""
    return int(answer.get("NumberOfFailedSuboperations", 0) or 0)


def of(name: ObjectName) -> Dataset:
    """Return the identifier of one object for a retrieval (PS3.4 C.4.2.2)."""
    return identifier(
        "IMAGE",
        StudyInstanceUID=name.study,
        SeriesInstanceUID=name.series,
        SOPInstanceUID=name.uid,
    )


def identifier(level: str, **keys: str | None) -> Dataset:
    """Return the identifier of a query: its level and its keys."""
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return dataset


def text_of(found: Dataset, keyword: str) -> str:
    """Return an answer's value as text of bounded length; empty if there is none."""
    try:
        return str(found.get(keyword, "") or "")[:256]
    except Exception:  # pydicom decodes on access, and an archive's values may be anything
        return ""


def count_of(found: Dataset) -> int | None:
    """Return a series' number of objects; None if the archive does not say it."""
    text = text_of(found, "NumberOfSeriesRelatedInstances")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else None
