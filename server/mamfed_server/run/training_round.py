"""One round: ask sites to train, check what they send, average it; or ask them to score weights.

Stock FedAvg keeps every reply in memory, lets one NaN poison the model and counts replies before
it looks at them. Here each update is checked and put on disk as it arrives, and the round's updates
are averaged in the order of the sites' names: memory holds one, arrival order changes no bit, and
the quorum counts accepted updates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flwr.app import MessageType, RecordDict

from mamfed_common.domain import Purpose
from mamfed_common.errors import WeightsError
from mamfed_common.metrics.scores import SiteScore
from mamfed_common.model.state_dict import State
from mamfed_common.protocol.messages import pack_task, wire_bytes
from mamfed_common.protocol.tasks import EvaluateTask, SiteDescription, TrainReport, TrainTask
from mamfed_server.aggregation.group_norms import average_groups
from mamfed_server.aggregation.site_weights import shares
from mamfed_server.aggregation.update_store import UpdateFolder
from mamfed_server.aggregation.validation import WrongCountError, read_score, read_update, too_far
from mamfed_server.run.requests import Nodes, SitePoller, SiteReply
from mamfed_server.run_folder.event_log import utc_now
from mamfed_server.run_folder.folder import Contribution, RoundRecord


@dataclass
class TrainingRound:
    """A round of training under way.

    Attributes:
        task: What the sites are asked.
        start: Weights that they start from.
        declared: How many images of each kind each said that it would use.
        updates: Where accepted updates lie until they are averaged.
        need: How many must be accepted.
        on_wrong_count: Called with a site whose update claims other numbers of examples.
    """

    task: TrainTask
    start: State
    declared: Mapping[str, Mapping[Purpose, int]]
    updates: UpdateFolder
    need: int
    on_wrong_count: Callable[[str], None]
    _reports: dict[str, TrainReport] = field(default_factory=dict)
    _norms: dict[str, float] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)
    _answered: list[str] = field(default_factory=list)
    _durations: dict[str, float] = field(default_factory=dict)
    _bytes_received: int = 0

    def run(
        self, link: SitePoller, nodes: Nodes, deadlines: Mapping[str, float]
    ) -> tuple[State | None, RoundRecord]:
        """Train the round.

        Args:
            link: The way to the sites.
            nodes: The sites to ask. Where they are fewer than needed, none is.
            deadlines: How long each is waited for, in seconds.

        Returns:
            The new weights, None where too few updates were accepted, and the record of the round.

        Raises:
            Stopped: The run was asked to stop.
        """
        started, started_at = time.monotonic(), utc_now()
        self.updates.clear()
        sent, request = 0, pack_task(self.task, self.start)
        request_bytes = wire_bytes(request)
        if len(nodes) >= self.need:
            sent = link.ask(MessageType.TRAIN, request, nodes, deadlines, self._take)
        self._refuse_outliers()
        record = RoundRecord(
            stage=self.task.stage,
            server_round=self.task.server_round,
            expected=tuple(nodes),
            answered=tuple(sorted(self._answered)),
            accepted=self._contributions(),
            refused=dict(sorted(self._refused.items())),
            bytes_sent=request_bytes * sent,
            bytes_received=self._bytes_received,
            started_at=started_at,
            deadlines=dict(deadlines),
            durations=dict(sorted(self._durations.items())),
        )
        averaged = self._average() if len(self._reports) >= self.need else None
        self.updates.clear()
        seconds = time.monotonic() - started
        return averaged, record.model_copy(update={"seconds": seconds})

    def _take(self, site: str, reply: SiteReply) -> None:
        if reply.seconds is not None:
            self._durations[site] = round(reply.seconds, 3)
        if reply.content is None:
            self._refused[site] = reply.reason
            return
        self._answered.append(site)
        self._bytes_received += wire_bytes(reply.content)
        try:
            self._accept(site, reply.content)
        except WeightsError as error:
            self._refused[site] = str(error)
            if isinstance(error, WrongCountError):
                self.on_wrong_count(site)

    def _accept(self, site: str, content: RecordDict) -> None:
        wire = self.task.plan.federation.wire
        update = read_update(content, self.start, self.declared[site], wire)
        self.updates.keep(site, update.state)
        self._reports[site] = update.report
        self._norms[site] = update.norm

    def _refuse_outliers(self) -> None:
        ratio = self.task.plan.federation.max_update_norm_ratio
        for site, reason in too_far(self._norms, ratio).items():
            self._refused[site] = reason
            del self._reports[site]

    def _contributions(self) -> dict[str, Contribution]:
        return {
            site: Contribution(
                num_examples=self._reports[site].num_examples,
                share=share,
                loss=self._reports[site].loss,
            )
            for site, share in self._shares().items()
        }

    def _average(self) -> State:
        return average_groups(self.updates, self._shares(), self.start, self.task.plan)

    def _shares(self) -> dict[str, float]:
        examples = {site: report.num_examples for site, report in self._reports.items()}
        return shares(examples, self.task.stage, self.task.plan.federation)


class Scores(NamedTuple):
    """What came of asking sites to score weights.

    Attributes:
        scores: Each site's score, in the order of their names.
        failures: The reason for each site that gave none.
        durations: Seconds until each answered, its whole deadline where it let that pass.
    """

    scores: dict[str, SiteScore]
    failures: dict[str, str]
    durations: dict[str, float]


def evaluate_sites(
    link: SitePoller,
    state: State,
    task: EvaluateTask,
    nodes: Nodes,
    descriptions: Mapping[str, SiteDescription],
    deadlines: Mapping[str, float],
    painter: State | None = None,
) -> Scores:
    """Ask sites to score weights on one part of their data; ``painter`` as the task says.

    Raises:
        Stopped: The run was asked to stop.
    """
    found = Scores({}, {}, {})

    def take(site: str, reply: SiteReply) -> None:
        if reply.seconds is not None:
            found.durations[site] = round(reply.seconds, 3)
        try:
            if reply.content is None:
                raise WeightsError(reply.reason)
            score = read_score(reply.content, descriptions[site], task.part, task.plan)
            found.scores[site] = score
        except WeightsError as error:
            found.failures[site] = str(error)

    link.ask(MessageType.EVALUATE, pack_task(task, state, painter), nodes, deadlines, take)
    return Scores(
        scores=dict(sorted(found.scores.items())),
        failures=dict(sorted(found.failures.items())),
        durations=dict(sorted(found.durations.items())),
    )


def mean_dice_of(scores: Mapping[str, SiteScore]) -> float | None:
    """Return the mean over sites of their mean Dice; sites without such images do not count."""
    values = [score.dice for score in scores.values() if score.dice is not None]
    return sum(values) / len(values) if values else None


def mean_dice_at_half_of(scores: Mapping[str, SiteScore]) -> float | None:
    """Return the mean over sites of their mean Dice at 0.5; sites that do not tell do not count."""
    values = [score.dice_at_half for score in scores.values() if score.dice_at_half is not None]
    return sum(values) / len(values) if values else None
