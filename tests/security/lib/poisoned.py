"""A federation of phantom sites in this process, the first of which may want to harm the model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from tests.security.lib.phantom_patients import patients, small_plan

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.metrics.scores import summarise
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.config import LossConfig, NetworkConfig
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import State, state_of
from mamfed_common.plan import (
    EvaluationPlan,
    FederationPlan,
    FinetuningPlan,
    StagePlan,
    TrainingPlan,
)
from mamfed_common.protocol.messages import pack, unpack_body, unpack_weights
from mamfed_common.protocol.tasks import Query, SiteDescription, TrainReport, TrainTask
from mamfed_common.training.batches import RoundContext
from mamfed_common.training.inference import evaluate
from mamfed_common.training.stages import train
from mamfed_common.transforms.sample import Sample
from mamfed_server.aggregation.validation import distance
from mamfed_server.run.job import Job
from mamfed_server.run.run import run_job
from mamfed_server.run.training_round import TrainingRound
from mamfed_server.strategy.protocol import TrainAggregate
from mamfed_simulations.federation.in_process import InProcessTransport

CPU = torch.device("cpu")
ATTACKER = "site-0"
VAST = 10**7
"""The most images that a site may declare."""
NO_SCORE = SiteScore.model_validate(
    {
        "images": 0,
        "dice": None,
        "lesions": 0,
        "lesions_found": 0,
        "images_without_malignancy": 0,
        "false_positive_pixels": None,
    }
)


class Size(NamedTuple):
    """Rounds, steps of a round, training patients of a site, and test patients."""

    rounds: int
    steps: int
    patients: int
    tested: int


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        dice: Mean Dice of the final weights on patients of no site.
        reach: The longest step by which the attacker moved a round's weights, over the median norm.
        outside: Most values of a round's weights that lie outside those of the honest sites.
        accepted: Rounds in which the attacker's update was accepted.
    """

    dice: float = 0.0
    reach: float = 0.0
    outside: int = 0
    accepted: int = 0


class Turn(NamedTuple):
    """What an attacker has in its hands in a round: the start, its honest update, and chance."""

    start: State
    honest: State
    server_round: int
    random: torch.Generator


Attack = Callable[[Turn], State]


def plan_of(size: Size, seed: int, strategy: str | None) -> TrainingPlan:
    """Return a plan of stage 2 alone that learns phantoms in seconds."""
    stage = {"batch_size": 4, "learning_rate": 1e-2}
    return small_plan(
        seed=seed,
        network=NetworkConfig(channels=(8, 16, 32), first_skip_level=1, stem=1),
        pretraining=StagePlan(rounds=0, local_steps=1, learning_rate=1e-3),
        finetuning=FinetuningPlan(rounds=size.rounds, local_steps=size.steps, **stage),
        losses=LossConfig(benign=0),
        evaluation=EvaluationPlan(every=size.rounds),
        federation=FederationPlan(min_sites=1, strategy=strategy),
    )


@cache
def cohort(seed: int, number: int, count: int) -> list[Sample]:
    """Return a site's patients; site -1 is nobody's."""
    return patients(1000 * (seed + 1) + number + 1, count)


