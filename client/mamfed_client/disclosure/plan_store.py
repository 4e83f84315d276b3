"""The plans that came to this site, and what it decided about each.

``SHA.yaml`` is a plan as it was signed, ``decisions.jsonl`` one line a decision, the last one
counting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from mamfed_common.config import DIGEST, Config
from mamfed_common.errors import PlanError, SetupError
from mamfed_common.plan import TrainingPlan, read_plan
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_common.runtime.lock import home_lock
from mamfed_common.runtime.places import user_name
from mamfed_common.runtime.text import read_text

DECISIONS = "decisions.jsonl"


class Decision(StrEnum):
    """What a person of this site said about a plan."""

    APPROVED = "approved"
    REFUSED = "refused"


class DecisionRecord(Config):
    """Who decided what, and when (UTC)."""

    plan_sha256: str = Field(pattern=DIGEST)
    decision: Decision
    time: str
    by: str


class StoredPlan(NamedTuple):
    """A plan, and when (UTC) it came with a good signature; None: it is a file of ours yet."""

    sha256: str
    plan: TrainingPlan
    came: datetime | None


class PlanStore:
    """A folder of plans and decisions; it is made when the first plan comes."""

    def __init__(self, folder: Path) -> None:
        """Keep plans in this folder (0700)."""
        self._folder = folder

    def remember(self, plan: TrainingPlan) -> None:
        """Keep a plan whose signature was good."""
        path = self._path(plan.sha256())
        if not path.exists():
            private_directory(self._folder)
            write_atomic(path, plan.to_yaml())

    def plans(self) -> list[StoredPlan]:
        """Return the plans that came, the newest last; what :meth:`left_over` names is not one."""
        return [found for found in self._look() if isinstance(found, StoredPlan)]

    def left_over(self) -> list[str]:
        """Say of each file that is not the plan of its name why it is not used.

        Another version of mamfed may have kept it: a key more or less is another SHA-256.
        """
        return [found for found in self._look() if isinstance(found, str)]

    def _look(self) -> list[StoredPlan | str]:
        paths = sorted(self._folder.glob("*.yaml"), key=lambda path: path.stat().st_mtime_ns)
        return [_read(path) for path in paths]

    def find(self, prefix: str) -> StoredPlan:
        """Return the one plan whose SHA-256 begins so.

        Raises:
            SetupError: There is none, or more than one.
        """
        found = [stored for stored in self.plans() if stored.sha256.startswith(prefix.lower())]
        if len(found) != 1 or not prefix:
            raise SetupError(
                f"{self._folder}: found {len(found)} plans whose SHA-256 begins with {prefix!r}, "
                "expected 1; mamfed-client plan list names those that came"
            )
        return found[0]

    def decide(self, sha256: str, decision: Decision) -> DecisionRecord:
        """Add a decision, in the name of the operating system's user."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        record = DecisionRecord(plan_sha256=sha256, decision=decision, time=now, by=user_name())
        private_directory(self._folder)
        with home_lock(self._folder):
            lines = [*self.history(), record]
            # As a whole, so that no line is ever torn; there are as many as a person typed.
            text = "".join(json.dumps(line.model_dump(mode="json")) + "\n" for line in lines)
            write_atomic(self._folder / DECISIONS, text)
        return record

    def history(self) -> list[DecisionRecord]:
        """Return all decisions, the oldest first.

        Raises:
            SetupError: A line is damaged: what it decided is not known.
        """
        path = self._folder / DECISIONS
        lines = read_text(path).splitlines() if path.exists() else []
        return [_decision(f"{path}:{number}", line) for number, line in enumerate(lines, 1)]

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
        return f"{error}; not used: remove the file, the server sends the plan again"
    if plan.sha256() != path.stem:
        return (
            f"{path}: found a plan of SHA-256 {plan.sha256()[:12]}, expected the one it is named "
            "after; not used: kept by another version? Remove it, the server sends the plan again"
        )
    return StoredPlan(path.stem, plan, datetime.fromtimestamp(path.stat().st_mtime, UTC))


def _decision(place: str, line: str) -> DecisionRecord:
    try:
        return DecisionRecord.model_validate_json(line)
    except ValidationError:
        raise SetupError(
            f"{place}: found no decision, expected one a line; remove the line and decide again"
        ) from None
