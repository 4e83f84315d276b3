"""The reply of one site to a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from flwr.app import RecordDict


class SiteReply(NamedTuple):
    """The reply of one site.

    Attributes:
        content: The reply's content; None where there is no reply.
        reason: Why there is none.
        seconds: Time from the first request to the reply, or to the deadline where that passed;
            None where the site could not be asked.
    """

    content: RecordDict | None
    reason: str = ""
    seconds: float | None = None


OnReply = Callable[[str, SiteReply], None]
