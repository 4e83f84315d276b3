"""How a site is doing: ``status.json``, written by its three processes, read by people."""

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
"""Exit code of a process that must be started again (EX_TEMPFAIL)."""
REFUSED = 77
"""Exit code of a node that the coordinator did not take in (EX_NOPERM): tried again later."""

Outcome = Literal["finished", "failed", "stopped"]
OUTCOMES: dict[Outcome, str] = {
    "finished": "has finished",
    "failed": "has failed; the coordinator may mend it and go on",
    "stopped": "is paused; it goes on when the coordinator starts it again",
}

State = Literal["stopped", "connecting", "online", "training", "refused", "unreachable"]


KINDS = {"query": "saying what this site has", "evaluate": "scoring the model"}
"""Flower's names for what a site is asked, in words."""


class Task(Config):
    """What the worker is doing.

    Attributes:
        kind: What it was asked: ``query``, ``train`` or ``evaluate``.
        stage: The stage trained, empty where none is.
        server_round: The round within the stage, 0 where none is trained.
        steps: Training steps done.
    """

    kind: str
    stage: str = ""
    server_round: int = 0
    steps: int = 0

    def words(self) -> str:
        """Say it in a few words."""
        if self.stage:
            return f"training, {self.stage} round {self.server_round}"
        if self.kind == "evaluate" and self.steps:
            return "adapting the model to this site's own patients"
        return KINDS.get(self.kind, self.kind)


class RecentRefusal(Config):
    """Why this site does not answer what it is asked.

    Attributes:
        fault: The code that leaves in place of an answer.
        words: Why, and what to do.
        passing: Whether it waits for a person or an hour, and nothing is wrong.
    """

    fault: int
    words: str
    passing: bool = False


class RunEnding(Config):
    """How the last run ended, as the coordinator's server said.

    Attributes:
        run: What the coordinator calls the run.
        how: ``finished``, ``failed``, or ``stopped``: it can go on later.
        model: Where its final model lies; empty where none came to this site.
    """

    run: str
    how: Outcome
    model: str = ""

    def words(self) -> str:
        """Say it in a sentence."""
        said = f"run {self.run} {OUTCOMES[self.how]}"
        if self.model:
            return f"{said}; its final model is {self.model}, with a card.md beside it"
        if self.how != "finished":
            return said
        return (
            f"{said}; no model came here: ask the coordinator for model.safetensors, then "
            f"mamfed-client models add model.safetensors --run {quote(self.run)}"
        )


class Status(Config):
    """How a site is doing.

    Attributes:
        state: What the node last knew.
        since: Since when.
        last_contact: When the server last answered.
        server: The server's ``host:port``.
        supervisor_pid: The process of ``mamfed-client start``, 0 where there is none.
        node_pid: Its child that talks to the server.
        worker_pid: Its child that trains.
        task: What the worker is doing.
        error: The last thing that went wrong, until the server answers again.
        refusal: Why this site does not answer, until it does.
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
    """Return a site's last status; one that cannot be read counts as none."""
    try:
        return read_json(Status, home.status)
    except SetupError:
        return Status()


def update_status(home: SiteHome, **changes: Any) -> None:
    """Change some of a site's status; ``since`` follows ``state``.

    What cannot be written is said in the log: a full disk must not decide what is answered, nor end
    what watches the line.
    """
    try:
        _update(home, changes)
    except (OSError, OutputError) as error:
        words = os_error_line(error) if isinstance(error, OSError) else str(error)
        logger.warning("the status cannot be written: %s", words)


def _update(home: SiteHome, changes: dict[str, Any]) -> None:
    with short_lock(home.path / ".status.lock"):
        before = read_status(home)
        if changes.get("state", before.state) != before.state:
            changes["since"] = datetime.now(UTC)
        after = before.model_copy(update=changes)
        if after != before:
            write_atomic(home.status, after.model_dump_json(indent=2) + "\n")
