"""Counts, sizes and durations for sentences."""

from __future__ import annotations

CUT = " ..."
"""Ends a text that was cut."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return ``1 site``, ``2 sites`` or ``1,204 images``; pass ``plural`` if it is irregular.

    A verb can be part of both: ``counted(n, "site is", "sites are")``.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def size(count: int) -> str:
    """Return a size as ``437 bytes``, ``23.9 kB`` or ``1,024.0 MB`` (powers of 1,000)."""
    if count < 1000:
        return counted(count, "byte")
    return f"{count / 1e3:.1f} kB" if count < 999_950 else f"{count / 1e6:,.1f} MB"


def span(seconds: float) -> str:
    """Return a duration such as ``0.3 seconds``, ``15 minutes`` or ``12 hours``.

    It has at most two units, and the smaller one is omitted if it is 0. Durations below 100 seconds
    are given in seconds, and below ten minutes in minutes and seconds.
    """
    if seconds < 9.95 and seconds != round(seconds):
        return f"{seconds:.1f} seconds" if seconds >= 0.05 else "less than 0.1 seconds"
    whole = round(seconds)
    if whole < 100 and whole % 60:
        return counted(whole, "second")
    if whole < 600:
        return _pair(*divmod(whole, 60), "minute", "second") if whole else "0 seconds"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return _pair(*divmod(minutes, 60), "hour", "minute")
    return _pair(*divmod(round(minutes / 60), 24), "day", "hour")


def _pair(large: int, small: int, unit: str, smaller: str) -> str:
    parts = [(large, unit), (small, smaller)]
    return " ".join(counted(count, name) for count, name in parts if count)


def printable(text: str, limit: int = 10_000) -> str:
    """Return text as one line of bounded length, with control characters escaped."""
    cut = text if len(text) <= limit else text[:limit] + CUT
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
