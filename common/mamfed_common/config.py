"""The base of everything that a plan is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""What a site may be called: it becomes part of file names and reports."""


class Config(BaseModel):
    """Settings that cannot be changed once read, and that refuse keys they do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
