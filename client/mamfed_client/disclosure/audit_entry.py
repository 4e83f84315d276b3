"""The lines of the audit log and its head; ``audit_log.py`` writes and checks them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import Field

from mamfed_common.config import Config
from mamfed_common.domain import Part

Kind = Literal["describe", "train", "evaluate", "survey", "fault", "torn"]
START = "0" * 64
"""The previous hash in the first line."""


NEWER = (
    "model", "part", "threshold", "run", "asked_sha256", "painter", "patients", "withheld", "again",
    "signature",
)  # fmt: skip
"""Keys that logs of older versions lack."""


class ArrayEntry(Config):
    """One array that left.

    Attributes:
        name: Name of the array.
        sha256: SHA-256 of its values, little-endian, in C order.
        bytes: Size of its values.
    """

    name: str
    sha256: str
    bytes: int = Field(ge=0)


class Entry(Config):
    """One line: a message that left, or the remains of a line truncated by a power cut.

    Attributes:
        n: Line number, counted from 1.
        time: Time, UTC.
        kind: ``describe``, ``train`` and ``evaluate`` answer the server's requests; ``survey``
            is a file that a person sent by hand; ``fault`` is a code sent instead of an answer;
            ``torn`` holds the remains of a truncated line.
        stage: Stage of a ``train`` or ``evaluate`` message.
        round: Round of such a message.
        model: ``personal`` for an ``evaluate`` message about this site's personal model. Where it
            or a key of :data:`NEWER` is None, the line has no such key, so that logs of older
            versions remain valid.
        part: Part of the patients that was scored.
        threshold: Threshold that was asked for, where it was not the plan's.
        run: The coordinator's name for the run.
        asked_sha256: The weights that came with the request.
        painter: Whether the painter's weights came with them.
        patients: Number of patients behind each count, of a score or a training.
        withheld: Values that stayed because too few patients were behind them, with the reason.
        again: Whether the same answer had been released before.
        plan_sha256: The plan of the request; empty if the request could not be read.
        policy_sha256: The policy that allowed the message to leave.
        weights: The arrays.
        bytes: Size of arrays and values on the wire.
        values: All other values, by name.
        to: The federation.
        previous: Hash of the previous line.
        sha256: SHA-256 of the line without this field and the next, as canonical JSON.
        signature: The site's signature over it, base64.
    """

    n: int = Field(ge=1)
    time: str
    kind: Kind
    stage: str | None = None
    round: int | None = None
    model: Literal["personal"] | None = None
    part: Part | None = None
    threshold: float | None = None
    run: str | None = None
    asked_sha256: str | None = None
    painter: bool | None = None
    patients: dict[str, int] | None = None
    withheld: dict[str, str] | None = None
    again: bool | None = None
    plan_sha256: str = ""
    policy_sha256: str = ""
    weights: tuple[ArrayEntry, ...] = ()
    bytes: int = Field(default=0, ge=0)
    values: dict[str, Any] = Field(default_factory=dict)
    to: str = ""
    previous: str
    sha256: str = ""
    signature: str | None = Field(default=None, max_length=300)

    def sealed(self, key: EllipticCurvePrivateKey | None = None) -> Entry:
        """Return the entry with its hash; a key signs it."""
        text = _canonical(self._values("sha256", "signature"))
        update = {"sha256": hashlib.sha256(text.encode()).hexdigest()}
        if key is not None:
            signature = key.sign(_signed_bytes(update["sha256"]), ECDSA(SHA256()))
            update["signature"] = base64.b64encode(signature).decode()
        return self.model_copy(update=update)

    def is_signed(self, key: EllipticCurvePublicKey) -> bool:
        """Return whether a key signed this entry."""
        try:
            signature = base64.b64decode(self.signature or "", validate=True)
            key.verify(signature, _signed_bytes(self.sha256), ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True

    def line(self) -> str:
        """Return the entry as a line of ASCII, with its newline."""
        return _canonical(self._values()) + "\n"

    def _values(self, *without: str) -> dict[str, Any]:
        absent = {key for key in NEWER if getattr(self, key) is None}
        return self.model_dump(mode="json", exclude={*without, *absent})


class Head(Config):
    """The end of the log: number of complete lines, last hash, and size of the lines in bytes."""

    count: int = Field(default=0, ge=0)
    sha256: str = START
    bytes: int = Field(default=0, ge=0)

    def after(self, entry: Entry) -> Head:
        """Return the head after an entry has been added."""
        return Head(count=entry.n, sha256=entry.sha256, bytes=self.bytes + len(entry.line()))


def _signed_bytes(sha256: str) -> bytes:
    return f"mamfed audit line v1\n{sha256}".encode()


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))
