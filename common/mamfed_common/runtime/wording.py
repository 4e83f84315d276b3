"""Numbers in sentences: how many of what, how much, and how long."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return ``1 site``, ``2 sites``, ``1,204 images``; ``plural`` where an ``s`` does not make it.

    Where a verb follows, ``noun`` and ``plural`` hold it: ``counted(n, "site is", "sites are")``.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def size(count: int) -> str:
    """Say how much data there is: ``437 bytes``, ``23.9 kB``, ``1,024.0 MB``; of 1,000 each."""
    if count < 1000:
        return counted(count, "byte")
    return f"{count / 1e3:.1f} kB" if count < 999_950 else f"{count / 1e6:,.1f} MB"


def span(seconds: float) -> str:
    """Say how long something takes, as people do: ``0.3 seconds``, ``15 minutes``, ``12 hours``.

    Two units at most, the smaller left out where it is 0; seconds are told up to 100, and beside
    minutes up to ten of those.
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
