"""The headers of a request to Flower's Fleet API that mamfed itself reads."""

from __future__ import annotations

import base64
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from mamfed_common.errors import LinkError
from mamfed_server.fleet.flower_compat import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
    bytes_to_public_key,
    public_key_to_bytes,
)

KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower()
VERSION_HEADER = FLWR_PACKAGE_VERSION_METADATA_KEY.lower()


@lru_cache(maxsize=16384)  # a node sends the same key with every request
def fingerprint_of(header: bytes) -> str:
    """Return the fingerprint of a site's public key, SHA-256 of its DER, from Flower's header.

    Raises:
        LinkError: As in :func:`key_of`.
    """
    public = load_pem_public_key(key_of(header))
    return sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def key_of(header: bytes) -> bytes:
    """Read a site's public key from Flower's header value; return its PEM.

    Raises:
        LinkError: It is not base64 of an elliptic-curve key, in the one form that Flower writes:
            Flower would take the same key in another form for another node.
    """
    try:
        pem = base64.b64decode(header, validate=True)
        is_canonical = public_key_to_bytes(bytes_to_public_key(pem)) == pem
    except ValueError:
        is_canonical = False
    if not is_canonical:
        raise LinkError("its public key cannot be read")
    return pem
