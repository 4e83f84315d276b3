"""The plans that this site received, and its decisions about them.

``SHA.yaml`` is a plan as it was signed. ``decisions.jsonl`` has one line per decision; the last one
about a plan counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from mamfed_common.config import DIGEST, Config
from mamfed_common.errors import PlanError, SetupError
from mamfed_common.plan import TrainingPlan, read_plan
from mamfed_common.runtime.bounded import STATE_BYTES
from mamfed_common.runtime.files import private_directory, reason, write_atomic
from mamfed_common.runtime.lock import home_lock
from mamfed_common.runtime.places import user_name
from mamfed_common.runtime.seal import sealed, unsealed
from mamfed_common.runtime.text import NotTextError, read_text

DECISIONS = "decisions.jsonl"
MAX_PENDING = 20
"""Most plans that wait for a decision; beyond it, the oldest go."""
DROPPED = "dropped.json"
"""File with the number of plans that went."""


class Decision(StrEnum):
    """The decision of a person at this site about a plan."""

    APPROVED = "approved"
    REFUSED = "refused"


class DecisionRecord(Config):
    """One decision: what was decided, when (UTC) and by whom."""

    plan_sha256: str = Field(pattern=DIGEST)
    decision: Decision
    time: str
    by: str


class StoredPlan(NamedTuple):
    """A plan, and when (UTC) it arrived with a valid signature; None: only read from a file yet."""

    sha256: str
    plan: TrainingPlan
    came: datetime | None


class PlanStore:
    """A folder of plans and decisions, created when the first plan arrives."""

    def __init__(self, folder: Path) -> None:
        """Store plans in this folder (0700)."""
        self._folder = folder

    def remember(self, plan: TrainingPlan) -> None:
        """Store a plan whose signature was valid."""
        path = self._path(plan.sha256())
        if not path.exists():
            private_directory(self._folder)
            with home_lock(self._folder):
                write_atomic(path, plan.to_yaml())
                self._drop_oldest(keep=path)

    def _drop_oldest(self, keep: Path) -> None:
        """Remove the oldest undecided plans beyond :data:`MAX_PENDING`, and count them."""
        decided = self.decisions()
        paths = [p for p in self._by_age() if p.stem not in decided and p != keep]
        oldest = paths[: max(0, len(paths) + 1 - MAX_PENDING)]
        if oldest:
            write_atomic(self._folder / DROPPED, f"{self.dropped() + len(oldest)}\n")
        for path in oldest:
            path.unlink(missing_ok=True)

    def dropped(self) -> int:
        """Return how many plans went undecided because more than :data:`MAX_PENDING` came."""
        path = self._folder / DROPPED
        try:
            return int(read_text(path)) if path.exists() else 0
        except ValueError:
            return 0

    def approvals(self, sha256: str) -> int:
        """Return how often a person here approved a plan.

        Raises:
            SetupError: A line is damaged.
        """
        mine = [record.decision for record in self.history() if record.plan_sha256 == sha256]
        return mine.count(Decision.APPROVED)

    def plans(self) -> list[StoredPlan]:
        """Return the plans received, newest last, without the files in :meth:`unusable`."""
        return [plan for plan in self._read_all() if isinstance(plan, StoredPlan)]

    def unusable(self) -> list[str]:
        """Return a reason for each file that does not hold the plan it is named after.

        Another version of mamfed may have stored it: one key more or less changes the SHA-256.
        """
        return [why for why in self._read_all() if isinstance(why, str)]

    def _read_all(self) -> list[StoredPlan | str]:
        return [_read(path) for path in self._by_age()]

    def _by_age(self) -> list[Path]:
        return sorted(self._folder.glob("*.yaml"), key=lambda path: path.stat().st_mtime_ns)

    def find(self, prefix: str) -> StoredPlan:
        """Return the only plan whose SHA-256 starts with ``prefix``.

        Raises:
            SetupError: There is none, or more than one.
        """
        matches = [stored for stored in self.plans() if stored.sha256.startswith(prefix.lower())]
        if len(matches) != 1 or not prefix:
            raise SetupError(
                f"{self._folder}: found {len(matches)} plans whose SHA-256 starts with {prefix!r}, "
                "expected 1; run mamfed-client plan list to see them all"
            )
        return matches[0]

    def decide(self, sha256: str, decision: Decision, by: str = "") -> DecisionRecord:
        """Add a decision, in the name of a person or, if empty, of the operating system's user."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        who = by or user_name()
        record = DecisionRecord(plan_sha256=sha256, decision=decision, time=now, by=who)
        private_directory(self._folder)
        with home_lock(self._folder):
            lines = [*self.history(), record]
            # Rewriting the whole file, which stays small, never leaves a truncated line.
            text = "".join(sealed(line.model_dump_json()) + "\n" for line in lines)
            text += _end(text) + "\n"
            write_atomic(self._folder / DECISIONS, text)
        return record

    def history(self) -> list[DecisionRecord]:
        """Return all decisions, the oldest first.

        Raises:
            SetupError: A line is damaged, so its decision is unknown.
        """
        path = self._folder / DECISIONS
        try:
            lines = read_text(path, STATE_BYTES).splitlines() if path.exists() else []
            if not lines and path.exists():
                raise NotTextError("it is empty; restore it from backup")
        except (OSError, NotTextError) as error:
            raise SetupError(f"{path}: cannot be read: {reason(path, error)}") from None
        end = lines.pop() if _is_sealed(lines) else None
        records = [_decision(f"{path}:{number}", line) for number, line in enumerate(lines, 1)]
        if end is not None and end != _end("".join(f"{line}\n" for line in lines)):
            raise SetupError(f"{path}: damaged: its end does not fit; restore it from backup")
        return records

    def decisions(self) -> Mapping[str, Decision]:
        """Return the last decision about each plan, by SHA-256.

        Raises:
            SetupError: A line is damaged.
        """
        return {record.plan_sha256: record.decision for record in self.history()}

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.yaml"


def _read(path: Path) -> StoredPlan | str:
    try:
        plan = read_plan(path)
    except PlanError as error:
        return f"{error}; ignored: remove the file, and the server will send the plan again"
    if plan.sha256() != path.stem:
        return (
            f"{path}: found a plan of SHA-256 {plan.sha256()[:12]}, expected the one in its name; "
            "ignored, as another version of mamfed may have stored it: remove the file, and the "
            "server will send the plan again"
        )
    return StoredPlan(path.stem, plan, datetime.fromtimestamp(path.stat().st_mtime, UTC))


def _end(text: str) -> str:
    """Return the last line, which tells that no decision before it is missing or changed."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"decisions": text.count("\n"), "sha256": digest})


def _is_sealed(lines: list[str]) -> bool:
    """Return whether this version wrote the lines; earlier ones wrote decisions alone."""
    return any(set(line.split('"')) & {"sha256", "decisions"} for line in lines)


def _decision(place: str, line: str) -> DecisionRecord:
    try:
        return DecisionRecord.model_validate_json(unsealed(line))
    except ValueError:
        raise SetupError(f"{place}: not a decision; remove the line and decide again") from None
