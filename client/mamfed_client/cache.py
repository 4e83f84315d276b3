"""Prepared samples on disk, found by the content of the files they were made of.

One safetensors file per image: ``image`` uint16 and ``flags`` uint8, both ``(S, S)``. Its name is a
hash and nothing inside it names a patient or a file. All else stands as JSON under one key:
safetensors orders several at random, and equal samples should be equal files.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mamfed_client.mammogram import Laterality
from mamfed_client.preprocess import PREPARE_VERSION, prepare
from mamfed_client.reading import read_lesions, read_mammogram
from mamfed_client.rejections import Reason, Refusal
from mamfed_client.transform import Transform
from mamfed_common.errors import DataError, OutputError
from mamfed_common.files import private_directory, write_atomic
from mamfed_common.samples import Sample

METADATA = "mamfed"
FIELD, MASK = 1, 2
"""Bits of ``flags``."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a sample is made of.

    Attributes:
        image_path: The image file.
        mask_path: The mask file of a malignant image, else None.
        laterality: Which breast, as the table says.
        size: Side of the sample in pixels.
    """

    image_path: Path
    mask_path: Path | None
    laterality: Laterality | None
    size: int

    def digest(self) -> str:
        """Hash everything that the sample depends on.

        Raises:
            Refusal: A file cannot be read.
        """
        image = _file_digest(self.image_path, Reason.UNREADABLE_IMAGE)
        mask = _file_digest(self.mask_path, Reason.UNREADABLE_MASK) if self.mask_path else ""
        words = [image, mask, str(self.laterality), str(self.size), str(PREPARE_VERSION)]
        return hashlib.sha256(" ".join(words).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """A prepared sample on disk.

    Attributes:
        path: The file.
        transform: The way from the image file's pixels to the sample's.
        view: The view, if the image file says so.
        spacing_mm: Distance of the image file's pixel centres, if it says so.
        vendor: Who made the unit, if the image file says so.
    """

    path: Path
    transform: Transform
    view: str | None
    spacing_mm: float | None
    vendor: str | None

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """Open and check a cached sample; None where it is absent or damaged."""
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads((file.metadata() or {})[METADATA])
                image, flags = file.get_tensor("image"), file.get_tensor("flags")
            transform, crc32 = Transform.from_json(facts.pop("transform")), facts.pop("crc32")
            whole = image.shape == flags.shape == (transform.size, transform.size)
            sound = whole and _checksum(image, flags) == crc32
            return cls(path, transform, **facts) if sound else None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError):
            return None

    def load(self, name: str) -> Sample:
        """Read the sample.

        Args:
            name: What the site calls the image.

        Raises:
            DataError: The file has vanished or changed since it was checked.
        """
        try:
            with safe_open(self.path, framework="numpy") as file:
                image, flags = file.get_tensor("image"), file.get_tensor("flags")
        except (OSError, SafetensorError):
            raise DataError(
                f"{self.path}: cached sample is gone; start again to remake it"
            ) from None
        return Sample(image, flags & FIELD != 0, flags & MASK != 0, name)


def default_cache_dir() -> Path:
    """Return ``$MAMFED_CACHE``, else ``mamfed`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("MAMFED_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mamfed"


def cached(source: Source, cache_dir: Path) -> Entry:
    """Find a sample in the cache, or make it there.

    Args:
        source: What it is made of.
        cache_dir: Where the cache lies; made if absent, for its owner only.

    Raises:
        Refusal: The image or its mask cannot be used.
        OutputError: The cache cannot be written.
    """
    path = cache_dir / f"{source.digest()}.safetensors"
    entry = Entry.open(path)
    if entry is None:
        content = _prepared(source)
        try:
            write_atomic(private_directory(cache_dir) / path.name, content)
        except OSError as error:
            raise OutputError(f"{cache_dir}: cache cannot be written: {error.strerror}") from None
        entry = Entry.open(path)
    assert entry is not None
    return entry


def _prepared(source: Source) -> bytes:
    """Make the content of a cache file."""
    mammogram = read_mammogram(source.image_path)
    if source.laterality is not None:
        mammogram = replace(mammogram, laterality=source.laterality)
    mask = read_lesions(source.mask_path, mammogram) if source.mask_path else None
    sample, transform = prepare(mammogram, mask, source.size)
    flags = sample.field * np.uint8(FIELD) | sample.mask * np.uint8(MASK)
    facts = {
        "transform": transform.to_json(),
        "view": mammogram.view,
        "spacing_mm": mammogram.spacing_mm,
        "vendor": mammogram.vendor,
        "crc32": _checksum(sample.image, flags),
    }
    return save({"image": sample.image, "flags": flags}, {METADATA: json.dumps(facts)})


def _checksum(image: npt.NDArray[Any], flags: npt.NDArray[Any]) -> int:
    return zlib.crc32(flags.tobytes(), zlib.crc32(image.tobytes()))


def _file_digest(path: Path, unreadable: Reason) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Refusal(unreadable, str(error.strerror)) from None
