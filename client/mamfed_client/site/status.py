"""The status of a site, ``status.json``: written by its three processes, shown to people."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from shlex import quote
from typing import Any, Literal

from mamfed_client.site.settings import SiteHome
from mamfed_common.config import Config
from mamfed_common.errors import OutputError, SetupError
from mamfed_common.runtime.documents import read_json
from mamfed_common.runtime.files import os_error_line, write_atomic
from mamfed_common.runtime.lock import short_lock

logger = logging.getLogger(__name__)

STARTS_OVER = 75
"""Exit code of a process that asks to be restarted (EX_TEMPFAIL)."""
REFUSED = 77
"""Exit code of a node that the coordinator refused (EX_NOPERM); it is retried later."""

Outcome = Literal["finished", "failed", "stopped"]
OUTCOMES: dict[Outcome, str] = {
    "finished": "has finished",
    "failed": "has failed; the coordinator may fix it and resume",
    "stopped": "is paused; it resumes when the coordinator starts it again",
}

State = Literal["stopped", "connecting", "online", "training", "refused", "unreachable"]


KINDS = {"query": "describing this site's data", "evaluate": "scoring the model"}
"""Flower's message types, in words."""


class Task(Config):
    """What the worker is doing.

    Attributes:
        kind: The request: ``query``, ``train`` or ``evaluate``.
        stage: The stage in training, else empty.
        server_round: The round within the stage, 0 if none is in training.
        steps: Training steps done.
        plan_sha256: The plan that asks for the round, else empty.
        began: When the request was taken up.
        job: The state of the job that computes it, in words; empty if it runs in the worker.
    """

    kind: str
    stage: str = ""
    server_round: int = 0
    steps: int = 0
    plan_sha256: str = ""
    began: datetime | None = None
    job: str = ""

    def words(self) -> str:
        """Return a short description."""
        return f"{self._work()}; {self.job}" if self.job else self._work()

    def _work(self) -> str:
        if self.stage:
            return f"training, {self.stage} round {self.server_round}"
        if self.kind == "evaluate" and self.steps:
            return "adapting the model to this site's own patients"
        return KINDS.get(self.kind, self.kind)


class RecentRefusal(Config):
    """Why this site refuses to answer.

    Attributes:
        fault: The code that leaves in place of an answer.
        words: The reason, and what to do.
        passing: Whether nothing is wrong: the site only waits for a person or an hour.
    """

    fault: int
    words: str
    passing: bool = False


class RunEnding(Config):
    """How the last run ended, according to the coordinator's server.

    Attributes:
        run: The coordinator's name for the run.
        how: ``finished``, ``failed``, or ``stopped``, which can resume later.
        model: Path of its final model; empty if none reached this site.
    """

    run: str
    how: Outcome
    model: str = ""

    def words(self) -> str:
        """Return a sentence that says how the run ended and where its model is."""
        outcome = f"run {self.run} {OUTCOMES[self.how]}"
        if self.model:
            return f"{outcome}; its final model is {self.model}, with a card.md beside it"
        if self.how != "finished":
            return outcome
        return (
            f"{outcome}; no model arrived here: ask the coordinator for model.safetensors, then "
            f"run mamfed-client models add model.safetensors --run {quote(self.run)}"
        )


class Status(Config):
    """The status of a site.

    Attributes:
        state: State that the node last reported.
        since: When that state began.
        last_contact: When the server last answered.
        server: The server's ``host:port``.
        supervisor_pid: Process of ``mamfed-client start``, 0 if it is not running.
        node_pid: Its child process that talks to the server.
        worker_pid: Its child process that trains.
        task: What the worker is doing.
        error: The last error, until the server answers again.
        refusal: Why this site refuses to answer, until it does answer.
        ended: How the last run ended, until another one begins.
    """

    state: State = "stopped"
    since: datetime | None = None
    last_contact: datetime | None = None
    server: str = ""
    supervisor_pid: int = 0
    node_pid: int = 0
    worker_pid: int = 0
    task: Task | None = None
    error: str = ""
    refusal: RecentRefusal | None = None
    ended: RunEnding | None = None


def read_status(home: SiteHome) -> Status:
    """Return a site's last status, or an empty one if it cannot be read."""
    try:
        return read_json(Status, home.status)
    except SetupError:
        return Status()


def update_status(home: SiteHome, **changes: Any) -> None:
    """Change fields of a site's status; ``since`` follows ``state``.

    A status that cannot be written is only logged: a full disk must neither change an answer nor
    end the process that watches the connection.
    """
    try:
        _update(home, changes)
    except (OSError, OutputError) as error:
        words = os_error_line(error) if isinstance(error, OSError) else str(error)
        logger.warning("cannot write the status: %s", words)


def _update(home: SiteHome, changes: dict[str, Any]) -> None:
    with short_lock(home.path / ".status.lock"):
        before = read_status(home)
        if changes.get("state", before.state) != before.state:
            changes["since"] = datetime.now(UTC)
        after = before.model_copy(update=changes)
        if after != before:
            write_atomic(home.status, after.model_dump_json(indent=2) + "\n")
