"""The password file of a page that other machines may open: names, and their passwords by scrypt.

One line per person: ``name:scrypt:n:r:p:salt:hash``, with salt and hash in base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import NamedTuple

from mamfed_common.errors import SetupError
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_bytes
from mamfed_common.runtime.files import reason, write_atomic

COST, BLOCK, LANES = 2**15, 8, 1
"""scrypt's n, r and p: 32 MiB and about 0.1 s a guess (RFC 7914, 2)."""
MEMORY_BYTES = 2**26
SALT_BYTES, HASH_BYTES = 16, 32
SHORTEST = 12
"""Minimum length of a password, in characters."""
LONGEST = 1024
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class _Entry(NamedTuple):
    cost: int
    block: int
    lanes: int
    salt: bytes
    digest: bytes

    def fits(self, password: str) -> bool:
        found = _digest(password, self.salt, self.cost, self.block, self.lanes)
        return hmac.compare_digest(found, self.digest)


_NOBODY = _Entry(COST, BLOCK, LANES, bytes(SALT_BYTES), bytes(HASH_BYTES))
"""Compared for an unknown name, so that the answer takes as long as for a known one."""


def check_new(name: str, password: str) -> None:
    """Check a name and a password before they are written.

    Raises:
        SetupError: The name is not one word, or the password is too short or too long.
    """
    if not NAME.fullmatch(name):
        raise SetupError(f"name: found {name!r}, expected letters, digits, dots and dashes")
    if not SHORTEST <= len(password) <= LONGEST:
        raise SetupError(
            f"password: found {len(password)} characters, expected {SHORTEST} to {LONGEST}; a few "
            "random words are easy to type"
        )


def set_password(path: Path, name: str, password: str) -> bool:
    """Write a person's password to a file (0600); return whether the name is new.

    Raises:
        SetupError: The name or the password cannot be used, or the file is damaged.
        OSError: The file cannot be written.
    """
    check_new(name, password)
    entries = _read(path) if path.exists() else {}
    salt, is_new = os.urandom(SALT_BYTES), name not in entries
    digest = _digest(password, salt, COST, BLOCK, LANES)
    entries[name] = _Entry(COST, BLOCK, LANES, salt, digest)
    write_atomic(path, "".join(_line(who, entry) for who, entry in sorted(entries.items())))
    return is_new


def check_file(path: Path) -> int:
    """Check a password file; return how many people it names.

    Raises:
        SetupError: It is missing, damaged, empty, or other users may read it.
    """
    entries = _read(path)
    if not entries:
        raise SetupError(f"{path}: names nobody")
    if path.stat().st_mode & 0o077:
        raise SetupError(f"{path}: other users may read it; run chmod 600 {path}")
    return len(entries)


def is_right(path: Path, name: str, password: str) -> bool:
    """Return whether a password is that of a name; takes as long for an unknown name.

    Raises:
        SetupError: The file is missing or damaged.
    """
    entry = _read(path).get(name, _NOBODY)
    return entry.fits(password[:LONGEST]) and entry is not _NOBODY


def _digest(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "replace"),
        salt=salt, n=cost, r=block, p=lanes, maxmem=MEMORY_BYTES, dklen=HASH_BYTES,
    )  # fmt: skip


def _line(name: str, entry: _Entry) -> str:
    salt, digest = (base64.b64encode(part).decode() for part in (entry.salt, entry.digest))
    return f"{name}:scrypt:{entry.cost}:{entry.block}:{entry.lanes}:{salt}:{digest}\n"


def _read(path: Path) -> dict[str, _Entry]:
    try:
        text = read_bytes(path, DOCUMENT_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: cannot be read: {reason(path, error)}") from None
    return dict(_parse(path, i, line) for i, line in enumerate(text.splitlines(), 1) if line)


def _parse(path: Path, number: int, line: str) -> tuple[str, _Entry]:
    try:
        name, kind, cost, block, lanes, salt, digest = line.split(":")
        numbers = int(cost), int(block), int(lanes)
        entry = _Entry(
            *numbers, *(base64.b64decode(part, validate=True) for part in (salt, digest))
        )
    except (ValueError, binascii.Error):
        kind, name, entry = "", "", _NOBODY
    is_costly_enough = COST <= entry.cost <= 2**16 and entry.block == BLOCK
    fits = len(entry.digest) == HASH_BYTES and is_costly_enough and entry.lanes == LANES
    if kind != "scrypt" or not NAME.fullmatch(name) or not fits:
        raise SetupError(
            f"{path}: line {number} is damaged, expected name:scrypt:n:r:p:salt:hash; write the "
            "file with the password command"
        )
    return name, entry
