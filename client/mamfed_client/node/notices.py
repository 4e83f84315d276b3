"""What a site's people are told (``notify`` in ``site.yaml``), read from its home.

No notice quotes an error: it could name a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mamfed_client.node.overview import Overview, overview
from mamfed_client.site.settings import SiteHome
from mamfed_common.notify.conditions import certificate_ends, disk_is_nearly_full
from mamfed_common.notify.notice import Notice
from mamfed_common.notify.settings import Notify
from mamfed_common.runtime.wording import span

SEE = "See mamfed-client status at the site."


def notices(home: SiteHome, notify: Notify) -> Iterator[Notice]:
    """Yield what holds now and a person at the site should know.

    Raises:
        SetupError: ``site.yaml`` or the decisions about plans cannot be read.
        AuditError: The audit log's head is missing or damaged.
    """
    site = overview(home)
    for sha256 in site.pending_plans:
        yield Notice(
            "plan waits",
            f"plan {sha256} waits",
            f"plan {sha256[:12]} waits for a decision",
            f"Read it with mamfed-client plan show {sha256[:12]}, then mamfed-client plan approve "
            f"{sha256[:12]} or plan refuse.",
        )
    for sha256 in site.blocked_plans:
        yield Notice(
            "plan blocked",
            f"plan {sha256} blocked",
            f"plan {sha256[:12]} is outside this site's bounds",
            SEE,
        )
    yield from _state(site, notify)
    if site.certificate_days is not None:
        remedy = "Run mamfed-client enroll and send the new request.json to the coordinator."
        yield from certificate_ends(notify, "this site", site.certificate_days, remedy)
    yield from disk_is_nearly_full(notify, home.path)


def _state(site: Overview, notify: Notify) -> Iterator[Notice]:
    status = site.status
    if (ended := status.ended) is not None:
        yield Notice(
            "run ended",
            f"run {ended.run} {ended.how} {ended.model}",
            f"run {ended.run} {'is paused' if ended.how == 'stopped' else f'has {ended.how}'}",
            "Its final model is here: mamfed-client models list" if ended.model else SEE,
        )
    if status.state == "refused":
        yield Notice("site refused", "site refused", "the coordinator refuses this site", SEE)
    missing = _seconds_since(status.since)
    if status.state == "unreachable" and not ended and missing >= notify.gone_minutes * 60:
        yield Notice(
            "server gone",
            f"server gone since {status.since}",
            f"the coordinator's server has not answered for {span(missing)}",
            SEE,
        )


def _seconds_since(time: datetime | None) -> float:
    return 0.0 if time is None else (datetime.now(UTC) - time).total_seconds()
