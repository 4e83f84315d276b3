"""Store prepared samples on disk, addressed by the content of the files they were made from.

Each sample is one safetensors file with ``image`` uint16 and ``flags`` uint8, both ``(S, S)``,
memory-mapped on access. The file name is a hash, and nothing in the file names a patient or a file.
With encryption, the same bytes are stored under AES-256-GCM, authenticated with the file name.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from safetensors.numpy import save

from mamfed_client.imaging.geometry import Transform
from mamfed_client.imaging.mammogram import Laterality
from mamfed_client.imaging.preprocess import PREPARE_VERSION
from mamfed_common.errors import DataError
from mamfed_common.runtime.bounded import STATE_BYTES, parse_json, read_bytes
from mamfed_common.runtime.files import cannot_write, private_directory, write_atomic
from mamfed_common.runtime.places import cache_folder
from mamfed_common.runtime.seal import sealed, unsealed
from mamfed_common.transforms.sample import Sample

METADATA = "mamfed"
FIELD, MASK = 1, 2
"""Bits of ``flags``."""
NONCE = 12
LARGEST_HEADER = 65536


class _Layout(NamedTuple):
    """Offsets in a safetensors file, in bytes, and its metadata."""

    side: int
    image: int
    flags: int
    end: int
    facts: dict[str, Any]


@dataclass(slots=True)
class StoredSample:
    """A prepared sample on disk.

    Attributes:
        path: The file.
        key: The encryption key; None if the sample is not encrypted.
        sound: Whether this process has verified the checksum.
    """

    path: Path
    key: bytes | None = field(default=None, repr=False)
    sound: bool = field(default=False, compare=False)

    def load(self, name: str) -> Sample:
        """Read the sample; the checksum is verified on the first read.

        Args:
            name: The site's name for the image.

        Raises:
            DataError: The file is missing, damaged or encrypted with another key. A damaged file
                is deleted, so that the next preparation creates it again.
        """
        try:
            content = self._content()
            layout = _layout(content)
            image, flags = _arrays(content, layout)
            if not self.sound:
                self.sound = _checksum(image, flags) == layout.facts["crc32"]
            if not self.sound:
                raise ValueError
        except OSError:
            raise DataError(
                f"{self.path}: the stored sample is missing; prepare the folder again"
            ) from None
        except InvalidTag:
            raise DataError(
                f"{self.path}: encrypted with another key, or damaged; check the key file"
            ) from None
        except (ValueError, KeyError, TypeError):
            self.path.unlink(missing_ok=True)
            raise DataError(
                f"{self.path}: the stored sample was damaged and has been deleted; prepare the "
                "folder again"
            ) from None
        return Sample(image, flags & FIELD != 0, flags & MASK != 0, name)

    def is_sound(self) -> bool:
        """Tell whether the sample can be read; a damaged file is deleted."""
        try:
            self.load("")
        except DataError:
            return False
        return True

    def transform(self) -> Transform:
        """Return the transform from the image file's pixels to the sample's.

        Raises:
            DataError: As :meth:`load`.
        """
        self.load("")
        return Transform.from_json(_layout(self._content()).facts["transform"])

    def _content(self) -> npt.NDArray[np.uint8]:
        """Map the file, or decrypt it."""
        if self.key is None:
            return np.memmap(self.path, np.uint8, mode="r")
        data = read_bytes(self.path, STATE_BYTES)
        plain = AESGCM(self.key).decrypt(data[:NONCE], data[NONCE:], self.path.stem.encode())
        return np.frombuffer(plain, np.uint8)


class SampleStore:
    """A folder of samples."""

    def __init__(self, folder: Path, key: bytes | None = None) -> None:
        """Open a sample folder; ``key`` enables encryption."""
        self.folder = folder
        self.key = key

    def find(self, digest: str) -> StoredSample | None:
        """Return the sample with this digest if its file exists and has the right length."""
        path = self._path(digest)
        try:
            if self.key is not None:
                return StoredSample(path, self.key) if path.stat().st_size > NONCE else None
            _layout(np.memmap(path, np.uint8, mode="r"))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return StoredSample(path)

    def add(self, digest: str, sample: Sample, transform: Transform) -> StoredSample:
        """Write a sample under its digest.

        Raises:
            OutputError: The folder cannot be written.
        """
        path = self._path(digest)
        content = _packed(sample, transform)
        if self.key is not None:
            nonce = secrets.token_bytes(NONCE)
            content = nonce + AESGCM(self.key).encrypt(nonce, content, digest.encode())
        try:
            write_atomic(private_directory(path.parent) / path.name, content)
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        return StoredSample(path, self.key)

    def keep_only(self, digests: Container[str]) -> None:
        """Delete all other samples, and all that do not match the store's encryption setting."""
        for path in self.folder.glob("??/*"):
            if path.stem not in digests or path != self._path(path.stem):
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        suffix = "safetensors" if self.key is None else "aes"
        return self.folder / digest[:2] / f"{digest}.{suffix}"


