"""Signatures of plans, and fingerprints of keys that people compare over the phone.

The signature is Ed25519 (RFC 8032) over a line that states its purpose and the plan's SHA-256, so
that it cannot be reused for anything else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mamfed_common.security.keys import spki

if TYPE_CHECKING:  # the plan brings torch, which enrolment can do without
    from mamfed_common.plan import TrainingPlan

PURPOSE = b"mamfed plan v1\n"


def sign_plan(key: Ed25519PrivateKey, plan: TrainingPlan) -> str:
    """Sign a plan; return the 64-byte signature in base64."""
    return base64.b64encode(key.sign(_signed_bytes(plan))).decode()


def is_signed(plan: TrainingPlan, signature: str, public_keys: Iterable[Ed25519PublicKey]) -> bool:
    """Return whether one of the keys signed the plan; False if the signature is not base64."""
    try:
        decoded = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return any(_verifies(key, decoded, _signed_bytes(plan)) for key in public_keys)


def fingerprint(der: bytes) -> str:
    """Return the first 128 bits of the SHA-256 of a key or certificate, to compare by phone.

    Args:
        der: The DER bytes of the key or certificate.

    Returns:
        Eight groups of four hex digits, in capitals.
    """
    digits = hashlib.sha256(der).hexdigest()[:32].upper()
    return " ".join(digits[i : i + 4] for i in range(0, 32, 4))


def node_fingerprint(public_key: EllipticCurvePublicKey) -> str:
    """Return a node's identifier: the SHA-256 of its key's DER SubjectPublicKeyInfo, in hex."""
    return hashlib.sha256(spki(public_key)).hexdigest()


def _signed_bytes(plan: TrainingPlan) -> bytes:
    return PURPOSE + plan.sha256().encode()


def _verifies(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
