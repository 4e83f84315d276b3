"""The base class of settings, and the patterns of names and digests."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Pattern of a site's name, which becomes part of file names and reports."""
DIGEST = r"^[0-9a-f]{64}$"
"""Pattern of a SHA-256 in hexadecimal."""
HEX_DIGITS = r"^[0-9a-f]{12,64}$"
"""Pattern of a SHA-256 cut to its first 12 digits or more."""


class Config(BaseModel):
    """Immutable settings that reject unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
