"""What Prometheus reads of a site (``metrics_port`` in ``site.yaml``), from its home."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from prometheus_client.core import GaugeMetricFamily

from mamfed_client.node.overview import Overview, overview
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import State
from mamfed_common.errors import MamfedError
from mamfed_common.notify.conditions import free_bytes

if TYPE_CHECKING:
    from prometheus_client import Metric


def metrics(home: SiteHome) -> Iterator[Metric]:
    """Yield the metrics of a site now; what cannot be read is left out and counted."""
    unread = 0
    try:
        yield from _of_site(overview(home))
    except (MamfedError, OSError):
        unread += 1
    yield _gauge("disk_free_bytes", "Free space on the home's disk.", free_bytes(home.path))
    yield _gauge("unreadable_parts", "Parts of the home that could not be read.", unread)


def _of_site(site: Overview) -> Iterator[Metric]:
    status = site.status
    states = GaugeMetricFamily(
        "mamfed_site_state", "1 for the state of this site.", labels=["state"]
    )
    for state in get_args(State):
        states.add_metric([state], float(status.state == state))
    yield states
    yield _gauge("site_running", "1 while mamfed-client start runs.", site.running)
    task = status.task
    under_way = GaugeMetricFamily(
        "mamfed_site_round_under_way", "The round in training here.", labels=["stage"]
    )
    if task is not None and task.stage:
        under_way.add_metric([task.stage], task.server_round)
    yield under_way
    yield _gauge("site_steps", "Training steps done in this round.", task.steps if task else 0)
    yield _gauge("plans_waiting", "Plans that wait for a decision.", len(site.pending_plans))
    yield _gauge("plans_blocked", "Plans outside the bounds.", len(site.blocked_plans))
    yield _gauge("audit_lines", "Lines of the audit log.", site.audit_lines)
    if status.last_contact is not None:
        yield _gauge(
            "last_contact_seconds",
            "When the server last answered, seconds since 1970.",
            status.last_contact.timestamp(),
        )
    if site.certificate_days is not None:
        yield _gauge(
            "certificate_days", "Days until this site's certificate expires.", site.certificate_days
        )


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"mamfed_{name}", words, value=float(value))
