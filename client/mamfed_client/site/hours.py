"""Hours of the day during which a site answers, or asks its archive."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Annotated

from pydantic import AfterValidator


def _check_hours(text: str) -> str:
    """Refuse text that is not a span of hours, and empty spans."""
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", text)
    if not match or text[:5] == text[6:]:
        raise ValueError("expected two different local times of day, such as '19:00-07:00'")
    return text


Hours = Annotated[str, AfterValidator(_check_hours)]
"""Local time, e.g. ``19:00-07:00``; the end is excluded."""


def is_open(hours: str | None, now: datetime) -> bool:
    """Return whether a local time lies within the hours; None: always."""
    if hours is None:
        return True
    start, end = _times(hours)
    clock = now.time()
    return start <= clock < end if start < end else clock >= start or clock < end


def seconds_until_open(hours: str | None, now: datetime) -> float:
    """Return the seconds until the hours begin; 0 within them."""
    if hours is None or is_open(hours, now):
        return 0
    begin = datetime.combine(now.date(), _times(hours)[0], now.tzinfo)
    return (begin - now if begin > now else begin + timedelta(days=1) - now).total_seconds()


def _times(hours: str) -> tuple[time, time]:
    start, end = hours.split("-")
    return time.fromisoformat(start), time.fromisoformat(end)
