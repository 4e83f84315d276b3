"""``mamfed-client status``: the status of the running processes, and the state of the home."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from mamfed_client.disclosure.audit_log import head_path_of, read_head
from mamfed_client.disclosure.plan_admission import PlanStatus, out_of_bounds, plan_status
from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.node.supervisor import words
from mamfed_client.site.certificate import days_left, site_certificate
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_client.site.status import Status, read_status
from mamfed_common.config import Config
from mamfed_common.errors import SetupError
from mamfed_common.runtime.health import Health
from mamfed_common.runtime.lock import holder
from mamfed_common.runtime.wording import counted

HEALTH = {
    "online": Health.WORKING,
    "training": Health.WORKING,
    "refused": Health.REFUSED,
    "unreachable": Health.UNREACHABLE,
}
"""Health of each state, for monitors; all other states count as waiting."""


class Overview(Config):
    """The state of a site.

    Attributes:
        site: Its name.
        running: Whether ``mamfed-client start`` is running.
        status: The status that its processes last wrote.
        certificate_days: Days until its certificate expires; None: it has none.
        pending_plans: SHA-256 of the plans that wait for a decision.
        blocked_plans: For each plan outside the bounds, by SHA-256: the bounds and the remedy.
        audit_lines: Number of lines of the audit log.
        warnings: Reasons why stored plan files cannot be used.
    """

    site: str
    running: bool
    status: Status
    certificate_days: int | None
    pending_plans: tuple[str, ...]
    blocked_plans: dict[str, str] = Field(default_factory=dict)
    audit_lines: int
    warnings: tuple[str, ...] = ()

    @property
    def health(self) -> Health:
        """Return the site's health, for monitors."""
        if not self.running:
            return Health.NOT_RUNNING
        state, refusal = self.status.state, self.status.refusal
        if state in ("online", "training") and refusal:
            return Health.WAITING if refusal.passing else Health.REFUSED
        if state == "unreachable" and self.status.ended:
            return Health.WAITING
        return HEALTH.get(state, Health.WAITING)

    def lines(self) -> Iterator[str]:
        """Yield the overview as lines of text."""
        state = self.status
        yield f"site {self.site}: {words(state) if self.running else 'not running'}"
        if state.last_contact is not None:
            yield f"last contact: {state.last_contact:%Y-%m-%d %H:%M:%S} UTC"
        if self.running and state.task is not None:
            yield f"now: {state.task.words()}, {counted(state.task.steps, 'step')}"
        if state.error and state.state not in ("refused", "unreachable"):
            yield f"last error: {state.error}"
        days = self.certificate_days
        yield (
            "certificate: none yet" if days is None else f"certificate: {counted(days, 'day')} left"
        )
        yield f"audit: {counted(self.audit_lines, 'line')}"
        for sha256 in self.pending_plans:
            yield f"plan {sha256[:12]} waits: run mamfed-client plan approve {sha256[:12]}"
        for sha256, why in self.blocked_plans.items():
            yield f"plan {sha256[:12]} is blocked: {why}"
        for warning in self.warnings:
            yield f"warning: {warning}"


def overview(home: SiteHome) -> Overview:
    """Read the state of a site from its home.

    Raises:
        SetupError: ``site.yaml`` or the decisions about plans cannot be read.
        AuditError: The audit log's head is missing or damaged.
    """
    settings, store = load_site_settings(home), PlanStore(home.plans)
    policy, decisions = settings.policy, store.decisions()
    plans = [(stored, plan_status(policy, stored.plan, decisions)) for stored in store.plans()]
    blocked = [stored for stored, standing in plans if standing is PlanStatus.OUTSIDE_BOUNDS]
    running = holder(home.lock) is not None
    status = read_status(home)
    if not running:
        status = status.model_copy(update={"state": "stopped", "task": None})
    return Overview(
        site=settings.name,
        running=running,
        status=status,
        certificate_days=_certificate_days(home),
        pending_plans=tuple(
            stored.sha256 for stored, standing in plans if standing is PlanStatus.PENDING
        ),
        blocked_plans={stored.sha256: out_of_bounds(policy, stored.plan) for stored in blocked},
        audit_lines=read_head(home.audit).count if head_path_of(home.audit).exists() else 0,
        warnings=tuple(store.unusable()),
    )


def _certificate_days(home: SiteHome) -> int | None:
    try:
        return days_left(site_certificate(home))
    except SetupError:
        return None