def default_cache_dir() -> Path:
    """Return ``$MAMFED_CACHE``, else ``mamfed`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("MAMFED_CACHE"):
        return Path(chosen)
    return cache_folder() / "mamfed"


def digest(
    image_sha256: str,
    mask_sha256: str,
    laterality: Laterality | None,
    size: int,
    reading_version: int,
) -> str:
    """Hash everything that determines a sample.

    Args:
        image_sha256: SHA-256 of the image file.
        mask_sha256: SHA-256 of the annotations; empty if there are none.
        laterality: Which breast.
        size: Side of the sample in pixels.
        reading_version: Version of the code that reads the files.
    """
    words = [image_sha256, mask_sha256, str(laterality), str(size), str(PREPARE_VERSION)]
    words.append(str(reading_version))
    return hashlib.sha256(" ".join(words).encode()).hexdigest()


def _packed(sample: Sample, transform: Transform) -> bytes:
    """Serialise a sample; all metadata is under one key, as safetensors does not order keys."""
    flags = sample.breast_mask * np.uint8(FIELD) | sample.mask * np.uint8(MASK)
    facts = {"transform": transform.to_json(), "crc32": _checksum(sample.image, flags)}
    metadata = {METADATA: sealed(json.dumps(facts, sort_keys=True))}
    return save({"image": sample.image, "flags": flags}, metadata)


def _layout(content: npt.NDArray[np.uint8]) -> _Layout:
    """Read the header: 8 bytes of length, then JSON.

    Raises:
        ValueError, KeyError, TypeError: The content is not a complete sample.
    """
    length = int.from_bytes(content[:8].tobytes(), "little")
    if not 0 < length <= LARGEST_HEADER:
        raise ValueError
    header = parse_json(content[8 : 8 + length].tobytes())
    facts = parse_json(unsealed(header["__metadata__"][METADATA]))
    if facts.keys() != {"transform", "crc32"}:
        raise ValueError
    side = int(facts["transform"]["size"])
    image, flags = (8 + length + int(header[n]["data_offsets"][0]) for n in ("image", "flags"))
    layout = _Layout(side, image, flags, max(image + 2 * side**2, flags + side**2), facts)
    if len(content) != layout.end or min(image, flags) < 8 + length:
        raise ValueError
    return layout


def _arrays(
    content: npt.NDArray[np.uint8], layout: _Layout
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """View image and flags without copying them."""
    side = layout.side
    image = np.frombuffer(content, "<u2", side**2, layout.image).reshape(side, side)
    flags = np.frombuffer(content, np.uint8, side**2, layout.flags).reshape(side, side)
    return image, flags


def _checksum(image: npt.NDArray[Any], flags: npt.NDArray[Any]) -> int:
    return zlib.crc32(flags.data, zlib.crc32(image.data))
