"""The decoding process, started by :class:`mamfed_client.sandbox.decoder.Decoder`.

Usage: ``python -P -m mamfed_client.sandbox.worker FD SECONDS``, with the descriptor of the pixel
buffer and the deadline per file.

Each line on standard input is a JSON request, each line on standard output a JSON answer; pixels go
into the buffer. The process limits its own memory and time, so a hostile file can at worst end this
process. Nothing is pickled, so a process that was taken over can only lie about a picture.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

if __name__ == "__main__":
    # pydicom imports them if it can, to download examples: a fifth of the time of the start.
    sys.modules["requests"] = sys.modules["tqdm"] = None  # type: ignore[assignment]

import numpy as np
import numpy.typing as npt

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.classes import MalignantClasses
from mamfed_client.annotations.dicom_mask import looks_like_mask
from mamfed_client.annotations.shapes import Annotation, Shape
from mamfed_client.imaging.dicom import read_display, read_identity, read_source
from mamfed_client.imaging.doubts import to_json
from mamfed_client.imaging.reader import read_mammogram
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.sandbox.hashing import hashing
from mamfed_client.sandbox.protocol import MAX_TEXT
from mamfed_common.runtime.bounded import IMAGE_BYTES, UnfitFileError, read_bytes
from mamfed_common.runtime.files import refusal_words

MAX_MEMORY = 3 << 30
MAX_OPEN_FILES = 64
GRACE_S = 5
MASKS_VERSION = 2
"""Increase whenever a change alters the masks drawn from the same annotations."""

Answer = dict[str, Any]
Buffer = npt.NDArray[np.uint8]


def main() -> None:
    """Answer requests until standard input closes."""
    descriptor, deadline_s = int(sys.argv[1]), float(sys.argv[2])
    assert not {"torch", "flwr"} & sys.modules.keys()
    answers = _private_output()
    buffer = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)
    sys.dont_write_bytecode = True  # that of the imports above was written, if this folder may be
    _limit()
    _write(answers, {"ready": True})
    for line in sys.stdin.buffer:
        signal.alarm(int(deadline_s) + GRACE_S)  # in case the parent has died
        answer = _answer(line, buffer)
        signal.alarm(0)
        _write(answers, answer)


def _private_output() -> IO[bytes]:
    """Reserve standard output for answers, and discard whatever a library prints there."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
    return answers


def _limit() -> None:
    limits = {
        resource.RLIMIT_AS: MAX_MEMORY,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
    }
    for limit, value in limits.items():
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):
            if sys.platform == "linux":  # macOS does not support RLIMIT_AS
                raise


def _write(answers: IO[bytes], answer: Answer) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def _answer(line: bytes, buffer: Buffer) -> Answer:
    """Execute a request; any exception becomes a rejection."""
    try:
        request = json.loads(line)
        return OPERATIONS[request.pop("op")](buffer, **request)
    except FileRejected as error:
        return _rejected(error.reason, error.detail)
    except MemoryError:
        return _rejected(Reason.TOO_LARGE, f"decoding needs more than {MAX_MEMORY >> 30} GiB")
    except BaseException as error:  # a Rust extension's PanicException is not an Exception
        return _rejected(Reason.UNREADABLE_IMAGE, f"{type(error).__name__} while decoding")


def _rejected(reason: Reason, detail: str) -> Answer:
    return {"refused": [reason, detail]}


def _mammogram(buffer: Buffer, path: str, allow: list[str], *, to_show: bool) -> Answer:
    """Decode an image; write grey levels and then the mask of valid pixels into the buffer."""
    data = _file_bytes(Path(path), Reason.MISSING_IMAGE)
    with hashing(data) as sha256:
        allowed = frozenset(map(Reason, allow))
        mammogram = read_mammogram(Path(path), allowed, data, to_show=to_show)
        facts = asdict(mammogram.facts)
        if any(len(text) > MAX_TEXT for text in facts.values() if isinstance(text, str)):
            raise FileRejected(
                Reason.UNREADABLE_IMAGE, f"a text of more than {MAX_TEXT} characters"
            )
        rows, columns = mammogram.grey.shape
        size = _put(buffer, mammogram.grey, 0)
        if mammogram.valid is not None:
            _put(buffer, mammogram.valid, size)
        return {
            "rows": rows,
            "columns": columns,
            "padded": mammogram.valid is not None,
            "facts": facts,
            "sha256": sha256(),
            "doubts": to_json(mammogram.doubts),
        }


