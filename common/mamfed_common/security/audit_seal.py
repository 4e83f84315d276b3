"""The coordinator's signature over the head of a site's audit log.

A site that rewrites its log could sign every line anew. It cannot sign for the coordinator, which
countersigned earlier heads. The signature is the plan key's (Ed25519), over a line that states its
purpose, so that it cannot serve as a plan's.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from mamfed_common.config import DIGEST, SITE_NAME, Config

PURPOSE = "mamfed audit head v1"
HEAD = re.compile(r"([0-9]{1,12}) ([0-9a-f]{64})")
TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"


class AuditSeal(Config):
    """One countersigned head.

    Attributes:
        site: The site.
        count: Number of lines of its log.
        sha256: Hash of the last of them.
        time: When the coordinator signed, UTC.
        signature: Its signature, base64.
    """

    site: str = Field(pattern=SITE_NAME)
    count: int = Field(ge=1, lt=10**12)
    sha256: str = Field(pattern=DIGEST)
    time: str = Field(pattern=TIME)
    signature: str = Field(default="", max_length=100)

    def signed_by(self, key: Ed25519PrivateKey) -> AuditSeal:
        """Return the seal with its signature."""
        signature = base64.b64encode(key.sign(self._signed_bytes())).decode()
        return self.model_copy(update={"signature": signature})

    def is_signed(self, keys: Iterable[Ed25519PublicKey]) -> bool:
        """Return whether one of the keys signed it."""
        try:
            signature = base64.b64decode(self.signature, validate=True)
        except (binascii.Error, ValueError):
            return False
        for key in keys:
            try:
                key.verify(signature, self._signed_bytes())
            except InvalidSignature:
                continue
            return True
        return False

    def header(self) -> str:
        """Return the seal as the value of ``versions.AUDIT_SEAL_HEADER``."""
        return f"{self.count} {self.sha256} {self.time} {self.signature}"

    def _signed_bytes(self) -> bytes:
        return f"{PURPOSE}\n{self.site}\n{self.count}\n{self.sha256}\n{self.time}".encode()


def parse_head(text: str) -> tuple[int, str] | None:
    """Read a request's header; None if it is not a head."""
    match = HEAD.fullmatch(text)
    return (int(match[1]), match[2]) if match else None
