"""Three scripted sites that drop out at a chosen point of a round, and what the server averages."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from flwr.app import Error, Message
from tests.unit.server.sites import NAMES, NODES, Scripted, Sites, description

from mamfed_common.domain import TRAINED_ON
from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.state_dict import State
from mamfed_common.plan import (
    FederationPlan,
    FinetuningPlan,
    PersonalPlan,
    StagePlan,
    TrainingPlan,
)
from mamfed_common.protocol.flower_compat import ErrorCode
from mamfed_common.protocol.messages import pack
from mamfed_common.protocol.tasks import RefusalCode, TrainReport, TrainTask
from mamfed_server.run import requests
from mamfed_server.run.training_round import TrainingRound
from mamfed_server.strategy.protocol import TrainAggregate

BACK_SECONDS = 0.3


class Drop(NamedTuple):
    """A drop-out: at which point of which training of the run, and which site."""

    point: str
    turn: int
    site: str


def floor_plan(**federation: object) -> TrainingPlan:
    """Return a plan of four rounds, of which each takes a moment."""
    stage = {"local_epochs": 1, "batch_size": 2, "learning_rate": 1e-3}
    waits = {"deadline_seconds": 0.8, "min_deadline_seconds": 0.6}
    return TrainingPlan(
        image_size=32,
        network=NetworkConfig(channels=(4, 8), first_skip_level=1, stem=1),
        pretraining=StagePlan(rounds=2, **stage, **waits),
        finetuning=FinetuningPlan(rounds=2, **stage, **waits),
        personal=PersonalPlan(steps=0),
        federation=FederationPlan(**{"join_seconds": 0.05, "offline_seconds": 0.1, **federation}),
    )


class Dropping:
    """Sites and a transport of which one site drops out once, and comes back."""

    def __init__(self, drop: Drop) -> None:
        """Prepare a drop-out."""
        self.drop, self.node = drop, NODES[drop.site]
        self.sites = Sites()
        self.transport = Scripted(self.sites)
        self.done = False
        self.away = {
            "vanishes before it is asked": self._vanish,
            "vanishes with the request": self._vanish,
            "restarts": lambda: self.transport.restart(self.node),
            "falls silent": self._fall_silent,
        }
        self.answers: dict[str, Callable[[Message, TrainTask, State], Message]] = {
            "sends NaN": self._reply(lambda s: {n: t * math.nan for n, t in s.items()}),
            "sends a vast update": self._reply(lambda s: {n: t + 1e6 for n, t in s.items()}),
            "sends half of the arrays": self._reply(lambda s: dict(list(s.items())[::2])),
            "claims other counts": self._reply(lambda s: s, claimed=10**7),
            "fails": self._fault(RefusalCode.FAILED),
            "is out of hours": self._fault(RefusalCode.NOT_AT_THIS_HOUR),
            "loses the request": self._fault(ErrorCode.MESSAGE_UNAVAILABLE),
            "dies at work": self._fault(ErrorCode.CLIENT_APP_CRASHED),
        }
        self.transport.on_pull = self._on_pull

    def before_round(self) -> None:
        """Drop out between two rounds."""
        if self.drop.point == "vanishes before it is asked":
            self._strike()

    def _on_pull(self, node: int, message: Message) -> None:
        training = message.metadata.message_type == "train" and node == self.node
        if training and self.drop.point != "vanishes before it is asked":
            self._strike()

    def _strike(self) -> None:
        if self.done or len(self.sites.trained) < self.drop.turn * len(NAMES):
            return
        self.done = True
        if self.drop.point in self.away:
            self.away[self.drop.point]()
        else:
            self.sites.train_answer[self.drop.site] = self._once

    def _vanish(self) -> None:
        self.transport.away.add(self.node)
        self.transport.restart(self.node)
        threading.Timer(BACK_SECONDS, self.transport.away.discard, [self.node]).start()

    def _fall_silent(self) -> None:
        self.transport.silent[self.node] = {"train"}
        threading.Timer(1.0, self.transport.silent.clear).start()

    def _once(self, message: Message, task: TrainTask, state: State) -> Message:
        self.sites.train_answer.clear()
        return self.answers[self.drop.point](message, task, state)

    def _reply(
        self, spoil: Callable[[State], State], claimed: int = 0
    ) -> Callable[[Message, TrainTask, State], Message]:
        def answer(message: Message, task: TrainTask, state: State) -> Message:
            used = dict(description(self.drop.site).images_used(task.plan, task.stage))
            if claimed:
                used[TRAINED_ON[task.stage]] = claimed
            return Message(
                pack(TrainReport(num_examples=used, loss=0.25), spoil(state)), reply_to=message
            )

        return answer

    def _fault(self, code: int) -> Callable[[Message, TrainTask, State], Message]:
        return lambda message, task, state: Message(Error(code, "words"), reply_to=message)


POINTS = (
    *("vanishes before it is asked", "vanishes with the request", "restarts", "falls silent"),
    *("sends NaN", "sends a vast update", "sends half of the arrays", "claims other counts"),
    *("fails", "is out of hours", "loses the request", "dies at work"),
)


@contextmanager
def counted_averages() -> Iterator[list[tuple[str, ...]]]:
    """Yield the sites of each average that is made."""
    averages: list[tuple[str, ...]] = []
    original = TrainingRound._aggregate
    pauses = requests.LONGEST_PAUSE, requests.AGAIN_SECONDS
    requests.LONGEST_PAUSE, requests.AGAIN_SECONDS = 0.01, 0.02

    def aggregate(turn: TrainingRound) -> TrainAggregate:
        averages.append(tuple(sorted(turn._reports)))
        return original(turn)

    TrainingRound._aggregate = aggregate  # type: ignore[method-assign]
    try:
        yield averages
    finally:
        TrainingRound._aggregate = original  # type: ignore[method-assign]
        requests.LONGEST_PAUSE, requests.AGAIN_SECONDS = pauses


def one_thread() -> None:
    """Make results independent of the machine."""
    torch.set_num_threads(1)