def _mask(buffer: Buffer, annotations: list[Any], rows: int, columns: int) -> Answer:
    """Draw the mask of an image's annotations into the buffer."""
    parsed = [_annotation(fields) for fields in annotations]
    digest = hashlib.sha256(f"{MASKS_VERSION}".encode())
    for fields, annotation in zip(annotations, parsed, strict=True):
        digest.update(
            json.dumps([fields["image_name"], fields["shapes"], fields["malignant"]]).encode()
        )
        if annotation.path is not None:
            data = _file_bytes(annotation.path, Reason.MISSING_MASK)
            digest.update(hashlib.sha256(data).digest())
    marked = read_annotations(parsed, rows, columns)
    _put(buffer, marked.mask, 0)
    answer = marked._asdict()
    del answer["mask"]
    return answer | {"doubts": to_json(marked.doubts), "sha256": digest.hexdigest()}


def _is_mask(_: Buffer, path: str) -> Answer:
    """Return whether a DICOM file holds a mask rather than an image."""
    return {"is_mask": looks_like_mask(Path(path))}


def _annotation(fields: dict[str, Any]) -> Annotation:
    path = fields["path"]
    shapes = tuple(_shape(**shape) for shape in fields["shapes"])
    malignant = MalignantClasses(
        *(tuple(fields["malignant"][name]) for name in ("classes", "values"))
    )
    return Annotation(
        None if path is None else Path(path),
        fields["image_name"],
        shapes,
        malignant,
        fields["instance"],
    )


def _source(_: Buffer, path: str) -> Answer:
    """Read the header elements that an object derived from a DICOM file repeats."""
    return {"source": read_source(_file_bytes(Path(path), Reason.MISSING_IMAGE))}


def _display(buffer: Buffer, path: str) -> Answer:
    """Read how a DICOM file is displayed; write the table, if there is one, into the buffer."""
    steps, (height, width) = read_display(_file_bytes(Path(path), Reason.MISSING_IMAGE))
    _put(buffer, steps.table, 0)
    return {
        "slope": steps.slope,
        "intercept": steps.intercept,
        "window": None if steps.window is None else list(steps.window),
        "entries": steps.table.size,
        "inverted": steps.inverted,
        "height": height,
        "width": width,
    }


def _identity(_: Buffer, path: str) -> Answer:
    """Read what tells one DICOM object from another."""
    return {"identity": read_identity(_file_bytes(Path(path), Reason.MISSING_IMAGE))}


def _shape(kind: Any, points: Any, radii: Any, angle: float, name: str) -> Shape:
    return Shape(kind, tuple(tuple(point) for point in points), tuple(radii), angle, name)


def _file_bytes(path: Path, missing: Reason) -> bytes:
    """Read a file once, so that the hash belongs to the bytes decoded.

    A file that cannot be opened, or whose disk fails, is reported as missing, so that it is tried
    again later.
    """
    try:
        return read_bytes(path, IMAGE_BYTES)
    except FileNotFoundError:
        raise FileRejected(missing, "no such file") from None
    except UnfitFileError as error:
        if error.errno == errno.EFBIG:
            size = f"a file of more than {IMAGE_BYTES >> 20} MiB"
            raise FileRejected(Reason.TOO_LARGE, size) from None
        raise FileRejected(missing, refusal_words(error)) from None
    except OSError as error:
        raise FileRejected(missing, os.strerror(error.errno or 0)) from None


def _put(buffer: Buffer, image: npt.NDArray[Any], offset: int) -> int:
    """Copy an image into the buffer and return the offset of its end."""
    end = offset + image.nbytes
    buffer[offset:end].view(image.dtype).reshape(image.shape)[:] = image
    return end


OPERATIONS: dict[str, Callable[..., Answer]] = {
    "mammogram": _mammogram,
    "mask": _mask,
    "is_mask": _is_mask,
    "source": _source,
    "display": _display,
    "identity": _identity,
}

if __name__ == "__main__":
    main()
