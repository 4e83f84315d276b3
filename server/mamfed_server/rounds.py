"""The two-stage round loop on Flower's ``Grid`` (Flower 1.41-1.42).

Stock FedAvg keeps every reply in memory, lets one NaN poison the model and counts replies before
it looks at them. Here each reply is pulled by its id, in the order of the sites' names, checked,
and added to a running mean: memory holds one reply, arrival order changes no bit, and the quorum
counts accepted updates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from mamfed_common.errors import RunError, WeightsError
from mamfed_common.metrics import SiteScore
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.state import State
from mamfed_common.weights import (
    EvaluateTask,
    Part,
    Query,
    SiteDescription,
    TrainTask,
    pack,
    unpack_body,
    unpack_update,
    wire_bytes,
)
from mamfed_server.aggregation import RunningMean
from mamfed_server.runs import Contribution, RoundRecord

POLL_SECONDS = 0.05
Nodes = Mapping[str, int]
"""Flower's node id by the name of the site."""


class Reply(NamedTuple):
    """What came back from one site: content, or the reason why there is none."""

    content: RecordDict | None
    reason: str = ""


def find_sites(
    grid: Grid, plan: TrainingPlan, *, num_nodes: int, deadline_seconds: float
) -> dict[str, tuple[int, SiteDescription]]:
    """Wait for nodes and ask each what it has.

    Args:
        grid: The federation.
        plan: The plan to describe the data for.
        num_nodes: Nodes to wait for.
        deadline_seconds: How long to wait for them, and then for their answers.

    Returns:
        Node id and description by the name of the site, in the order of the names.

    Raises:
        RunError: Too few nodes came, one did not describe itself, or two have the same name.
    """
    node_ids = _wait_for_nodes(grid, num_nodes, deadline_seconds)
    nodes = {f"node {node_id}": node_id for node_id in node_ids}
    sites: dict[str, tuple[int, SiteDescription]] = {}
    request = pack(Query(plan=plan))
    for name, reply in _ask(grid, nodes, MessageType.QUERY, request, deadline_seconds):
        if reply.content is None:
            raise RunError(f"{name} did not describe its data: {reply.reason}")
        description = unpack_body(reply.content, SiteDescription)
        if description.site in sites:
            raise RunError(f"two nodes say that they are site {description.site!r}")
        sites[description.site] = (nodes[name], description)
    return dict(sorted(sites.items()))


def train_round(
    grid: Grid,
    state: State,
    plan: TrainingPlan,
    stage: Stage,
    server_round: int,
    nodes: Nodes,
    declared_images: Mapping[str, int],
) -> tuple[State | None, RoundRecord]:
    """Ask sites to train one round, and average what they send back.

    Args:
        grid: The federation.
        state: Weights that the sites start from.
        plan: The plan.
        stage: The stage.
        server_round: The round, counted from 1 within the stage.
        nodes: The sites to ask.
        declared_images: How many training images each site said it has; an update that claims
            another number is refused, for the number is its weight.

    Returns:
        The new weights, None where the quorum was not met, and the record of the round.
    """
    started = time.monotonic()
    request = pack(TrainTask(plan=plan, stage=stage, server_round=server_round), state)
    deadline = plan.stage(stage).deadline_seconds
    mean, received = RunningMean(), 0
    answered: list[str] = []
    examples: dict[str, tuple[int, float]] = {}
    refused: dict[str, str] = {}
    for site, reply in _ask(grid, nodes, MessageType.TRAIN, request, deadline):
        if reply.content is None:
            refused[site] = reply.reason
            continue
        answered.append(site)
        received += wire_bytes(reply.content)
        try:
            update = unpack_update(reply.content, state)
            _check_examples(update.report.num_examples, declared_images[site])
        except WeightsError as error:
            refused[site] = str(error)
            continue
        mean.add(update.state, update.report.num_examples)
        examples[site] = (update.report.num_examples, update.report.loss)
    record = RoundRecord(
        stage=stage,
        server_round=server_round,
        expected=tuple(nodes),
        answered=tuple(answered),
        accepted={
            site: Contribution(num_examples=n, share=n / mean.total_weight, loss=loss)
            for site, (n, loss) in examples.items()
        },
        refused=refused,
        bytes_sent=wire_bytes(request) * len(nodes),
        bytes_received=received,
        seconds=time.monotonic() - started,
    )
    enough = mean.updates >= plan.stage(stage).quorum
    return (mean.result() if enough else None), record


def evaluate_sites(
    grid: Grid, state: State, plan: TrainingPlan, part: Part, nodes: Nodes
) -> tuple[dict[str, SiteScore], dict[str, str]]:
    """Ask sites to score weights on one part of their data.

    Returns:
        Each site's score, and the reason for each site that gave none.
    """
    scores: dict[str, SiteScore] = {}
    failures: dict[str, str] = {}
    request = pack(EvaluateTask(plan=plan, part=part), state)
    deadline = plan.finetuning.deadline_seconds
    for site, reply in _ask(grid, nodes, MessageType.EVALUATE, request, deadline):
        try:
            if reply.content is None:
                raise WeightsError(reply.reason)
            scores[site] = unpack_body(reply.content, SiteScore)
        except WeightsError as error:
            failures[site] = str(error)
    return scores, failures


def mean_dice_of(scores: Mapping[str, SiteScore]) -> float | None:
    """Return the mean over sites of their mean Dice; sites without such images do not count."""
    values = [score.dice for score in scores.values() if score.dice is not None]
    return sum(values) / len(values) if values else None


def _check_examples(claimed: int, declared: int) -> None:
    if claimed != declared:
        raise WeightsError(f"claims {claimed} examples but declared {declared} training images")


def _ask(
    grid: Grid, nodes: Nodes, message_type: str, request: RecordDict, deadline_seconds: float
) -> Iterator[tuple[str, Reply]]:
    """Send one request to sites; yield their replies in the order of the sites' names."""
    deadline = time.monotonic() + deadline_seconds
    sent: dict[str, str] = {}
    for site in sorted(nodes):
        message = Message(
            request, dst_node_id=nodes[site], message_type=message_type, ttl=deadline_seconds
        )
        (sent[site],) = grid.push_messages([message])
    for site, message_id in sent.items():
        reply = _pull(grid, message_id, lambda: time.monotonic() < deadline)
        if reply is None:
            yield site, Reply(None, f"no answer within {deadline_seconds:g} s")
        elif reply.has_error():
            # Only the code: a site's own words stay at the site.
            yield site, Reply(None, f"the site failed (Flower error {reply.error.code})")
        else:
            yield site, Reply(reply.content)


def _pull(grid: Grid, message_id: str, in_time: Callable[[], bool]) -> Message | None:
    while True:
        waiting = in_time()
        for reply in grid.pull_messages([message_id]):
            return reply
        if not waiting:
            return None
        time.sleep(POLL_SECONDS)


def _wait_for_nodes(grid: Grid, num_nodes: int, deadline_seconds: float) -> Sequence[int]:
    deadline = time.monotonic() + deadline_seconds
    while len(node_ids := sorted(grid.get_node_ids())) < num_nodes:
        if time.monotonic() > deadline:
            raise RunError(
                f"{len(node_ids)} of {num_nodes} nodes came within {deadline_seconds:g} s"
            )
        time.sleep(POLL_SECONDS)
    return node_ids
