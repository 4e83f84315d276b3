"""An archive by DICOMweb (PS3.18): QIDO-RS, WADO-RS and STOW-RS.

dicomweb-client asks and stores. Objects are fetched as bytes, since only the sandbox reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread

from mamfed_client.archive.http import failure, open_session, status_of
from mamfed_client.archive.objects import (
    MAX_FOUND,
    MODALITY,
    ObjectFound,
    ObjectGone,
    ObjectName,
    ObjectRefused,
    Query,
    SeriesFound,
    StudyFound,
    sound_uid,
)
from mamfed_client.site.archive_settings import DicomWebSettings
from mamfed_common.errors import LinkError
from mamfed_common.runtime.bounded import IMAGE_BYTES

PAGE = 200
"""Results asked for at once."""
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
OF_ONE_OBJECT = frozenset({400, 409, 413, 415, 422})
"""HTTP status of a store request that was refused for what was sent (PS3.18 10.5.3)."""
STORED = "ReferencedSOPSequence"
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
_Result = TypeVar("_Result")


class DicomWeb:
    """An archive's DICOMweb service."""

    def __init__(self, settings: DicomWebSettings, timeout_s: float) -> None:
        """Prepare a session; nothing is asked yet.

        Raises:
            SetupError: The password, the token or the CA file cannot be used.
        """
        self._session = open_session(settings)
        self._url = settings.url.rstrip("/")
        self._timeout = (min(timeout_s, 10), timeout_s)
        self.where = f"DICOMweb at {urlsplit(settings.url).netloc}"
        self._client = DICOMwebClient(
            self._url, self._session, permissive_uid=True, timeout=self._timeout
        )
        self._client.set_http_retry_params(retry=False)

    def check(self) -> list[str]:
        """Return a line if a search answers."""
        with self._errors():
            self._client.search_for_studies(limit=1, search_filters={"ModalitiesInStudy": MODALITY})
        return [f"{self.where}: QIDO-RS answers"]

    def studies(self, query: Query) -> Iterator[StudyFound]:
        """Yield the studies that match; they may hold other objects than mammograms."""
        filters = {
            "ModalitiesInStudy": query.modality(),
            "StudyDate": query.dates(),
            "PatientID": query.patient,
            "AccessionNumber": query.accession,
            "StudyInstanceUID": query.study,
        }
        used = {name: text for name, text in filters.items() if text}
        for found in self._pages(
            lambda **page: self._client.search_for_studies(search_filters=used, **page), STUDY
        ):
            yield StudyFound(
                sound_uid(_text(found, STUDY)),
                _text(found, "00080020"),
                _text(found, "00100020"),
                _text(found, "00080050"),
            )

    def series(self, study: str) -> Sequence[SeriesFound]:
        """Return the series of a study."""
        fields = ["00080070", "00201209"]
        return [
            SeriesFound(
                study,
                sound_uid(_text(found, SERIES)),
                _text(found, "00080060"),
                _text(found, "00080070"),
                _count(_text(found, "00201209")),
            )
            for found in self._pages(
                lambda **page: self._client.search_for_series(study, fields=fields, **page), SERIES
            )
        ]

    def objects(self, series: SeriesFound) -> Sequence[ObjectFound]:
        """Return the objects of a series."""
        found = self._pages(
            lambda **page: self._client.search_for_instances(series.study, series.uid, **page),
            INSTANCE,
        )
        return [
            ObjectFound(sound_uid(_text(each, INSTANCE)), _text(each, "00080016")) for each in found
        ]

    def fetch(self, name: ObjectName) -> bytes:
        """Return an object as a DICOM file, in the transfer syntax in which it is stored.

        Raises:
            ObjectGone: The archive does not have it.
            ObjectRefused: The answer holds no object, or one that is too large.
        """
        url = f"{self._url}/studies/{name.study}/series/{name.series}/instances/{name.uid}"
        with self._errors():
            answer = self._session.get(url, headers={"Accept": ACCEPT}, timeout=self._timeout)
            if answer.status_code in (404, 410):
                raise ObjectGone
            answer.raise_for_status()
        return _only_part(answer.headers.get("Content-Type", ""), answer.content)

    def send(self, data: bytes) -> None:
        """Store an object, and check the archive's answer about it (PS3.18 10.5.3).

        Raises:
            ObjectRefused: The archive does not take it.
        """
        dataset = dcmread(BytesIO(data))
        try:
            with self._errors(about_one_object=True):
                answer = self._client.store_instances([dataset])
        except requests.HTTPError as error:
            raise ObjectRefused(f"HTTP {status_of(error)}") from None
        _check_stored(answer, dataset.SOPInstanceUID)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _pages(self, ask: Callable[..., Any], key: str) -> Iterator[dict[str, Any]]:
        """Yield the results of a search page by page, each object once."""
        seen: set[str] = set()
        while len(seen) < MAX_FOUND:
            with self._errors():
                page = ask(limit=PAGE, offset=len(seen))
            fresh = [each for each in page if _text(each, key) not in seen]
            seen |= {_text(each, key) for each in fresh}
            yield from (each for each in fresh if sound_uid(_text(each, key)))
            if not fresh or len(page) < PAGE:
                return

    @contextmanager
    def _errors(self, *, about_one_object: bool = False) -> Iterator[None]:
        """Turn errors of the library into ours, which quote no identifier.

        Args:
            about_one_object: Leave an HTTPError that concerns only the object sent.
        """
        try:
            yield
        except requests.HTTPError as error:
            if about_one_object and status_of(error) in OF_ONE_OBJECT:
                raise
            raise failure(error, self.where) from None
        except requests.RequestException as error:
            raise failure(error, self.where) from None
        except (ValueError, TypeError, KeyError, AttributeError, SyntaxError):
            raise LinkError(
                f"{self.where}: an answer that is not DICOMweb; is the url that of DICOMweb?"
            ) from None


def _text(found: Any, tag: str) -> str:
    """Return an element's first value in DICOM JSON (PS3.18 F); empty if it has none."""
    element = found.get(tag) if isinstance(found, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    first = values[0] if isinstance(values, list) and values else ""
    return str(first)[:256] if isinstance(first, str | int) else ""


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else None


def _only_part(content_type: str, body: bytes) -> bytes:
    """Return the only part of a multipart answer (RFC 2046 5.1).

    Raises:
        ObjectRefused: It has none.
    """
    _, _, after = content_type.partition("boundary=")
    boundary = b"--" + after.split(";")[0].strip().strip('"').encode()
    start = body.find(boundary)
    head_end = body.find(b"\r\n\r\n", start)
    end = body.find(b"\r\n" + boundary, head_end)
    if not after or min(start, head_end, end) < 0:
        raise ObjectRefused("the answer holds no object")
    if end - head_end > IMAGE_BYTES:
        raise ObjectRefused(f"more than {IMAGE_BYTES >> 20} MiB")
    return body[head_end + 4 : end]


def _check_stored(answer: Dataset, uid: str) -> None:
    """Check that an answer reports an object as stored.

    Raises:
        ObjectRefused: It does not.
    """
    if any(item.get("ReferencedSOPInstanceUID") == uid for item in answer.get(STORED, [])):
        return
    failed = [item.get("FailureReason") for item in answer.get("FailedSOPSequence", [])]
    is_said = bool(failed) and isinstance(failed[0], int)
    raise ObjectRefused(f"failure {failed[0]:#06x}" if is_said else "no confirmation")
