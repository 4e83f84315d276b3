"""What Prometheus reads of a coordinator (``metrics_port`` in ``server.yaml``), from its home.

Labels are bounded: names of approved sites, stages, states and kinds of refusal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from mamfed_common.errors import MamfedError
from mamfed_common.notify.conditions import days_until, free_bytes
from mamfed_common.protocol.tasks import REFUSAL_CODES, RefusalCode
from mamfed_server.admission.certificate_authority import load_server_certificate
from mamfed_server.admission.registry import load_sites
from mamfed_server.run.state import RunState, RunStatus
from mamfed_server.run_folder.event_log import PHASES
from mamfed_server.service.status import CoordinatorStatus, read_status
from mamfed_server.settings import ServerHome

if TYPE_CHECKING:
    from prometheus_client import Metric

CODES = {words: RefusalCode(code).name.lower() for code, words in REFUSAL_CODES.items()}
BEGINNINGS = {
    "no answer within": "late",
    "offline for": "offline",
    "its worker died": "died",
    "the site failed": "failed",
}
OTHER = "unusable"
"""Refusals of the coordinator itself, such as weights that are not finite."""


def metrics(home: ServerHome) -> Iterator[Metric]:
    """Yield the metrics of a coordinator now; what cannot be read is left out and counted."""
    unread = 0
    for part in (_of_run, _of_certificates, _of_disk):
        try:
            yield from part(home)
        except (MamfedError, OSError):
            unread += 1
    yield _gauge("unreadable_parts", "Parts of the home that could not be read.", unread)


def refusal_kind(reason: str) -> str:
    """Return the kind of a refusal: one of a fixed number of words."""
    if reason in CODES:
        return CODES[reason]
    return next((kind for begins, kind in BEGINNINGS.items() if reason.startswith(begins)), OTHER)


def _of_run(home: ServerHome) -> Iterator[Metric]:
    status = read_status(home)
    is_running = status.supervisor_pid is not None
    yield _gauge("server_running", "1 while mamfed-server start runs.", is_running)
    yield from _of_sites(status)
    if (run := status.run) is None:
        return
    states = GaugeMetricFamily("mamfed_run_state", "1 for the state of the run.", labels=["state"])
    for state in RunState:
        states.add_metric([state], float(run.state is state))
    yield states
    yield _gauge("run_paused", "1 while the run is paused for lack of sites.", _is_paused(run))
    yield _gauge("rounds_done", "Rounds of both stages that are done.", len(run.rounds))
    if run.plan is not None:
        yield _gauge("rounds_planned", "Rounds of both stages in the plan.", run.plan.rounds)
    if run.under_way is not None:
        stage, number = run.under_way
        under_way = GaugeMetricFamily(
            "mamfed_round_under_way", "The round under way, from 1 in its stage.", labels=["stage"]
        )
        under_way.add_metric([stage], number)
        yield under_way
    yield from _of_rounds(run)


def _is_paused(run: RunStatus) -> bool:
    phases = [e["event"] for e in run.latest_events if e.get("event") in PHASES]
    return run.state is RunState.RUNNING and phases[-1:] == ["paused"]


def _of_rounds(run: RunStatus) -> Iterator[Metric]:
    refused = Counter(refusal_kind(why) for record in run.rounds for why in record.refused.values())
    refusals = CounterMetricFamily(
        "mamfed_updates_refused", "Updates that the rounds lack, by reason.", labels=["reason"]
    )
    for kind in sorted({*CODES.values(), *BEGINNINGS.values(), OTHER}):
        refusals.add_metric([kind], refused[kind])
    yield refusals
    if not run.rounds:
        return
    last = run.rounds[-1]
    yield _gauge("round_seconds", "Duration of the last round, with validation.", last.seconds)
    if run.dice is not None:
        yield _gauge("chosen_validation_dice", "Pooled Dice of the round chosen so far.", run.dice)
    dices = [r.pooled_validation_dice for r in run.rounds if r.pooled_validation_dice is not None]
    if dices:
        yield _gauge("pooled_validation_dice", "Pooled Dice of the last validation.", dices[-1])
    losses = GaugeMetricFamily(
        "mamfed_training_loss", "Training loss of the last round.", labels=["site"]
    )
    for site, update in last.accepted.items():
        if update.loss is not None:
            losses.add_metric([site], update.loss)
    yield losses


def _of_sites(status: CoordinatorStatus) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "mamfed_site_connected", "1 while the site is connected.", labels=["site"]
    )
    accepted = CounterMetricFamily(
        "mamfed_site_updates_accepted", "Updates in the run's rounds.", labels=["site"]
    )
    missed = CounterMetricFamily(
        "mamfed_site_updates_missed", "Rounds without an update.", labels=["site"]
    )
    for site in status.sites:
        connected.add_metric([site.site], float(bool(site.connected)))
        accepted.add_metric([site.site], site.accepted)
        missed.add_metric([site.site], site.rounds - site.accepted)
    yield from (connected, accepted, missed)
    here = sum(bool(site.connected) for site in status.sites)
    yield _gauge("sites_connected", "Sites that are connected.", here)


def _of_certificates(home: ServerHome) -> Iterator[Metric]:
    now = datetime.now(UTC)
    sites = [entry for entry in load_sites(home).values() if entry.status == "active"]
    yield _gauge("sites_approved", "Sites that may take part.", len(sites))
    days = days_until(load_server_certificate(home).not_valid_after_utc, now)
    yield _gauge("certificate_days", "Days until the server's certificate expires.", days)
    family = GaugeMetricFamily(
        "mamfed_site_certificate_days", "Days until a site's certificate expires.", labels=["site"]
    )
    for entry in sites:
        family.add_metric([entry.site], days_until(entry.expiry(), now))
    yield family


def _of_disk(home: ServerHome) -> Iterator[Metric]:
    yield _gauge("disk_free_bytes", "Free space on the home's disk.", free_bytes(home.path))


def _gauge(name: str, words: str, value: float | None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"mamfed_{name}", words, value=float(value or 0))
