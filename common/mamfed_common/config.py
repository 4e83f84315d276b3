"""The base of everything that a plan is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""What a site may be called: it becomes part of file names and reports."""
DIGEST = r"^[0-9a-f]{64}$"
"""A SHA-256 in hexadecimal."""
HEX_DIGITS = r"^[0-9a-f]{12,64}$"
"""Its first 12 digits or more."""


class Config(BaseModel):
    """Settings that cannot be changed once read, and that refuse keys they do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
