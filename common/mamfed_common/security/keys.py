"""Private keys on disk: created once, never overwritten, readable by their owner only."""

from __future__ import annotations

import base64
import stat
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from mamfed_common.errors import SetupError
from mamfed_common.runtime.bounded import KEY_BYTES, read_bytes
from mamfed_common.runtime.files import private_directory, reason, write_atomic

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey
PublicKey = EllipticCurvePublicKey | Ed25519PublicKey
Kind = TypeVar("Kind", EllipticCurvePrivateKey, Ed25519PrivateKey)
PublicKind = TypeVar("PublicKind", EllipticCurvePublicKey, Ed25519PublicKey)
Found = TypeVar("Found")

OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"


def new_ec_key() -> EllipticCurvePrivateKey:
    """Create an EC P-384 key, the curve of Flower's node keys."""
    return generate_private_key(SECP384R1())


def write_key(path: Path, key: PrivateKey, *, openssh: bool = False) -> None:
    """Write a private key (0600, in a folder of 0700) as PKCS8 PEM, or as OpenSSH.

    Raises:
        SetupError: The file exists; keys are never overwritten.
    """
    if path.exists():
        raise SetupError(f"{path}: a key exists already and is never overwritten")
    form = PrivateFormat.OpenSSH if openssh else PrivateFormat.PKCS8
    private_directory(path.parent)
    write_atomic(path, key.private_bytes(Encoding.PEM, form, NoEncryption()))


def read_key(path: Path, kind: Callable[..., Kind]) -> Kind:
    """Read a private key that only its owner may read.

    Raises:
        SetupError: It is missing, readable by others, damaged or of another type. The message never
            quotes the file's content.
    """
    try:
        content = read_bytes(path, KEY_BYTES).removeprefix(BOM_UTF8)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise SetupError(f"{path}: the key cannot be read: {reason(path, error)}") from None
    if mode & 0o077:
        raise SetupError(f"{path}: others may read this key (mode {mode:04o}): chmod 600 {path}")
    return _checked(path, content, kind)


def spki(public_key: PublicKey) -> bytes:
    """Return a public key as DER SubjectPublicKeyInfo (RFC 5280, 4.1.2.7)."""
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def openssh_text(public_key: PublicKey) -> str:
    """Return a public key as one line of OpenSSH, without a comment."""
    return public_key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def parse_openssh(text: str, kind: Callable[..., PublicKind], origin: str) -> PublicKind:
    """Read a public key from one line in OpenSSH format.

    Raises:
        SetupError: It is not a public key, or of another type or curve; ``origin`` names its
            source.
    """
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise SetupError(f"{origin}: not a public key in OpenSSH format") from None
    return _of_kind(key, kind, origin)


def _checked(path: Path, content: bytes, kind: Callable[..., Kind]) -> Kind:
    is_openssh = content.startswith(OPENSSH)
    load = load_ssh_private_key if is_openssh else load_pem_private_key
    damaged = SetupError(f"{path}: damaged, or protected by a password; restore it from backup")
    try:
        key = load(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise damaged from None
    checked = _of_kind(key, kind, str(path))
    if is_openssh and not _states_public_key(content, checked.public_key()):
        raise damaged
    return checked


def _states_public_key(content: bytes, public_key: PublicKey) -> bool:
    """Return whether an OpenSSH file states the public key of its own private number.

    The library derives the public key from the private number without comparing the two, so that a
    single changed bit would be another key.
    """
    try:
        decoded = base64.b64decode(b"".join(content.split(b"-----")[2].split()))
        stated = base64.b64decode(openssh_text(public_key).split()[1])
    except (IndexError, ValueError):
        return False
    return stated in decoded


def _of_kind(key: object, kind: Callable[..., Found], origin: str) -> Found:
    """Check a key's class and curve; ``kind`` is a callable because mypy refuses abstract types."""
    expected: Any = kind
    elliptic = issubclass(expected, EllipticCurvePrivateKey | EllipticCurvePublicKey)
    if not isinstance(key, expected) or (elliptic and not isinstance(key.curve, SECP384R1)):
        name = "EC P-384" if elliptic else "Ed25519"
        raise SetupError(f"{origin}: a key of another type, expected {name}")
    checked: Found = key
    return checked
