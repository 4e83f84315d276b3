"""The questions that this site has answered: each is answered once, and not too many are.

``answers.json`` holds the questions with hashes of their answers, the groups of patients behind the
scores, by keyed hashes, and its own SHA-256. A question that comes again, after a crash or a lost
reply, gets the same answer or none. A new approval of a plan opens its questions again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError
from torch import Tensor

from mamfed_client.disclosure.patients_behind import Patients, patients_sha256, told_apart
from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.site.policy import Bounds
from mamfed_common.config import DIGEST, Config
from mamfed_common.errors import SetupError
from mamfed_common.metrics.site_score import THRESHOLDS
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.protocol.tasks import EvaluateTask, PlanRequest, RefusalCode, TrainTask
from mamfed_common.runtime.bounded import STATE_BYTES, read_bytes
from mamfed_common.runtime.files import write_atomic
from mamfed_common.runtime.fingerprint import sha256_of

YEAR = timedelta(days=365)
TIME = "%Y-%m-%dT%H:%M:%SZ"

Asked = TrainTask | EvaluateTask


class Question(NamedTuple):
    """What a message asks.

    Attributes:
        about: What it is about, of which each plan asks once: ``train finetuning 3``, ``val 3``,
            ``test shared``.
        weights_sha256: The weights that came with it.
        sha256: All that decides the answer, besides plan and data.
    """

    about: str
    weights_sha256: str
    sha256: str


class Spent(NamedTuple):
    """What a site answered within a year: rounds trained, scores sent, splits scored."""

    rounds: int
    scores: int
    splits: int


class Answered(Config):
    """One question that was answered.

    Attributes:
        time: When it was answered first, UTC.
        plan_sha256: The plan.
        approvals: How often a person here had approved the plan by then.
        split: Hash of the plan's split of patients; empty for a training.
        about: What was asked, see :class:`Question`.
        question: Its hash.
        answer: Hash of what left.
        body: The values that left, as JSON; empty for a training, whose round is kept in ``state``.
        patients: Names of the groups of patients behind it.
    """

    time: str
    plan_sha256: str = Field(pattern=DIGEST)
    approvals: int = Field(ge=0)
    split: str = ""
    about: str
    question: str = Field(pattern=DIGEST)
    answer: str = Field(pattern=DIGEST)
    body: str = ""
    patients: tuple[str, ...] = ()


def question_of(
    request: Asked, weights: Mapping[str, Tensor], painter: Mapping[str, Tensor] | None = None
) -> Question:
    """Return what a request asks with some weights."""
    if isinstance(request, TrainTask):
        about = f"train {request.stage} {request.server_round}"
    elif request.part == "test":
        about = f"test {request.model}"
    else:
        about = f"{request.part} {request.server_round}"
    name = state_sha256(weights)
    threshold = request.threshold if isinstance(request, EvaluateTask) else None
    facts = [request.stage, request.server_round, name, threshold]
    return Question(about, name, sha256_of([*facts, painter and state_sha256(painter)]))


def check_question(request: PlanRequest) -> None:
    """Refuse what no honest run asks: such a question serves to look at single patients.

    Raises:
        PolicyRefusal: A score of training patients, of a round that the plan does not score, or at
            a threshold of the coordinator's choice.
    """
    if not isinstance(request, EvaluateTask):
        return
    plan, number = request.plan, request.server_round
    if request.part == "train":
        raise _outside("a score of training patients")
    if request.stage is not Stage.FINETUNING or number > plan.finetuning.rounds:
        raise _outside(f"a score of {request.stage} round {number}")
    if request.part == "val" and not plan.validates(request.stage, number):
        raise _outside(f"a score of round {number}, which the plan does not validate")
    fixed = [None] if request.part == "val" else [None, *THRESHOLDS]
    if request.threshold not in fixed:
        raise _outside(f"a score at the threshold {request.threshold:g}, not one of the plan's")


def _outside(what: str) -> PolicyRefusal:
    return PolicyRefusal(RefusalCode.PLAN_OUTSIDE_POLICY, f"asked for {what}")


class Memory(Config):
    """What ``answers.json`` holds.

    Attributes:
        questions: The answered questions, the oldest first.
        groups: The groups of patients behind the scores, by name.
        sha256: Hash of the other two.
    """

    questions: tuple[Answered, ...] = ()
    groups: dict[str, dict[str, str]] = Field(default_factory=dict)
    sha256: str = ""

    def sealed(self) -> Memory:
        """Return the memory with its hash."""
        return self.model_copy(
            update={"sha256": sha256_of(self.model_dump(mode="json", exclude={"sha256"}))}
        )


class AnsweredQuestions:
    """The memory of a site, in a file that the first answer creates (0600)."""

    def __init__(self, path: Path) -> None:
        """Keep it in this file."""
        self._path = path

    def find(self, plan: TrainingPlan, approvals: int, question: Question) -> Answered | None:
        """Return the earlier answer to a question; None if nothing like it was answered.

        Args:
            plan: The plan that asks.
            approvals: How often the plan was approved here.
            question: What it asks.

        Raises:
            PolicyRefusal: The plan has asked the same with other weights.
            SetupError: The file is damaged.
        """
        key = (plan.sha256(), approvals, question.about)
        for line in self.read().questions:
            if (line.plan_sha256, line.approvals, line.about) == key:
                if line.question != question.sha256:
                    raise PolicyRefusal(
                        RefusalCode.ALREADY_ANSWERED,
                        f"{question.about} of plan {key[0][:12]} with other weights; mamfed-client "
                        f"plan approve {key[0][:12]} opens its questions again",
                    )
                return line
        return None

    def check_budget(self, bounds: Bounds, request: Asked) -> None:
        """Refuse a new question if this site has answered enough of its kind within a year.

        Raises:
            PolicyRefusal: It has.
            SetupError: The file is damaged.
        """
        spent = self.spent()
        if isinstance(request, TrainTask):
            _check_spent("rounds", spent.rounds, bounds.max_rounds_a_year)
            return
        _check_spent("scores", spent.scores, bounds.max_scores_a_year)
        splits = {line.split for line in self._of_a_year() if line.split}
        splits -= {split_sha256(request.plan)}
        _check_spent("splits", len(splits), bounds.max_splits_a_year)

    def spent(self) -> Spent:
        """Return what was answered within a year.

        Raises:
            SetupError: The file is damaged.
        """
        lines = self._of_a_year()
        rounds = sum(line.about.startswith("train ") for line in lines)
        splits = len({line.split for line in lines if line.split})
        return Spent(rounds, len(lines) - rounds, splits)

    def fewest_apart(self, patients: Patients) -> int | None:
        """Return by how few patients a group differs from one of the last year's; None: from none.

        Groups equal to it do not count.

        Raises:
            SetupError: The file is damaged.
        """
        groups = self.read().groups
        names = {name for line in self._of_a_year() for name in line.patients}
        apart = [told_apart(patients, groups[name]) for name in names if name in groups]
        return min((count for count in apart if count), default=None)

    def add(self, answered: Answered, groups: Iterable[Patients]) -> None:
        """Remember an answer before it leaves.

        Raises:
            OSError: It cannot be written.
            SetupError: The file is damaged.
        """
        named = {patients_sha256(group): dict(group) for group in groups if group}
        line, memory = answered.model_copy(update={"patients": tuple(named)}), self.read()
        longer = Memory(
            questions=(*memory.questions, line), groups={**memory.groups, **named}
        ).sealed()
        write_atomic(self._path, longer.model_dump_json() + "\n")

    def read(self) -> Memory:
        """Return the memory; before the first answer, it is empty.

        Raises:
            SetupError: The file is damaged.
        """
        if not self._path.exists():
            return Memory()
        try:
            memory = Memory.model_validate_json(read_bytes(self._path, STATE_BYTES))
        except (OSError, ValidationError):
            raise _damaged(self._path) from None
        if memory.sealed() != memory:
            raise _damaged(self._path)
        return memory

    def _of_a_year(self) -> list[Answered]:
        since = (datetime.now(UTC) - YEAR).strftime(TIME)
        return [line for line in self.read().questions if line.time >= since]


def split_sha256(plan: TrainingPlan) -> str:
    """Return a hash of all in a plan that decides how patients are divided."""
    keys = {"split_seed", "validation_fraction", "test_fraction", "folds", "fold"}
    return sha256_of(plan.evaluation.model_dump(mode="json", include=keys))


def _check_spent(what: str, found: int, allowed: int) -> None:
    if found >= allowed:
        raise PolicyRefusal(
            RefusalCode.BUDGET_SPENT,
            f"answered {found} {what} in 365 days, policy.bounds.max_{what}_a_year is {allowed}",
        )


def _damaged(path: Path) -> SetupError:
    return SetupError(
        f"{path}: damaged, so this site does not know what it has answered, and nothing leaves; "
        "restore it from backup, or move it away, and every question can be asked once more"
    )
