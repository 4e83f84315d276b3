"""The base class of settings, and the patterns of names and digests."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)

SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Pattern of a site's name, which becomes part of file names and reports."""
DIGEST = r"^[0-9a-f]{64}$"
"""Pattern of a SHA-256 in hexadecimal."""
HEX_DIGITS = r"^[0-9a-f]{12,64}$"
"""Pattern of a SHA-256 cut to its first 12 digits or more."""


def printable(text: str) -> str:
    """Return a text if a terminal shows it as it is.

    Raises:
        ValueError: It has control characters.
    """
    if not text.isprintable():
        raise ValueError("contains unprintable characters")
    return text


class Config(BaseModel):
    """Immutable settings that reject unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ExtensibleConfig(Config):
    """Settings with keys that are written only where they differ from their default.

    A plan that does not use an extension keeps the SHA-256 that it had before there were any.

    Attributes:
        OMITTED: The names of these keys.
    """

    OMITTED: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _omit_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unused = {key for key in self.OMITTED if getattr(self, key) == fields[key].default}
        return {key: value for key, value in handler(self).items() if key not in unused}
