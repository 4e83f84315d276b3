"""Names that tell patients and files apart at a site without saying who or what they are."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from mamfed_common.errors import DataError, OutputError
from mamfed_common.runtime.files import give_to_owner, private_directory, reason
from mamfed_common.runtime.places import config_folder

SECRET_BYTES = 32


def default_secret_path() -> Path:
    """Return ``$MAMFED_SECRET``, else ``$XDG_CONFIG_HOME`` or ``~/.config``, ``mamfed/secret``."""
    if chosen := os.environ.get("MAMFED_SECRET"):
        return Path(chosen)
    return config_folder() / "mamfed" / "secret"


def site_secret(path: Path | None = None) -> bytes:
    """Read the site's secret, 32 random bytes; make it where there is none.

    Raises:
        DataError: The file is no secret, or others may read it.
        OutputError: It cannot be made.
    """
    return read_key(path or default_secret_path(), "site secret")


def read_key(path: Path, what: str, *, make: bool = True) -> bytes:
    """Read 32 random bytes from a file of mode 0600.

    Args:
        path: The file.
        what: What the key is, for messages.
        make: Whether to make the file where there is none.

    Raises:
        DataError: The file has another length or mode, or is not there.
        OutputError: It cannot be made.
    """
    if not make and not path.is_file():
        raise DataError(f"{path}: no {what} there")
    try:
        _make(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        key = path.read_bytes()
    except OSError as error:
        raise OutputError(f"{path}: {what} cannot be read or made: {reason(path, error)}") from None
    if mode & 0o077:
        raise DataError(f"{path}: the {what} has mode {mode:04o}, others may read it; chmod 600 it")
    if len(key) != SECRET_BYTES:
        raise DataError(
            f"{path}: {len(key)} bytes, a {what} has {SECRET_BYTES}; is it another file?"
        )
    return key


def pseudonym(secret: bytes, *words: str) -> str:
    """Return 32 hexadecimal digits of HMAC-SHA256 over words, the first of which says what it is.

    Without the secret nobody can try names out until one fits.
    """
    message = b"".join(
        len(data).to_bytes(8) + data
        for data in (word.encode(errors="surrogateescape") for word in words)
    )
    return hmac.new(secret, message, hashlib.sha256).hexdigest()[:32]


def _make(path: Path) -> None:
    """Write the file under another name first: a second process sees all of it or nothing."""
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
