"""Notices that coordinator and site share: certificates and disks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from mamfed_common.notify.notice import Notice
from mamfed_common.notify.settings import Notify
from mamfed_common.runtime.wording import counted


def days_until(end: datetime, now: datetime) -> int:
    """Return the number of whole days until a time; negative if it has passed."""
    return (end - now).days


def certificate_ends(notify: Notify, whose: str, days: int, remedy: str) -> Iterator[Notice]:
    """Yield a notice if a certificate ends soon, and another one once it has ended.

    Args:
        notify: The settings.
        whose: Whose certificate it is, such as ``the server``.
        days: Whole days left; negative if it has ended.
        remedy: What to do.
    """
    if days >= notify.certificate_days:
        return
    ended = days < 0
    when = "has expired" if ended else f"expires in {counted(days, 'day')}"
    state = "expired" if ended else "near its end"
    yield Notice(
        "certificate ends",
        f"certificate of {whose} {state}",
        f"the certificate of {whose} {when}",
        remedy,
    )


def disk_is_nearly_full(notify: Notify, home: Path) -> Iterator[Notice]:
    """Yield a notice if the disk of a home has little free space left."""
    free = free_bytes(home)
    if free >= notify.disk_free_gib * 2**30:
        return
    yield Notice(
        "disk nearly full",
        "disk nearly full",
        f"{free / 2**30:.1f} GiB are free on the disk of {home.name or home}",
        f"notify.disk_free_gib is {notify.disk_free_gib:g}. Free some space: a full disk stops "
        "training until there is room again.",
    )


def free_bytes(home: Path) -> int:
    """Return the free space on the disk of a folder, in bytes."""
    return shutil.disk_usage(home).free
