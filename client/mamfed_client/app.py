"""A site's Flower ClientApp: answers query, train and evaluate. Images never enter an answer."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from mamfed_client.site import Site, load_site
from mamfed_common.device import choose_device
from mamfed_common.metrics import summarise
from mamfed_common.plan import TrainingPlan
from mamfed_common.state import State, state_of
from mamfed_common.subtraction import MalignancyNetwork
from mamfed_common.training import TRAINERS, OnStep, Turn, evaluate
from mamfed_common.weights import (
    EVALUATED_ON,
    TRAINED_ON,
    EvaluateTask,
    Query,
    TrainReport,
    TrainTask,
    pack,
    unpack_body,
    unpack_state,
)

logger = logging.getLogger(__name__)

SITE_FAILED = 2
"""Flower's ``CLIENT_APP_RAISED_EXCEPTION``; all that the coordinator learns of a failure here."""

Handler = Callable[[RecordDict, Site], RecordDict]


def make_client_app(
    site_of: Callable[[Context], Site],
    *,
    device: str = "auto",
    threads: int | None = None,
    on_step: OnStep | None = None,
) -> ClientApp:
    """Make the ClientApp of one site, or of all simulated ones.

    Args:
        site_of: Tells from Flower's context whose turn it is.
        device: Where to train: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: CPU threads to use. Equal numbers give equal bits; None leaves torch's choice.
        on_step: Called after each training step, for a progress bar.
    """
    app = ClientApp()

    def answer(message: Message, context: Context, handler: Handler) -> Message:
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            return Message(handler(message.content, site_of(context)), reply_to=message)
        except Exception:  # an exception's text may hold paths or patients: it stays here
            logger.exception("this site could not answer a %s", message.metadata.message_type)
            return Message(Error(SITE_FAILED, "see the site's log"), reply_to=message)

    def train(content: RecordDict, site: Site) -> RecordDict:
        task = unpack_body(content, TrainTask)
        result = TRAINERS[task.stage](
            unpack_state(content, _expected(task.plan)),
            load_site(site, task.plan).samples([TRAINED_ON[task.stage]], "train"),
            task.plan,
            Turn(site.name, task.server_round),
            device=choose_device(device),
            on_step=on_step,
        )
        report = TrainReport(num_examples=result.num_examples, loss=result.loss)
        return pack(report, result.state)

    def score(content: RecordDict, site: Site) -> RecordDict:
        task = unpack_body(content, EvaluateTask)
        samples = load_site(site, task.plan).samples(EVALUATED_ON, task.part)
        state = unpack_state(content, _expected(task.plan))
        return pack(summarise(evaluate(state, samples, task.plan, device=choose_device(device))))

    def describe(content: RecordDict, site: Site) -> RecordDict:
        return pack(load_site(site, unpack_body(content, Query).plan).describe())

    app.query()(lambda message, context: answer(message, context, describe))
    app.train()(lambda message, context: answer(message, context, train))
    app.evaluate()(lambda message, context: answer(message, context, score))
    return app


def _expected(plan: TrainingPlan) -> State:
    return state_of(MalignancyNetwork(plan.network))