def mislabelled(samples: list[Sample]) -> list[Sample]:
    """Return the samples with healthy tissue marked in place of the lesion."""
    return [s._replace(mask=np.roll(s.mask, s.mask.shape[0] // 2, axis=0)) for s in samples]


class Poisoned:
    """Sites of which the first attacks."""

    def __init__(
        self, sites: int, size: Size, seed: int, attack: Attack | None, kinds: frozenset[str]
    ) -> None:
        """Prepare the sites.

        Args:
            sites: How many there are.
            size: How much they train.
            seed: Seed of patients, weights and the attacker's chance.
            attack: What the attacker makes of its honest update; None: it is honest.
            kinds: ``labels``: it trains on wrong masks; ``vast``: it declares ``VAST`` images;
                ``absent``: it has none, and so takes no part.
        """
        self.names = [f"site-{number}" for number in range(sites)]
        self.size, self.seed, self.attack, self.kinds = size, seed, attack, kinds
        self.random = torch.Generator().manual_seed(seed)

    def app(self) -> ClientApp:
        """Return the sites' app."""
        app = ClientApp()
        app.query()(self._query)
        app.train()(self._train)
        app.evaluate()(lambda message, context: Message(pack(NO_SCORE), reply_to=message))
        return app

    def _name(self, context: Context) -> str:
        return self.names[int(context.node_config["partition-id"])]

    def _images(self, name: str) -> int:
        if name == ATTACKER and "absent" in self.kinds:
            return 0
        return VAST if name == ATTACKER and "vast" in self.kinds else self.size.patients

    def _query(self, message: Message, context: Context) -> Message:
        unpack_body(message.content, Query)
        name = self._name(context)
        counts = {"malignant": {"train": self._images(name)}}
        described = SiteDescription(
            site=name, images=counts, patients={}, rows=1, rejected={}, left_out={}, vendors={}
        )
        return Message(pack(described), reply_to=message)

    def _train(self, message: Message, context: Context) -> Message:
        name, task = self._name(context), unpack_body(message.content, TrainTask)
        expected = state_of(build_network(task.plan.network, 0))
        start = unpack_weights(message.content, task, expected)
        samples = cohort(self.seed, self.names.index(name), self.size.patients)
        if name == ATTACKER and "labels" in self.kinds:
            samples = mislabelled(samples)
        state = train(
            task.stage, start, samples, task.plan, RoundContext(name, task.server_round), device=CPU
        ).state
        if name == ATTACKER and self.attack:
            state = self.attack(Turn(start, state, task.server_round, self.random))
        report = TrainReport(num_examples={"malignant": self._images(name)}, loss=0.5)
        return Message(pack(report, state), reply_to=message)


@contextmanager
def watched(outcome: Outcome) -> Iterator[None]:
    """Measure in each round how far the attacker's update reaches after the server's guard."""
    original = TrainingRound._aggregate

    def aggregate(turn: TrainingRound) -> TrainAggregate:
        result = original(turn)
        start, accepted = turn.global_state, sorted(turn._reports)
        if ATTACKER not in accepted:
            return result
        outcome.accepted += 1
        sent = {s: turn.updates.average({s: 1.0}, start) for s in accepted}
        moved = result.shares[ATTACKER] * distance(sent[ATTACKER], start)
        if len(accepted) >= 3:
            median = statistics.median(norm for norm, *_ in turn._norms.values())
            outcome.reach = max(outcome.reach, moved / median)
        honest = [sent[site] for site in accepted if site != ATTACKER]
        outcome.outside = max(outcome.outside, _outside(result.state, honest))
        return result

    TrainingRound._aggregate = aggregate  # type: ignore[method-assign]
    try:
        yield
    finally:
        TrainingRound._aggregate = original  # type: ignore[method-assign]


def _outside(state: State, honest: list[State]) -> int:
    """Count the values that lie outside the range of the honest sites, rounding aside."""
    count = 0
    for name, tensor in state.items():
        values = torch.stack([s[name] for s in honest])
        room = 1e-6 * (1 + values.abs().amax(0))
        below, above = tensor < values.amin(0) - room, tensor > values.amax(0) + room
        count += int((below | above).sum())
    return count


def run_poisoned(folder: Path, plan: TrainingPlan, poisoned: Poisoned) -> Outcome:
    """Run a federation with an attacker and measure what became of it."""
    torch.set_num_threads(1)
    outcome, sites = Outcome(), len(poisoned.names)
    with watched(outcome):
        run_job(
            Job(plan=plan, folder=folder, num_nodes=sites),
            InProcessTransport(poisoned.app(), sites),
        )
    state = load_checkpoint(folder / "checkpoints" / "final.safetensors").state
    tested = cohort(poisoned.seed, -1, poisoned.size.tested)
    outcome.dice = summarise(evaluate(state, tested, plan, device=CPU)).dice or 0.0
    return outcome
