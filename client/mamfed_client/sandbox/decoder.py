"""Decode a site's files into mammograms and masks, in a disposable process.

The process runs ``worker.py``. Since a hostile file may have taken it over, its answers are
validated, and pixels are copied from a buffer that it cannot take away.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from mamfed_client.annotations import MarkedRegions
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.derived_header import Header
from mamfed_client.imaging.display_steps import DisplaySteps
from mamfed_client.imaging.mammogram import MAX_PIXELS, Mammogram, Mask
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.sandbox.process import SandboxProcess
from mamfed_client.sandbox.protocol import (
    ProtocolError,
    check_display,
    check_identity,
    check_mammogram,
    check_mask,
    check_source,
    parse_answer,
)

BUFFER_SIZE = 3 * MAX_PIXELS
"""Bytes: two for each grey level, one for its validity."""
MAX_RESIDENT = 3 << 29
"""A process that holds more bytes of memory than this is replaced before the next file."""


class Decoder:
    """A decoding process, started on first use and restarted after it has died.

    Use it as a context manager, and from one thread at a time.

    Attributes:
        threads: Number of threads that the process may use for a file.
    """

    def __init__(self, deadline_s: float = 20.0, threads: int = 1) -> None:
        """Create the buffer through which the process returns pixels.

        Args:
            deadline_s: Maximum time for a file, in seconds.
            threads: Number of threads that the process may use for a file, besides one for hashing.
                They speed up JPEG 2000, but hardly any other format.
        """
        self._deadline_s = deadline_s
        self.threads = threads
        self._buffer = _anonymous_file()
        self._child: SandboxProcess | None = None

    def __enter__(self) -> Self:
        """Return the decoder itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the decoder."""
        self.close()

    def close(self) -> None:
        """End the process and free the buffer, leaving no image data behind."""
        self._end()
        self._buffer.close()

    def mammogram(
        self, path: Path, allow: frozenset[Reason] = frozenset(), *, to_show: bool = False
    ) -> tuple[Mammogram, str]:
        """Decode an image file.

        Args:
            path: The file.
            allow: Screening checks to ignore; see ``check_screening``.
            to_show: Read for display only: accept pixels that contradict the header.

        Returns:
            The mammogram, and the SHA-256 of the file's bytes in hexadecimal.

        Raises:
            FileRejected: The file cannot be used.
            MamfedError: The decoding process cannot be started.
        """
        request = {"path": str(path.absolute()), "allow": sorted(allow), "to_show": to_show}
        answer = self._ask(op="mammogram", **request)
        try:
            result = check_mammogram(answer)
            shape = (result.rows, result.columns)
            grey = self._read_pixels(np.empty(shape, np.uint16))
            valid = self._read_mask(shape, grey.nbytes) if result.padded else None
        except ProtocolError:
            self._reject_answer()
        return Mammogram(grey, valid, result.facts, result.doubts), result.sha256

    def mask(
        self, annotations: Sequence[Annotation], rows: int, columns: int
    ) -> tuple[MarkedRegions, str]:
        """Draw the union of an image's annotations.

        Args:
            annotations: The annotations of its findings.
            rows: The image's height in pixels.
            columns: The image's width in pixels.

        Returns:
            The mask, and the SHA-256 of all its inputs in hexadecimal.

        Raises:
            FileRejected: An annotation cannot be used.
            MamfedError: The decoding process cannot be started.
        """
        assert 0 < rows * columns <= MAX_PIXELS
        fields = [_annotation_to_json(annotation) for annotation in annotations]
        answer = self._ask(op="mask", annotations=fields, rows=rows, columns=columns)
        try:
            result = check_mask(answer)
            mask = self._read_mask((rows, columns))
        except ProtocolError:
            self._reject_answer()
        return MarkedRegions(mask, *result[:5], result.doubts), result.sha256

    def is_mask(self, path: Path) -> bool:
        """Return whether a DICOM file holds a mask of two values rather than an image.

        Raises:
            FileRejected: The file cannot be used.
            MamfedError: The decoding process cannot be started.
        """
        return self._ask(op="is_mask", path=str(path.absolute())).get("is_mask") is True

    def source(self, path: Path) -> Header:
        """Read the header elements that an object derived from a DICOM file repeats.

        They identify the patient (:mod:`mamfed_client.imaging.derived_header`).

        Raises:
            FileRejected: The file cannot be used.
            MamfedError: The decoding process cannot be started.
        """
        answer = self._ask(op="source", path=str(path.absolute()))
        try:
            return check_source(answer)
        except ProtocolError:
            self._reject_answer()

    def display(self, path: Path) -> tuple[DisplaySteps, tuple[float, float]]:
        """Read how a DICOM file that :meth:`mammogram` accepts is displayed.

        Returns:
            The steps from stored values to grey levels, and a pixel's height and width.

        Raises:
            FileRejected: The file cannot be used.
            MamfedError: The decoding process cannot be started.
        """
        answer = self._ask(op="display", path=str(path.absolute()))
        try:
            found = check_display(answer)
            table = np.empty(found.entries, np.uint16)
            if found.entries:
                self._read_pixels(table)
        except ProtocolError:
            self._reject_answer()
        return DisplaySteps(*found[:3], table, found.inverted), found.pixel

    def identity(self, path: Path) -> dict[str, str]:
        """Read what tells one DICOM object from another: ``dicom_header.IDENTITY``.

        Raises:
            FileRejected: The file is no DICOM object that can be read.
            MamfedError: The decoding process cannot be started.
        """
        answer = self._ask(op="identity", path=str(path.absolute()))
        try:
            return check_identity(answer)
        except ProtocolError:
            self._reject_answer()

    def _ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return its answer.

        Raises:
            FileRejected: The file was rejected, took too long or crashed the process.
        """
        line = json.dumps(request).encode() + b"\n"
        child = self._ensure_started()
        try:
            return parse_answer(child.ask(line, self._deadline_s))
        except TimeoutError:
            self._end()
            raise FileRejected(Reason.TOO_SLOW, f"more than {self._deadline_s:g} seconds") from None
        except EOFError:
            raise _exit_reason(self._end()) from None
        except ProtocolError:
            self._reject_answer()
        except FileRejected as error:
            if error.reason is Reason.TOO_LARGE:  # the process may still hold the memory
                self._end()
            raise
        except (
            BaseException
        ):  # e.g. Ctrl-C: this request's answer would be taken for the next one's
            self._end()
            raise

    def _ensure_started(self) -> SandboxProcess:
        if self._child is None or not self._child.alive or self._child.resident > MAX_RESIDENT:
            self._end()
            self._child = SandboxProcess(self._buffer.fileno(), self._deadline_s, self.threads)
        return self._child

    def _end(self) -> int:
        """End the process, if any, and return its exit code."""
        child, self._child = self._child, None
        return child.end() if child else 0

    def _reject_answer(self) -> NoReturn:
        self._end()
        raise FileRejected(Reason.DECODER_CRASHED, "its answer is invalid") from None

    def _read_mask(self, shape: tuple[int, int], offset: int = 0) -> Mask:
        mask: Mask = self._read_pixels(np.empty(shape, np.uint8), offset) != 0
        return mask

    def _read_pixels(self, image: npt.NDArray[Any], offset: int = 0) -> npt.NDArray[Any]:
        """Fill an image from the buffer.

        The buffer is read rather than mapped: if the child truncated it, accessing a mapping would
        kill this process.
        """
        if os.preadv(self._buffer.fileno(), [image.data.cast("B")], offset) != image.nbytes:
            raise ProtocolError
        return image


def _anonymous_file() -> IO[bytes]:
    """Create a file without a name, so that no patient's pixels can be left behind."""
    if sys.platform == "linux":
        file: IO[bytes] = os.fdopen(os.memfd_create("mamfed"), "r+b", buffering=0)
    else:
        file = tempfile.TemporaryFile(buffering=0)
    file.truncate(BUFFER_SIZE)
    return file


def _annotation_to_json(annotation: Annotation) -> dict[str, Any]:
    path = annotation.path
    return asdict(annotation) | {"path": None if path is None else str(path.absolute())}


def _exit_reason(code: int) -> FileRejected:
    if code == -signal.SIGALRM:
        return FileRejected(Reason.TOO_SLOW, "the decoding process exceeded its own time limit")
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return FileRejected(Reason.DECODER_CRASHED, cause)
