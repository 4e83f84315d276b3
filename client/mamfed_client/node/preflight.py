"""``mamfed-client preflight``: check whether this site can take part."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal, NamedTuple

from mamfed_client.disclosure.plan_admission import (
    PlanStatus,
    check_bounds,
    out_of_bounds,
    plan_status,
    refused_by_person,
)
from mamfed_client.disclosure.plan_store import Decision, PlanStore
from mamfed_client.node.connection_errors import ServerDown
from mamfed_client.node.preflight_words import kept_scores, kinds_in_words
from mamfed_client.node.server_health import HealthReply, ask_health
from mamfed_client.node.supervisor import check_start
from mamfed_client.preparation.site_data import SiteData, load_site
from mamfed_client.site.certificate import days_left, site_certificate
from mamfed_client.site.data_account import note_data
from mamfed_client.site.policy import missing_for_training
from mamfed_client.site.settings import SiteHome, SiteSettings, load_site_settings
from mamfed_common import __version__
from mamfed_common.errors import MamfedError, SetupError
from mamfed_common.plan import Stage, TrainingPlan, cases
from mamfed_common.plan.weights_size import weights_bytes
from mamfed_common.protocol.versions import MAMFED_HEADER, check_flower, flower_version, same_minor
from mamfed_common.runtime.wording import counted, span
from mamfed_common.security.enrolment import read_welcome

Outcome = Literal["pass", "warn", "fail"]

FLOWER_HEADER = "x-flower-version"
WARN_DAYS = 30
AHEAD_SECONDS, BEHIND_SECONDS, WARN_SECONDS = 5.0, 240.0, 2.0
"""Flower refuses requests from clocks about 8 s ahead of the server's, or 300 s behind it."""
STATE_MODELS = 8
"""Disk space of a round's state, in models: weights, two moments, the result, and drafts."""
MOMENTS_MODELS = 14
"""Disk space of kept AdamW moments, in models: three rounds of two runs, and a draft."""
SPARE_BYTES = 2**30
CROWDED = 0.9
"""Share of a GPU's memory above which other work on the GPU could end a round."""


class Check(NamedTuple):
    """The result of a check.

    Attributes:
        name: Name of the check.
        outcome: ``pass``, ``warn`` or ``fail``.
        words: What was found and, unless the check passed, what to do.
    """

    name: str
    outcome: Outcome
    words: str


Finding = tuple[Outcome, str]


