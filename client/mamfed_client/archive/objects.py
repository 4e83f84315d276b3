"""What is asked of an archive and what it answers, whatever the protocol.

Identifiers that an archive answers are checked before they are used: they become part of addresses
and requests. None of them is ever printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)

from mamfed_common.errors import LinkError

MODALITY = "MG"
"""The only modality that is pulled (PS3.3 C.7.3.1.1.1)."""
KINDS = (
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)
"""Kinds of objects that mammograms are stored as, also by old machines and research collections;
the intake judges them."""
UID_SHAPE = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
MAX_FOUND = 1_000_000
"""Most studies of a query, and most objects of a series."""


class Query(NamedTuple):
    """Which studies to look for.

    Attributes:
        first, last: Study dates ``YYYYMMDD``, both included; empty: open.
        patient: Patient ID; empty: any.
        accession: Accession number; empty: any.
        study: Study Instance UID; empty: any.
    """

    first: str = ""
    last: str = ""
    patient: str = ""
    accession: str = ""
    study: str = ""

    def dates(self) -> str:
        """Return the range as a query's value (PS3.4 C.2.2.2.5); empty: any."""
        return f"{self.first}-{self.last}" if self.first or self.last else ""

    def modality(self) -> str:
        """Return the modality to ask for; empty: any.

        A search by modality misses mammograms that lack it, as some exports do. Dates alone need
        it; objects of other modalities are counted later.
        """
        return "" if self.patient or self.accession or self.study else MODALITY


class StudyFound(NamedTuple):
    """A study that an archive reports; empty: not said."""

    uid: str
    date: str = ""
    patient: str = ""
    accession: str = ""


class SeriesFound(NamedTuple):
    """A series that an archive reports.

    Attributes:
        study, uid: Study and Series Instance UID.
        modality: Its modality; empty: not said.
        vendor: Its manufacturer; empty: not said.
        objects: Number of its objects; None: not said.
    """

    study: str
    uid: str
    modality: str = ""
    vendor: str = ""
    objects: int | None = None


class ObjectFound(NamedTuple):
    """An object that an archive reports: SOP Instance UID and SOP Class UID; empty: not said."""

    uid: str
    kind: str = ""


class ObjectName(NamedTuple):
    """The three identifiers of an object."""

    study: str
    series: str
    uid: str


class ObjectGone(Exception):
    """The archive no longer has an object."""


class ObjectRefused(Exception):
    """The archive does not give or take an object; the message says why, without identifiers."""


class Unreachable(LinkError):
    """The archive does not answer, for now: trying again may help."""


class Archive(Protocol):
    """A connection to an archive.

    Every method raises LinkError if the archive refuses this site, and Unreachable if it does not
    answer.
    """

    def check(self) -> list[str]:
        """Return a line on each service that works."""

    def studies(self, query: Query) -> Iterator[StudyFound]:
        """Yield the studies that match; they may hold other objects than mammograms."""

    def series(self, study: str) -> Sequence[SeriesFound]:
        """Return the series of a study."""

    def objects(self, series: SeriesFound) -> Sequence[ObjectFound]:
        """Return the objects of a series."""

    def fetch(self, name: ObjectName) -> bytes:
        """Return an object as a DICOM file.

        Raises:
            ObjectGone: The archive does not have it.
            ObjectRefused: The archive does not give it, or it is too large.
        """

    def send(self, data: bytes) -> None:
        """Store an object.

        Raises:
            ObjectRefused: The archive does not take it.
        """

    def close(self) -> None:
        """Close the connection."""


def sound_uid(text: object) -> str:
    """Return an identifier if it is one, otherwise an empty text."""
    return str(text) if UID_SHAPE.fullmatch(str(text)) else ""
