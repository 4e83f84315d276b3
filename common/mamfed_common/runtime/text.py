"""Read text files that people and other programs wrote.

Editors and spreadsheets add a byte order mark (Unicode 16.0, 23.8), PowerShell writes UTF-16, and
cells copied from a web page or a PDF contain unusual spaces and invisible characters.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import Path

from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_bytes

_MARKS = (  # UTF-32 first: its little-endian mark starts with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ODD_BLANKS = re.compile("[\u00a0\u2000-\u200a\u202f\u3000]")
_SPACES = re.compile(r"\s+")


class NotTextError(ValueError):
    """Bytes are not text; the message gives the line and the remedy, and quotes no content."""


def encoding_of(data: bytes) -> str:
    """Return the encoding of a text by its byte order mark; UTF-8 if it has none."""
    return next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")


def decode_text(data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one.

    Raises:
        NotTextError: The bytes are in another encoding, such as Windows-1252, or not text.
    """
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(data[: error.start].splitlines()) or 1
        where = f" (line {line})" if encoding.startswith("utf-8") else ""
        raise NotTextError(f"not UTF-8 text{where}; save the file as UTF-8") from None
    if "\0" in text:
        raise NotTextError("not UTF-8 text (UTF-16 without its mark?); save the file as UTF-8")
    return text.removeprefix("\ufeff")  # a second mark, from saving a file that had one


def read_text(path: Path, limit: int = DOCUMENT_BYTES) -> str:
    """Read a whole text file of at most ``limit`` bytes.

    Raises:
        OSError: It cannot be read, is not a regular file, or is too large.
        NotTextError: It is in another encoding, or not text.
    """
    return decode_text(read_bytes(path, limit))


def typed_blanks(text: str) -> str:
    """Replace the unusual spaces of word processors and web pages by plain ones."""
    return _ODD_BLANKS.sub(" ", text)


def plain(text: str) -> str:
    """Normalise a text to what one would type, with single spaces between words.

    Unicode's compatibility form (NFKC, UAX #15) narrows full-width letters and turns no-break
    spaces into plain ones. Characters without width (category Cf: zero-width spaces, direction
    marks, soft hyphens) and control characters are removed.
    """
    spaced = _SPACES.sub(" ", unicodedata.normalize("NFKC", text))
    return "".join(c for c in spaced if unicodedata.category(c) not in ("Cf", "Cc")).strip()