@dataclass
class Preflight:
    """The checks of one site for one plan.

    Attributes:
        home: The site's home.
        plan: The plan to check for.
        train: Whether to try a training step of each stage.
    """

    home: SiteHome
    plan: TrainingPlan
    train: bool = True
    reply: HealthReply | None = field(default=None, init=False)

    def run(self) -> Iterator[Check]:
        """Run all checks and yield their results; a check that raises has failed."""
        checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
            ("settings", self.settings_read),
            ("keys", self.keys_are_private),
            ("certificate", self.certificate_lasts),
            ("server", self.server_answers),
            ("clock", self.clock_agrees),
            ("versions", self.versions_fit),
            ("policy", self.policy_lets_out),
            ("bounds", self.plan_is_within),
            ("disk", self.disk_has_room),
            ("data", self.data_is_there),
        )
        here = self._computes_here()
        for name, check in checks:
            yield _checked(name, check)
        if not here:
            yield _checked("executor", self.job_answers)
        for stage in Stage:
            if here and self.train and self.plan.stage(stage).rounds:
                yield _checked(f"{stage} step", partial(self.step_works, stage))

    @cached_property
    def settings(self) -> SiteSettings:
        """Return the site's settings."""
        return load_site_settings(self.home)

    @cached_property
    def data(self) -> SiteData:
        """Return the site's images, prepared for the plan; this may take a while."""
        data = load_site(self.settings.site(), self.plan, progress=True)
        note_data(self.home, data, self.plan)
        return data

    def settings_read(self) -> Finding:
        """Check ``site.yaml``."""
        names = ", ".join(data_set.name for data_set in self.settings.data)
        return "pass", f"site {self.settings.name}, data: {names}"

    def keys_are_private(self) -> Finding:
        """Check that keys, welcome and certificate match, and who can access the home."""
        welcome = check_start(self.home)
        mode = stat.S_IMODE(self.home.path.stat().st_mode)
        if mode & 0o077:
            return "warn", f"others can access {self.home.path} ({mode:04o}): run chmod 700 on it"
        return "pass", f"keys and welcome match, federation {welcome.federation}"

    def certificate_lasts(self) -> Finding:
        """Check how long the site's certificate remains valid."""
        days = days_left(site_certificate(self.home))
        if days < 0:
            return (
                "fail",
                f"expired {counted(-days, 'day')} ago: run mamfed-client enroll and send the "
                "request",
            )
        renew = "; renew it with mamfed-client enroll" if days < WARN_DAYS else ""
        return ("warn" if renew else "pass"), f"valid for {counted(days, 'more day')}{renew}"

    def server_answers(self) -> Finding:
        """Check that the server is reachable, is the right one, and accepts this site."""
        server = read_welcome(self.home.welcome).server
        try:
            self.reply = ask_health(self.home, server)
        except ServerDown:
            return "warn", (
                f"nothing answers at {server} yet: the coordinator may not have started the run, "
                "or a firewall refuses the connection; mamfed-client start waits for it"
            )
        return "pass", f"{server} answers and accepts this site"

    def clock_agrees(self) -> Finding:
        """Compare this machine's clock with the server's."""
        if self.reply is None:
            return "warn", "not checked: the server did not answer"
        ahead = self.reply.ahead_seconds
        difference = (
            f"this clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
        )
        if ahead > AHEAD_SECONDS or ahead < -BEHIND_SECONDS:
            return (
                "fail",
                f"{difference}; Flower would refuse this site: set the clock, e.g. with NTP",
            )
        return ("warn" if abs(ahead) > WARN_SECONDS else "pass"), difference

    def versions_fit(self) -> Finding:
        """Compare the versions of Flower and mamfed with the server's."""
        check_flower()
        ours = f"mamfed {__version__}, Flower {flower_version()}"
        theirs = self.reply.headers if self.reply else {}
        mamfed, flower = theirs.get(MAMFED_HEADER), theirs.get(FLOWER_HEADER)
        if mamfed is None or flower is None:
            return "warn", f"{ours}; the server does not report its versions"
        if not (same_minor(mamfed) and same_minor(flower, flower_version())):
            return "fail", f"{ours}; the server has mamfed {mamfed}, Flower {flower}: install those"
        return "pass", f"{ours}; the server has mamfed {mamfed}, Flower {flower}"

    def policy_lets_out(self) -> Finding:
        """Check that the site's policy allows complete answers to leave."""
        missing = missing_for_training(self.settings.policy, self.plan)
        if missing:
            return "fail", f"{self.home.settings_path}: {'; '.join(missing)}"
        return "pass", "the policy allows updates and the required counts to leave"

    def plan_is_within(self) -> Finding:
        """Check the plan against each bound of the policy, as for every message."""
        policy, decisions = self.settings.policy, PlanStore(self.home.plans).decisions()
        status = plan_status(policy, self.plan, decisions)
        if status is PlanStatus.REFUSED:
            return "fail", refused_by_person(self.plan)
        if status is PlanStatus.OUTSIDE_BOUNDS:
            return "fail", out_of_bounds(policy, self.plan)
        checks = check_bounds(policy, self.plan)
        values = "; ".join(f"{check.name} {check.found:g}, {check.limit}" for check in checks)
        hours = policy.bounds.hours
        return "pass", values + (f"; answers only at {hours}, local time" if hours else "")

    def disk_has_room(self) -> Finding:
        """Check the disk space for a round's state and for prepared images."""
        kept = any(self.plan.stage(stage).optimizer_state == "kept" for stage in Stage)
        models = STATE_MODELS + (MOMENTS_MODELS if kept else 0)
        required = models * weights_bytes(self.plan) + SPARE_BYTES
        site = self.settings.site()
        for folder in (self.home.path, site.cache):
            free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
            if free < required:
                return "fail", f"{folder}: {_gib(free)} free, expected {_gib(required)} or more"
        return "pass", f"at least {_gib(required)} free for a round's state and prepared images"

    def data_is_there(self) -> Finding:
        """Check that images can be read, and count those that train in each stage."""
        description, minimum = self.data.describe(), self.settings.policy.min_training_cases
        stages = [stage for stage in Stage if self.plan.stage(stage).rounds]
        used = {stage: description.images_used(self.plan, stage) for stage in stages}
        counts = {stage: cases(stage, kinds) for stage, kinds in used.items()}
        summary = "; ".join(
            f"{stage} trains on {kinds_in_words(kinds)}" for stage, kinds in used.items()
        )
        if not any(count >= minimum for count in counts.values()):
            return "fail", f"{summary}; the policy requires {minimum} (min_training_cases)"
        few = [stage for stage, count in counts.items() if count < minimum]
        skipped = f"; takes no part in {few[0]}" if few else ""
        kept = kept_scores(description, self.settings.policy.min_patients_to_report)
        return ("warn" if few else "pass"), summary + skipped + kept

    def _computes_here(self) -> bool:
        try:
            return self.settings.executor.kind == "local"
        except MamfedError:  # the first check says so
            return True

    def job_answers(self) -> Finding:
        """Run a job that reads some images where the rounds will be computed, end to end."""
        from mamfed_client.cluster.check import try_job

        return "pass", try_job(self.settings, self.data, self.plan)

    def step_works(self, stage: Stage) -> Finding:
        """Train some real steps at the plan's size; report their time and memory."""
        from mamfed_client.training.trial_step import try_step

        trial = try_step(self.data, self.plan, stage, self.settings.hardware())
        if trial is None:
            return "warn", "not checked: no training images for this stage"
        seconds = trial.seconds * self.plan.steps(stage, trial.used)
        summary = f"{trial.device}: {span(trial.seconds)} per step, about {span(seconds)} per round"
        if not trial.total_bytes:
            return "warn", f"{summary}; a GPU is many times faster"
        share = trial.peak_bytes / trial.total_bytes
        summary += f"; {_gib(trial.peak_bytes)} of {_gib(trial.total_bytes)} GPU memory"
        return ("warn" if share > CROWDED else "pass"), summary


def choose_plan(home: SiteHome) -> TrainingPlan | None:
    """Return the newest plan received and not refused; None if there is none.

    Raises:
        SetupError: The stored decisions are damaged.
    """
    store = PlanStore(home.plans)
    decisions = store.decisions()
    kept = [p for p in store.plans() if decisions.get(p.sha256) is not Decision.REFUSED]
    return kept[-1].plan if kept else None


def _checked(name: str, check: Callable[[], Finding]) -> Check:
    try:
        return Check(name, *check())
    except MamfedError as error:
        return Check(name, "fail", " ".join(str(error).split()))
    except Exception as error:  # an unexpected error must not hide the other checks
        return Check(name, "fail", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def refuse_failed(checks: list[Check]) -> None:
    """Raise if a check failed.

    Raises:
        SetupError: Checks failed; it names them.
    """
    failed = [check.name for check in checks if check.outcome == "fail"]
    if failed:
        raise SetupError(f"this site cannot take part yet: {', '.join(failed)} failed")


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
