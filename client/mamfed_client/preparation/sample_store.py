"""Prepared samples on disk, found by the content of the files they were made of.

One safetensors file a sample: ``image`` uint16 and ``flags`` uint8, both ``(S, S)``, memory-mapped
when looked at. Its name is a hash and nothing inside it names a patient or a file. A site that asks
for encryption has the same bytes under AES-256-GCM, authenticated with their name.
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
from mamfed_common.runtime.files import cannot_write, private_directory, write_atomic
from mamfed_common.runtime.places import cache_folder
from mamfed_common.transforms.sample import Sample

METADATA = "mamfed"
FIELD, MASK = 1, 2
"""Bits of ``flags``."""
NONCE = 12
LARGEST_HEADER = 65536


class _Layout(NamedTuple):
    """Where things lie in a safetensors file: offsets in bytes."""

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
        key: The key of an encrypted one.
        sound: Whether its checksum has been seen to fit in this process.
    """

    path: Path
    key: bytes | None = field(default=None, repr=False)
    sound: bool = field(default=False, compare=False)

    def load(self, name: str) -> Sample:
        """Read the sample; its checksum is looked at the first time.

        Args:
            name: What the site calls the image.

        Raises:
            DataError: The file has vanished, is damaged or encrypted under another key. A damaged
                one is removed, so that the next preparation makes it anew.
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
            raise DataError(f"{self.path}: cached sample is gone; prepare it again") from None
        except InvalidTag:
            raise DataError(f"{self.path}: not encrypted under this key, or damaged") from None
        except (ValueError, KeyError, TypeError):
            self.path.unlink(missing_ok=True)
            raise DataError(
                f"{self.path}: cached sample was damaged and is removed; prepare it again"
            ) from None
        return Sample(image, flags & FIELD != 0, flags & MASK != 0, name)

    def is_sound(self) -> bool:
        """Tell whether the sample can be read; remove it where it is damaged."""
        try:
            self.load("")
        except DataError:
            return False
        return True

    def transform(self) -> Transform:
        """Return the way from the image file's pixels to the sample's.

        Raises:
            DataError: As :meth:`load`.
        """
        self.load("")
        return Transform.from_json(_layout(self._content()).facts["transform"])

    def _content(self) -> npt.NDArray[np.uint8]:
        """Map the file, or decrypt it."""
        if self.key is None:
            return np.memmap(self.path, np.uint8, mode="r")
        data = self.path.read_bytes()
        plain = AESGCM(self.key).decrypt(data[:NONCE], data[NONCE:], self.path.stem.encode())
        return np.frombuffer(plain, np.uint8)


class SampleStore:
    """A folder of samples."""

    def __init__(self, folder: Path, key: bytes | None = None) -> None:
        """Stand for a folder; with a key, its samples are encrypted."""
        self.folder = folder
        self.key = key

    def find(self, digest: str) -> StoredSample | None:
        """Return the sample of a content, if a file of the right length is there."""
        path = self._path(digest)
        try:
            if self.key is not None:
                return StoredSample(path, self.key) if path.stat().st_size > NONCE else None
            _layout(np.memmap(path, np.uint8, mode="r"))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return StoredSample(path)

    def add(self, digest: str, sample: Sample, transform: Transform) -> StoredSample:
        """Write the sample of a content.

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
        """Remove all other samples, and those of the other kind, encrypted or in the clear."""
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
    """Hash everything that a sample depends on.

    Args:
        image_sha256: Of the image file's content.
        mask_sha256: Of what its annotations hold; empty without.
        laterality: Which breast.
        size: Side of the sample in pixels.
        reading_version: Of the code that reads the files.
    """
    words = [image_sha256, mask_sha256, str(laterality), str(size), str(PREPARE_VERSION)]
    words.append(str(reading_version))
    return hashlib.sha256(" ".join(words).encode()).hexdigest()


def _packed(sample: Sample, transform: Transform) -> bytes:
    """Lay a sample out; all facts stand under one key, because safetensors shuffles several."""
    flags = sample.breast_mask * np.uint8(FIELD) | sample.mask * np.uint8(MASK)
    facts = {"transform": transform.to_json(), "crc32": _checksum(sample.image, flags)}
    metadata = {METADATA: json.dumps(facts, sort_keys=True)}
    return save({"image": sample.image, "flags": flags}, metadata)


def _layout(content: npt.NDArray[np.uint8]) -> _Layout:
    """Read the header: 8 bytes of length, then JSON.

    Raises:
        ValueError, KeyError, TypeError: This is no whole sample.
    """
    length = int.from_bytes(content[:8].tobytes(), "little")
    if not 0 < length <= LARGEST_HEADER:
        raise ValueError
    header = json.loads(content[8 : 8 + length].tobytes())
    facts = json.loads(header["__metadata__"][METADATA])
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
