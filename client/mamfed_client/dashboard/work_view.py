"""What the site is doing: connected, refused and why, training and how far."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.node.overview import Overview, overview
from mamfed_client.node.supervisor import words
from mamfed_client.site.data_account import DataAccount, read_account
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import Task
from mamfed_common.domain import Stage
from mamfed_common.errors import MamfedError
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.health import Health
from mamfed_common.runtime.wording import span

MOODS = {
    Health.WORKING: "good",
    Health.WAITING: "calm",
    Health.REFUSED: "bad",
    Health.UNREACHABLE: "bad",
    Health.NOT_RUNNING: "warn",
}
"""The colour of a state; its words say the same."""


class Progress(NamedTuple):
    """How far the round in training is.

    Attributes:
        what: The stage and the round, in words.
        steps: Steps done.
        of_steps: Steps of the round; 0 if unknown.
        rounds: Rounds of the stage; 0 if unknown.
        left: Time that the rest of the round may take, in words; empty if unknown.
    """

    what: str
    steps: int
    of_steps: int = 0
    rounds: int = 0
    left: str = ""


class WorkView(NamedTuple):
    """What the site is doing.

    Attributes:
        site: Its name.
        sentence: Its state in one sentence.
        mood: ``good``, ``calm``, ``warn`` or ``bad``.
        health: The word that monitors get.
        running: Whether ``mamfed-client start`` runs.
        server: The coordinator's address; empty if the site never started.
        last_contact: When the server last answered, UTC; empty if never.
        silent_seconds: Seconds since then; None if never.
        certificate: How long the certificate lasts, in words.
        certificate_ends: Whether it must be renewed soon.
        progress: The round in training; None if none is.
        ended: How the last run ended; empty if none did.
        warnings: What else is wrong.
    """

    site: str
    sentence: str
    mood: str
    health: str
    running: bool
    server: str
    last_contact: str
    silent_seconds: int | None
    certificate: str
    certificate_ends: bool
    progress: Progress | None
    ended: str
    warnings: tuple[str, ...] = ()


WARN_DAYS = 30


def work_view(home: SiteHome, now: datetime | None = None) -> WorkView:
    """Read what the site is doing.

    Raises:
        SetupError: ``site.yaml`` or the decisions about plans cannot be read.
        AuditError: The audit log's head is missing or damaged.
    """
    now, found = now or datetime.now(UTC), overview(home)
    status = found.status
    heard = status.last_contact
    return WorkView(
        site=found.site,
        sentence=_sentence(found),
        mood=MOODS[found.health],
        health=found.health.words,
        running=found.running,
        server=status.server,
        last_contact=f"{heard:%Y-%m-%d %H:%M:%S} UTC" if heard else "",
        silent_seconds=max(0, round((now - heard).total_seconds())) if heard else None,
        certificate=_certificate(found.certificate_days),
        certificate_ends=found.certificate_days is not None and found.certificate_days < WARN_DAYS,
        progress=_progress(home, status.task, now) if found.running and status.task else None,
        ended=status.ended.words() if status.ended else "",
        warnings=found.warnings,
    )


def _sentence(found: Overview) -> str:
    if not found.running:
        return "run mamfed-client start to take part"
    return words(found.status)


def _certificate(days: int | None) -> str:
    if days is None:
        return "none yet"
    if days < 0:
        return f"expired {-days} days ago"
    return f"{days:,} days left"


def _progress(home: SiteHome, task: Task, now: datetime) -> Progress:
    what = task.words()
    if not task.stage:
        return Progress(what, task.steps)
    try:
        plan = PlanStore(home.plans).find(task.plan_sha256).plan
        of_steps = steps_of(plan, Stage(task.stage), read_account(home))
    except (MamfedError, ValueError):
        return Progress(what, task.steps)
    left = ""
    if task.began and 0 < task.steps < of_steps:
        each = max(0.0, (now - task.began).total_seconds()) / task.steps
        left = f"about {span(each * (of_steps - task.steps))} left"
    return Progress(what, task.steps, of_steps, plan.stage(Stage(task.stage)).rounds, left)


def steps_of(plan: TrainingPlan, stage: Stage, account: DataAccount | None) -> int:
    """Return the steps of a round here; 0 if the data was not counted for this plan's split."""
    if account is None:
        return 0
    training: dict[str, int] = {}
    for data_set in account.data_sets:
        for purpose, parts in data_set.images.items():
            training[purpose] = training.get(purpose, 0) + parts.get("train", 0)
    used = plan.images_used(stage, training)
    try:
        return plan.steps(stage, used)
    except ZeroDivisionError:
        return 0
