"""A site's files -> mammograms and masks, decoded in a process that may die of them.

The process is ``worker.py``. What it answers is checked before it is believed, and pixels are
copied out of a buffer that it cannot take away: a hostile file may have taken it over.
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
from mamfed_client.imaging.mammogram import MAX_PIXELS, Mammogram, Mask
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.sandbox.process import SandboxProcess
from mamfed_client.sandbox.protocol import (
    ProtocolError,
    check_mammogram,
    check_mask,
    check_source,
    parse_answer,
)

BUFFER_SIZE = 3 * MAX_PIXELS
"""Bytes: 2 a grey level, 1 for whether it is valid."""
MAX_GROWN = 3 << 29
"""Bytes that a process may keep after a file; then it is replaced."""


class Decoder:
    """One decoding process, started when first needed and anew after it has died.

    A context manager. Use one a thread.

    Attributes:
        threads: How many the process may use for a file.
    """

    def __init__(self, deadline_s: float = 20.0, threads: int = 1) -> None:
        """Make the buffer that pixels come back in.

        Args:
            deadline_s: How long one file may take, in seconds.
            threads: How many the process may use for a file. JPEG 2000 gains by them; others
                hardly do. Hashing a file has one more.
        """
        self._deadline_s = deadline_s
        self.threads = threads
        self._buffer = _anonymous_file()
        self._child: SandboxProcess | None = None

    def __enter__(self) -> Self:
        """Return the decoder itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the process and free the buffer; nothing of an image remains."""
        self._end()
        self._buffer.close()

    def mammogram(
        self, path: Path, allow: frozenset[Reason] = frozenset(), *, to_show: bool = False
    ) -> tuple[Mammogram, str]:
        """Decode an image file.

        Args:
            path: The file.
            allow: Reasons for which it is not refused.
            to_show: Whether it is only to be looked at, so that what its pixels contradict does not
                refuse it.

        Returns:
            The mammogram, and the SHA-256 of the file's bytes in hexadecimal.

        Raises:
            FileRejected: The file cannot be used.
            MamfedError: No decoding process starts.
        """
        request = {"path": str(path.absolute()), "allow": sorted(allow), "to_show": to_show}
        answer = self._ask(op="mammogram", **request)
        try:
            said = check_mammogram(answer)
            shape = (said.rows, said.columns)
            grey = self._pixels(np.empty(shape, np.uint16))
            valid = self._flags(shape, grey.nbytes) if said.padded else None
        except ProtocolError:
            self._distrust()
        return Mammogram(grey, valid, said.facts, said.doubts), said.sha256

    def mask(
        self, annotations: Sequence[Annotation], rows: int, columns: int
    ) -> tuple[MarkedRegions, str]:
        """Draw the union of an image's annotations.

        Args:
            annotations: What outlines its findings.
            rows: The image's height in pixels.
            columns: The image's width in pixels.

        Returns:
            The mask, and the SHA-256 of all that it was made of, in hexadecimal.

        Raises:
            FileRejected: An annotation cannot be used.
            MamfedError: No decoding process starts.
        """
        assert 0 < rows * columns <= MAX_PIXELS
        fields = [_fields(annotation) for annotation in annotations]
        answer = self._ask(op="mask", annotations=fields, rows=rows, columns=columns)
        try:
            said = check_mask(answer)
            mask = self._flags((rows, columns))
        except ProtocolError:
            self._distrust()
        return (
            MarkedRegions(mask, *said[:5], said.doubts),
            said.sha256,
        )

    def is_mask(self, path: Path) -> bool:
        """Tell whether a DICOM file is a mask of two values rather than an image of many.

        Raises:
            FileRejected: The file cannot be used.
            MamfedError: No decoding process starts.
        """
        return self._ask(op="is_mask", path=str(path.absolute())).get("is_mask") is True

    def source(self, path: Path) -> Header:
        """Read what an object derived from a DICOM file needs of its header.

        All of it identifies the patient (:mod:`mamfed_client.imaging.derived_header`).

        Raises:
            FileRejected: The file cannot be used.
            MamfedError: No decoding process starts.
        """
        answer = self._ask(op="source", path=str(path.absolute()))
        try:
            return check_source(answer)
        except ProtocolError:
            self._distrust()

    def _ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            FileRejected: The file was refused, took too long or ended the process.
        """
        line = json.dumps(request).encode() + b"\n"
        child = self._started()
        try:
            return parse_answer(child.ask(line, self._deadline_s))
        except TimeoutError:
            self._end()
            raise FileRejected(Reason.TOO_SLOW, f"more than {self._deadline_s:g} seconds") from None
        except EOFError:
            raise _obituary(self._end()) from None
        except ProtocolError:
            self._distrust()
        except FileRejected as refusal:
            if refusal.reason is Reason.TOO_LARGE:  # it may still hold the memory
                self._end()
            raise
        except BaseException:  # Ctrl-C: the next answer would be to this request
            self._end()
            raise

    def _started(self) -> SandboxProcess:
        if self._child is None or not self._child.alive or self._child.resident > MAX_GROWN:
            self._end()
            self._child = SandboxProcess(self._buffer.fileno(), self._deadline_s, self.threads)
        return self._child

    def _end(self) -> int:
        """End the process, if there is one, and return its exit code."""
        child, self._child = self._child, None
        return child.end() if child else 0

    def _distrust(self) -> NoReturn:
        self._end()
        raise FileRejected(Reason.DECODER_CRASHED, "its answer makes no sense") from None

    def _flags(self, shape: tuple[int, int], offset: int = 0) -> Mask:
        flags: Mask = self._pixels(np.empty(shape, np.uint8), offset) != 0
        return flags

    def _pixels(self, image: npt.NDArray[Any], offset: int = 0) -> npt.NDArray[Any]:
        """Fill an image from the buffer.

        The buffer is read, not mapped: a process that cut it short would kill this one.
        """
        if os.preadv(self._buffer.fileno(), [image.data.cast("B")], offset) != image.nbytes:
            raise ProtocolError
        return image


def _anonymous_file() -> IO[bytes]:
    """Make a file without a name, so that nothing can leave patients' pixels behind."""
    if sys.platform == "linux":
        file: IO[bytes] = os.fdopen(os.memfd_create("mamfed"), "r+b", buffering=0)
    else:
        file = tempfile.TemporaryFile(buffering=0)
    file.truncate(BUFFER_SIZE)
    return file


def _fields(annotation: Annotation) -> dict[str, Any]:
    path = annotation.path
    return asdict(annotation) | {"path": None if path is None else str(path.absolute())}


def _obituary(code: int) -> FileRejected:
    if code == -signal.SIGALRM:
        return FileRejected(Reason.TOO_SLOW, "the decoding process gave up by itself")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return FileRejected(Reason.DECODER_CRASHED, how)
