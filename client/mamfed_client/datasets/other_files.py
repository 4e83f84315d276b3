"""Count the other files in a data set's folder: every file that is not one of its images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from enum import StrEnum
from pathlib import Path, PurePath

from mamfed_client.imaging.raster import SUFFIXES
from mamfed_common.errors import DataError
from mamfed_common.runtime.bounded import open_regular
from mamfed_common.runtime.files import refusal_words
from mamfed_common.runtime.output_checks import is_below

PREAMBLE = 128
"""Number of bytes before the "DICM" prefix of a DICOM file (PS3.10 7.1)."""


class OtherFile(StrEnum):
    """The kind of a file that is neither accepted nor rejected."""

    OUTLINE = "mask or outline"
    """Named by a row."""
    UNUSED_IMAGE = "image that no row names"
    ARCHIVE = "archive"
    """Not read, whatever it contains."""
    TABLE = "table"
    OTHER = "other file"
    HIDDEN = "hidden file"
    LINK = "link to a folder, to nothing or out of the folder"
    SPECIAL = "pipe, device or out of reach"


ARCHIVES = frozenset(
    ".zip .tar .gz .tgz .bz2 .tbz .tbz2 .xz .txz .lzma .7z .rar .zst .tzst .lz4 .cab .iso"
    " .dmg .zipx .arj .cpio".split()
)
TABLES = frozenset(".csv .tsv .xls .xlsx .xlsm .ods".split())
DOCUMENTS = frozenset(
    ".txt .xml .json .jsonl .yaml .yml .md .rst .pdf .rtf .doc .docx .odt .html .htm .css .js .log"
    " .md5 .sha256 .ini .inf .cfg .db .sqlite .py .ipynb .sh .bat .exe .dll .jar .ico .lnk .url"
    " .tmp .part .crdownload .bak .ps1 .mat .npy .npz .nii .mha .nrrd".split()
)
SIDECARS = ARCHIVES | TABLES | DOCUMENTS
"""Suffixes of files found next to images, including on discs that hospitals burn."""

SIDECAR_NAMES = frozenset({"README", "LICENSE", "LICENCE", "COPYING", "MD5SUMS", "SHA256SUMS"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima", ".dic"})


def is_sidecar(path: PurePath) -> bool:
    """Tell by its name whether a file is not an image."""
    return path.suffix.lower() in SIDECARS or path.name.upper() in SIDECAR_NAMES


def count_other_files(
    folder: Path, images: Collection[Path], outlines: Collection[Path]
) -> Counter[OtherFile]:
    """Count the files below a folder that are not among its images, each once.

    Args:
        folder: The data set.
        images: The image files that its rows name, usable or not.
        outlines: The other files that its rows name.

    Raises:
        DataError: A folder cannot be listed, so files would be missed.
    """
    parents = {parent for path in (*images, *outlines) for parent in path.parents}
    others = (path for path in _everything(folder) if path not in images)
    return Counter(_kind(folder, path, outlines) for path in others if path not in parents)


def describe(counts: Counter[OtherFile]) -> Iterator[str]:
    """Report files that a user may expect to be part of the data set, and what to do."""
    if archives := counts[OtherFile.ARCHIVE]:
        subject = "1 archive is" if archives == 1 else f"{archives} archives are"
        yield f"{subject} not read (zip, tar, 7z, dcm.gz and similar); unpack into the folder"
    if unused := counts[OtherFile.UNUSED_IMAGE]:
        subject = "1 image is" if unused == 1 else f"{unused} images are"
        yield f"{subject} not named by any row of the table, and not used"


def _everything(folder: Path) -> Iterator[Path]:
    """Yield all files and links below a folder, even hidden ones; do not follow folder links."""

    def stop(error: OSError) -> None:
        # The folder may be named after a patient, so only the system's message is shown.
        if not _is_hidden(folder, Path(error.filename)):
            raise DataError(f"a folder below the data set cannot be listed: {refusal_words(error)}")

    for parent, folders, files in os.walk(folder, onerror=stop):
        links = (name for name in folders if os.path.islink(os.path.join(parent, name)))
        yield from (Path(parent, name) for name in (*files, *links))


def _kind(folder: Path, path: Path, outlines: Collection[Path]) -> OtherFile:
    if path in outlines:
        return OtherFile.OUTLINE
    if _is_hidden(folder, path):
        return OtherFile.HIDDEN
    if path.is_symlink() and not (os.path.isfile(path) and is_below(path, folder)):
        return OtherFile.LINK
    if not os.path.isfile(path):
        return OtherFile.SPECIAL
    suffix = path.suffix.lower()
    if suffix in ARCHIVES:
        return OtherFile.ARCHIVE
    if suffix in TABLES:
        return OtherFile.TABLE
    if is_sidecar(path):
        return OtherFile.OTHER
    is_image = suffix in SUFFIXES | DICOM_SUFFIXES or _is_dicom(path)
    return OtherFile.UNUSED_IMAGE if is_image else OtherFile.OTHER


def _is_dicom(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"
    except OSError:
        return False


def is_hidden_name(name: str) -> bool:
    """Tell whether a file is hidden or added to an archive by macOS (``__MACOSX``, ``._*``)."""
    return name.startswith(".") or name == "__MACOSX"


def _is_hidden(folder: Path, path: Path) -> bool:
    return any(is_hidden_name(name) for name in path.relative_to(folder).parts)
