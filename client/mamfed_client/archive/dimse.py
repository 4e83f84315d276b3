"""An archive by DIMSE (PS3.7): C-ECHO, C-FIND, C-GET and C-STORE, by pynetdicom.

Objects stay bytes as received: only the sandbox reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from mamfed_client.archive import dimse_contexts as contexts
from mamfed_client.archive.dimse_identifiers import count_of, failed, identifier, of, text_of
from mamfed_client.archive.http import silence
from mamfed_client.archive.objects import (
    MAX_FOUND,
    ObjectFound,
    ObjectGone,
    ObjectName,
    ObjectRefused,
    Query,
    SeriesFound,
    StudyFound,
    Unreachable,
    sound_uid,
)
from mamfed_client.archive.receiver import Receiver
from mamfed_client.archive.tls import tls_of
from mamfed_client.site.archive_settings import DimseSettings
from mamfed_common.errors import LinkError

SUCCESS, PENDING = 0x0000, frozenset({0xFF00, 0xFF01})
GONE = frozenset({0xA701, 0xA900})
UNABLE = 0xC000
"""Unable to process: some archives answer it for an object that they do not have."""


class Dimse:
    """An archive's DIMSE service, over one association for each service."""

    def __init__(self, settings: DimseSettings, timeout_s: float) -> None:
        """Prepare associations; none is opened yet.

        Raises:
            SetupError: A certificate cannot be used.
        """
        silence("pynetdicom")
        self.settings = settings
        self.where = f"DIMSE {settings.called} at {settings.host}:{settings.port}"
        self._tls = tls_of(settings.tls)
        self._entity = AE(ae_title=settings.calling)
        self._entity.acse_timeout = self._entity.dimse_timeout = timeout_s
        self._entity.network_timeout = timeout_s
        self._entity.connection_timeout = min(timeout_s, 10)
        self._open: dict[str, Association] = {}
        self.receiver = Receiver()

    def check(self) -> list[str]:
        """Return a line for each of C-ECHO, C-FIND and C-GET that the archive accepts."""
        self.echo()
        lines = [f"{self.where}: C-ECHO answers"]
        next(self.studies(Query(study="1.2.3")), None)
        lines.append(f"{self.where}: C-FIND answers")
        return [*lines, f"{self.where}: {self._c_get()}"]

    def echo(self) -> None:
        """Send a C-ECHO."""
        answer = self._association("echo", [build_context(contexts.VERIFICATION)]).send_c_echo()
        self._status(answer, "C-ECHO")

    def studies(self, query: Query) -> Iterator[StudyFound]:
        """Yield the studies that match; they may hold other objects than mammograms."""
        asked = identifier(
            "STUDY",
            StudyInstanceUID=query.study,
            StudyDate=query.dates(),
            PatientID=query.patient,
            AccessionNumber=query.accession,
            ModalitiesInStudy=query.modality(),
        )
        for found in self._find(asked):
            if uid := sound_uid(text_of(found, "StudyInstanceUID")):
                yield StudyFound(
                    uid, *(text_of(found, k) for k in ("StudyDate", "PatientID", "AccessionNumber"))
                )

    def series(self, study: str) -> Sequence[SeriesFound]:
        """Return the series of a study."""
        asked = identifier(
            "SERIES",
            StudyInstanceUID=study,
            SeriesInstanceUID="",
            Modality="",
            Manufacturer="",
            NumberOfSeriesRelatedInstances=None,
        )
        return [
            SeriesFound(
                study,
                uid,
                text_of(found, "Modality"),
                text_of(found, "Manufacturer"),
                count_of(found),
            )
            for found in self._find(asked)
            if (uid := sound_uid(text_of(found, "SeriesInstanceUID")))
        ]

    def objects(self, series: SeriesFound) -> Sequence[ObjectFound]:
        """Return the objects of a series."""
        asked = identifier(
            "IMAGE",
            StudyInstanceUID=series.study,
            SeriesInstanceUID=series.uid,
            SOPInstanceUID="",
            SOPClassUID="",
        )
        return [
            ObjectFound(uid, sound_uid(text_of(found, "SOPClassUID")))
            for found in self._find(asked)
            if (uid := sound_uid(text_of(found, "SOPInstanceUID")))
        ]

    def fetch(self, name: ObjectName) -> bytes:
        """Return an object as a DICOM file, by C-GET.

        Raises:
            ObjectGone: The archive does not have it.
            ObjectRefused: The archive does not give it, or it is too large.
        """
        association = self._association("get", contexts.retrieval(), contexts.roles())
        self.receiver.expect(name.uid)
        return self._received(name, association.send_c_get(of(name), contexts.GET), "C-GET")

    def send(self, data: bytes) -> None:
        """Store an object by C-STORE, and check the archive's answer (PS3.4 B.2.3).

        Raises:
            ObjectRefused: The archive does not take it.
        """
        dataset = dcmread(BytesIO(data))
        sop_class, syntax = dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID
        wanted = [build_context(sop_class, syntax)]
        try:
            answer = self._association(f"store {sop_class} {syntax}", wanted).send_c_store(dataset)
        except ValueError:
            raise ObjectRefused(f"objects of this kind: {UID(sop_class).name}") from None
        if "Status" not in answer:
            self._lost("C-STORE")
        if answer.Status != SUCCESS and answer.Status >> 12 != 0xB:  # B...: stored with a warning
            raise ObjectRefused(f"status {answer.Status:#06x}")

    def close(self) -> None:
        """Release all associations."""
        for association in self._open.values():
            if association.is_established:
                association.release()
        self._open.clear()

    def _c_get(self) -> str:
        """Say whether C-GET of mammograms is accepted; without it, DICOMweb or C-MOVE remain."""
        association = self._association("get", contexts.retrieval(), contexts.roles())
        taken = {context.abstract_syntax for context in association.accepted_contexts}
        if contexts.GET not in taken:
            return "no C-GET; pull by DICOMweb or with --move"
        return "C-GET accepted"

    def _received(
        self, name: ObjectName, answers: Iterator[tuple[Dataset, Dataset | None]], service: str
    ) -> bytes:
        """Read a retrieval's answers, and return what arrived (PS3.4 C.4.2, C.4.3).

        Raises:
            ObjectGone: Nothing matched.
            ObjectRefused: It was refused, or is too large.
        """
        last = [Dataset(), *(status for status, _ in answers)][-1]
        data, too_large = self.receiver.take()
        if too_large:
            self.close()
            raise ObjectRefused("larger than any image")
        if data is not None:
            return data
        if "Status" not in last:
            self._lost(service)
        if last.Status in GONE or (last.Status == SUCCESS and not failed(last)):
            raise ObjectGone
        if last.Status >> 12 == UNABLE >> 12 and not self._has(name):
            raise ObjectGone
        if last.Status == 0xA801:
            raise LinkError(
                f"{self.where}: does not know the move destination {self.settings.calling}; "
                "its administrator must enter AE title, address and port"
            )
        raise ObjectRefused(f"{service} status {last.Status:#06x}")

    def _has(self, name: ObjectName) -> bool:
        """Ask whether the archive has an object."""
        return next(self._find(of(name)), None) is not None

    def _find(self, asked: Dataset) -> Iterator[Dataset]:
        association = self._association("find", [build_context(contexts.FIND)])
        count = 0
        for status, found in association.send_c_find(asked, contexts.FIND):
            self._status(status, "C-FIND")
            self.receiver.reset()
            if found is not None and (count := count + 1) <= MAX_FOUND:
                yield found

    def _status(self, answer: Dataset, service: str) -> None:
        """Raise if a request failed."""
        if "Status" not in answer:
            self._lost(service)
        if answer.Status != SUCCESS and answer.Status not in PENDING:
            raise LinkError(f"{self.where}: {service} failed with status {answer.Status:#06x}")

    def _lost(self, service: str) -> None:
        for association in self._open.values():
            association.abort()
        self._open.clear()
        raise Unreachable(f"{self.where}: the connection was lost, or no answer came, at {service}")

    def _association(
        self, purpose: str, wanted: list[PresentationContext], roles: Sequence[Any] = ()
    ) -> Association:
        """Return the association for a purpose, opened if it is not.

        Raises:
            LinkError: The archive refuses it.
            Unreachable: It does not answer.
        """
        known = self._open.get(purpose)
        if known is not None and known.is_established:
            return known
        if self._tls is not None:
            self._tls.failure = ""
        association = self._entity.associate(
            self.settings.host,
            self.settings.port,
            wanted,
            self.settings.called,
            ext_neg=list(roles) or None,
            tls_args=self._tls and (self._tls, self.settings.host),
            evt_handlers=self.receiver.handlers(),
        )
        if not association.is_established:
            raise self._refusal(association)
        self._open[purpose] = association
        return association

    def _refusal(self, association: Association) -> LinkError:
        """Return why an association was not opened (PS3.8 9.3.4)."""
        if association.is_rejected:
            answer = association.acceptor.primitive
            why = answer.reason_str if answer is not None else ""
            return LinkError(
                f"{self.where}: refuses the association from {self.settings.calling}: {why}; its "
                "administrator must enter this AE title and address"
            )
        if association.acceptor.primitive is not None:  # accepted, but none of the contexts
            return LinkError(f"{self.where}: does not offer this service to this site")
        if self._tls is not None and self._tls.failure:
            return LinkError(f"{self.where}: {self._tls.failure}")
        if association.requestor.address_info.port:  # connected, but that was all
            doubt = "want TLS (archive.dimse.tls)" if self._tls is None else "trust this site"
            return Unreachable(
                f"{self.where}: answers nothing that DICOM knows; is the port right, and does it "
                f"{doubt}?"
            )
        return Unreachable(
            f"{self.where}: cannot be reached; is the archive up and the port right?"
        )
