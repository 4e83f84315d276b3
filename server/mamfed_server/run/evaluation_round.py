"""Ask sites to score weights on one part of their data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from flwr.app import MessageType

from mamfed_common.errors import WeightsError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.state_dict import State
from mamfed_common.protocol.messages import pack_task
from mamfed_common.protocol.tasks import EvaluateTask, SiteDescription
from mamfed_server.aggregation.validation import read_score
from mamfed_server.run.requests import Nodes, SitePoller
from mamfed_server.run.site_reply import SiteReply


class Scores(NamedTuple):
    """The sites' answers to a request for scores.

    Attributes:
        scores: Each site's score, in the order of their names.
        failures: The reason for each site that gave none.
        durations: Seconds until each answered; its deadline where it let that pass.
    """

    scores: dict[str, SiteScore]
    failures: dict[str, str]
    durations: dict[str, float]


def evaluate_sites(
    poller: SitePoller,
    state: State,
    task: EvaluateTask,
    nodes: Nodes,
    descriptions: Mapping[str, SiteDescription],
    deadlines: Mapping[str, float],
    painter: State | None = None,
) -> Scores:
    """Ask sites to score weights on one part of their data; ``painter`` as the task says.

    Raises:
        StopRequested: The run was asked to stop.
    """
    result = Scores({}, {}, {})

    def on_reply(site: str, reply: SiteReply) -> None:
        if reply.seconds is not None:
            result.durations[site] = round(reply.seconds, 3)
        try:
            if reply.content is None:
                raise WeightsError(reply.reason)
            score = read_score(reply.content, descriptions[site], task.part, task.plan)
            result.scores[site] = score
        except WeightsError as error:
            result.failures[site] = str(error)

    request = pack_task(task, state, painter)
    poller.ask(MessageType.EVALUATE, request, nodes, deadlines, on_reply)
    return Scores(
        scores=dict(sorted(result.scores.items())),
        failures=dict(sorted(result.failures.items())),
        durations=dict(sorted(result.durations.items())),
    )
