"""Pseudonyms that distinguish a site's patients and files without revealing their names."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from mamfed_common.errors import DataError, OutputError
from mamfed_common.runtime.bounded import KEY_BYTES, read_bytes
from mamfed_common.runtime.files import give_to_owner, private_directory, reason
from mamfed_common.runtime.places import config_folder

SECRET_BYTES = 32


def default_secret_path() -> Path:
    """Return ``$MAMFED_SECRET``, else ``$XDG_CONFIG_HOME`` or ``~/.config``, ``mamfed/secret``."""
    if chosen := os.environ.get("MAMFED_SECRET"):
        return Path(chosen)
    return config_folder() / "mamfed" / "secret"


def site_secret(path: Path | None = None) -> bytes:
    """Read the site's secret of 32 random bytes; create it if absent.

    Raises:
        DataError: The file is not a secret, or other users can read it.
        OutputError: The file cannot be read or created.
    """
    return read_key(path or default_secret_path(), "site secret")


def read_key(path: Path, what: str, *, make: bool = True) -> bytes:
    """Read 32 random bytes from a file of mode 0600.

    Args:
        path: The file.
        what: What to call the key in messages.
        make: Whether to create the file if it is absent.

    Raises:
        DataError: The file is absent, or has the wrong length or mode.
        OutputError: The file cannot be read or created.
    """
    if not make and not path.is_file():
        raise DataError(f"{path}: no such {what} file")
    try:
        _make(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        key = read_bytes(path, KEY_BYTES)
    except OSError as error:
        raise OutputError(
            f"{path}: the {what} cannot be read or created: {reason(path, error)}"
        ) from None
    if mode & 0o077:
        raise DataError(
            f"{path}: the {what} has mode {mode:04o}, so other users can read it; run chmod 600"
        )
    if len(key) != SECRET_BYTES:
        raise DataError(
            f"{path}: {len(key)} bytes, but a {what} has {SECRET_BYTES}; is this the right file?"
        )
    return key


def pseudonym(secret: bytes, *words: str) -> str:
    """Return 32 hexadecimal digits of an HMAC-SHA256 over words, the first of which is the kind.

    Without the secret, nobody can find a name by trying candidates.
    """
    message = b"".join(
        len(data).to_bytes(8) + data
        for data in (word.encode(errors="surrogateescape") for word in words)
    )
    return hmac.new(secret, message, hashlib.sha256).hexdigest()[:32]


def _make(path: Path) -> None:
    """Create the file under a temporary name first, so that no process sees a partial file."""
    if path.exists():
        return
    draft = private_directory(path.parent) / f".{path.name}.{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            give_to_owner(descriptor, path.parent)
            file.write(secrets.token_bytes(SECRET_BYTES))
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
