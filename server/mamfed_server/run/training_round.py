"""One round of training: ask sites, check what they send, and have the strategy aggregate it.

Flower's own FedAvg keeps every reply in memory, lets one NaN poison the model, and counts replies
before it looks at them. Here each update is checked and stored on disk as it arrives, and the
strategy reads the accepted ones in the order of the sites' names. Memory holds one model, the order
of arrival changes no bit, and the quorum counts accepted updates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from flwr.app import MessageType, RecordDict

from mamfed_common.domain import Purpose
from mamfed_common.errors import WeightsError
from mamfed_common.model.state_dict import State
from mamfed_common.protocol.messages import pack_task, wire_bytes
from mamfed_common.protocol.tasks import TrainReport, TrainTask
from mamfed_server.aggregation.origins import origin, parts
from mamfed_server.aggregation.site_weights import counts_that_weigh, shares
from mamfed_server.aggregation.update_store import UpdateFolder
from mamfed_server.aggregation.validation import (
    WrongCountError,
    distance,
    read_update,
    shortened,
    too_far,
    too_long,
)
from mamfed_server.run.requests import Nodes, SitePoller
from mamfed_server.run.site_reply import SiteReply
from mamfed_server.run_folder.event_log import utc_now
from mamfed_server.run_folder.room import Again, once
from mamfed_server.run_folder.round_record import Contribution, RoundRecord
from mamfed_server.strategy.protocol import RoundUpdates, Strategy, TrainAggregate


@dataclass
class TrainingRound:
    """A round of training in progress.

    Attributes:
        task: The request to the sites.
        global_state: The weights that they start from.
        declared: How many images of each purpose each site declared.
        first_counts: How many images each site used in its first accepted update of the stage. A
            site that has more by now weighs as much as then.
        updates: Where accepted updates are stored until they are aggregated.
        min_updates: How many must be accepted.
        strategy: Aggregates them.
        on_wrong_count: Called with a site whose update claims other numbers of examples.
        again: Repeats what the machine has no room for.
    """

    task: TrainTask
    global_state: State
    declared: Mapping[str, Mapping[Purpose, int]]
    updates: UpdateFolder
    min_updates: int
    strategy: Strategy
    on_wrong_count: Callable[[str], None]
    first_counts: Mapping[str, Mapping[Purpose, int]] = field(default_factory=dict)
    again: Again = once
    _reports: dict[str, TrainReport] = field(default_factory=dict)
    _norms: dict[str, list[float]] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)
    _clipped: dict[str, float] = field(default_factory=dict)
    _answered: list[str] = field(default_factory=list)
    _durations: dict[str, float] = field(default_factory=dict)
    _bytes_received: int = 0

    def run(
        self, poller: SitePoller, nodes: Nodes, deadlines: Mapping[str, float]
    ) -> tuple[State | None, RoundRecord]:
        """Train the round.

        Args:
            poller: Sends the requests.
            nodes: The sites to ask. If they are fewer than ``min_updates``, none is asked.
            deadlines: How long to wait for each, in seconds.

        Returns:
            The new weights, None where too few updates were accepted, and the round's record.

        Raises:
            StopRequested: The run was asked to stop.
        """
        started, started_at = time.monotonic(), utc_now()
        self.again(self.updates.clear)
        sent, request = 0, pack_task(self.task, self.global_state)
        request_bytes = wire_bytes(request)
        if len(nodes) >= self.min_updates:
            sent = poller.ask(MessageType.TRAIN, request, nodes, deadlines, self._on_reply)
        self._refuse_outliers()
        self._shorten_outliers()
        enough = len(self._reports) >= self.min_updates
        aggregate = self.again(self._aggregate) if enough else None
        self.again(self.updates.clear)
        record = RoundRecord(
            stage=self.task.stage,
            server_round=self.task.server_round,
            expected=tuple(nodes),
            answered=tuple(sorted(self._answered)),
            accepted=self._contributions(aggregate.shares if aggregate else self._plan_shares()),
            refused=dict(sorted(self._refused.items())),
            bytes_sent=request_bytes * sent,
            bytes_received=self._bytes_received,
            started_at=started_at,
            deadlines=dict(deadlines),
            durations=dict(sorted(self._durations.items())),
            seconds=time.monotonic() - started,
        )
        return aggregate and aggregate.state, record

    def _on_reply(self, site: str, reply: SiteReply) -> None:
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
        update = read_update(content, self.global_state, self.declared[site], wire)
        self.again(partial(self.updates.keep, site, update.state))
        self._reports[site] = update.report
        self._norms[site] = self._lengths(site, update.state)

    def _lengths(self, site: str, state: State) -> list[float]:
        """Return how far an update goes, for each part that is measured by itself."""
        start = self._origin(site)
        return [
            distance(state, {name: start[name] for name in start if name in part})
            for part in self._parts()
        ]

    def _origin(self, site: str) -> State:
        return origin(self.global_state, self.task.plan, site)

    def _parts(self) -> tuple[frozenset[str], ...]:
        return parts(self.global_state, self.task.plan)

    def _refuse_outliers(self) -> None:
        ratio = self.task.plan.federation.max_update_norm_ratio
        first = {site: norms[0] for site, norms in self._norms.items()}
        for site, reason in too_far(first, ratio).items():
            self._refused[site] = reason
            del self._reports[site], self._norms[site]

    def _shorten_outliers(self) -> None:
        """Shorten the longest updates; the others are not touched, and keep their bits."""
        most = self.task.plan.federation.clip_update_norm_ratio
        for number, part in enumerate(self._parts()):
            norms = {site: own[number] for site, own in self._norms.items()}
            for site, ratio in too_long(norms, most).items():
                update = self.again(partial(self.updates.average, {site: 1.0}, self.global_state))
                shorter = shortened(update, self._origin(site), most / ratio, part)
                self.again(partial(self.updates.keep, site, shorter))
                self._clipped[site] = max(ratio, self._clipped.get(site, 0.0))

    def _aggregate(self) -> TrainAggregate:
        return self.strategy.aggregate_train(
            RoundUpdates(
                plan=self.task.plan,
                stage=self.task.stage,
                server_round=self.task.server_round,
                global_state=self.global_state,
                examples=self._weighed(),
                store=self.updates,
            )
        )

    def _contributions(self, site_shares: Mapping[str, float]) -> dict[str, Contribution]:
        return {
            site: Contribution(
                num_examples=self._reports[site].num_examples,
                share=share,
                loss=self._reports[site].loss,
                privacy=self._reports[site].privacy,
                clipped_from=self._clipped.get(site),
            )
            for site, share in site_shares.items()
        }

    def _weighed(self) -> dict[str, Mapping[Purpose, int]]:
        """Return the counts that each accepted site weighs by, in the order of their names."""
        return {
            site: counts_that_weigh(
                self._reports[site].num_examples, self.first_counts.get(site, {})
            )
            for site in sorted(self._reports)
        }

    def _plan_shares(self) -> dict[str, float]:
        """Return the shares by the plan, for a round that is not aggregated."""
        return shares(self._weighed(), self.task.stage, self.task.plan.federation)
