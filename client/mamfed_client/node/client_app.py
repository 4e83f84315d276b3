"""A site's Flower ClientApp, which answers query, train and evaluate, never with images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from mamfed_client.disclosure.evaluation_question import site_sha256
from mamfed_client.disclosure.gate import Gate, OpenGate
from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.disclosure.refusal_messages import refusal_of
from mamfed_client.models.model_store import PERSONAL, ModelFolder
from mamfed_client.models.personal_model import Adapter
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_client.site.hardware import Hardware
from mamfed_client.training.devices import train_on
from mamfed_client.training.fedbn import LocalNorms
from mamfed_common import __version__
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts
from mamfed_common.domain import EVALUATED_ON
from mamfed_common.errors import DataError, OutputError
from mamfed_common.metrics.scores import summarise
from mamfed_common.model.state_dict import State, state_sha256
from mamfed_common.plan import with_threshold
from mamfed_common.plan.norm_groups import expected_state, group_of, merge_trained, select_group
from mamfed_common.protocol.messages import unpack_body, unpack_painter, unpack_weights
from mamfed_common.protocol.tasks import (
    REFUSAL_CODES,
    EvaluateTask,
    Query,
    RefusalCode,
    SiteDescription,
    TrainReport,
    TrainTask,
)
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.training.batches import RoundContext
from mamfed_common.training.device import choose_device
from mamfed_common.training.inference import OnStep, evaluate
from mamfed_common.training.optimizer_state import OptimizerStateStore
from mamfed_common.training.round_checkpoint import RoundCheckpointer

logger = logging.getLogger(__name__)

Handler = Callable[[RecordDict, Site], RecordDict]
ModelsOf = Callable[[Site, EvaluateTask], Path]
"""Returns the folder in which a site keeps the models of a run."""


def make_client_app(
    site_of: Callable[[Context], Site],
    *,
    device: str = "auto",
    devices: int | Literal["auto"] = 1,
    threads: int | None = None,
    activation_checkpointing: bool = False,
    on_step: OnStep | None = None,
    gate: Gate | None = None,
    state_folder: Path | None = None,
    keep_seconds: float = 60.0,
    norms: Path,
    optimizer: Path,
    models: ModelsOf | None = None,
) -> ClientApp:
    """Make the ClientApp of one site, or of all simulated ones.

    Args:
        site_of: Tells from Flower's context whose turn it is.
        device: Where to train: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: How many of it train together; ``auto``: all GPUs.
        threads: CPU threads to use. Equal numbers give equal bits; None leaves torch's choice.
        activation_checkpointing: Whether to train in less memory, at the cost of time.
        on_step: Called after each training step, for a progress bar.
        gate: What decides which requests are answered and what leaves; None, in a simulation:
            all and everything.
        state_folder: Folder in which the round under way is kept; None: a kill costs the round.
        keep_seconds: How much training a kill may cost.
        norms: Folder in which each site keeps its own norms where the plan asks for local ones.
        optimizer: Folder in which each site keeps AdamW's moments where the plan asks for that.
        models: Where a site keeps the final shared model and its own; None: nowhere.
    """
    app, door = ClientApp(), gate or OpenGate()
    hardware = Hardware(device, devices, threads, activation_checkpointing)

    def answer(message: Message, context: Context, handler: Handler) -> Message:
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            return Message(handler(message.content, site_of(context)), reply_to=message)
        except Exception as error:  # its text may hold paths or patients: it stays here
            fault = _refuse(error, message.metadata.message_type, door)
            return Message(Error(fault, REFUSAL_CODES[fault]), reply_to=message)

    def train(content: RecordDict, site: Site) -> RecordDict:
        task = unpack_body(content, TrainTask)
        door.admit(task)
        start = unpack_weights(content, task, expected_state(task.plan))
        own = _local_norms(norms, site, task)
        begin = _to_train(start, own, site, task)
        samples, benign = load_site(site, task.plan).training(task.plan, task.stage)
        door.admit_cases(len(samples) or len(benign))
        result = train_on(
            hardware,
            task.stage,
            begin,
            samples,
            task.plan,
            RoundContext(site.name, task.server_round),
            benign=benign,
            on_step=on_step,
            checkpointer=_checkpointer(state_folder, _name_of(task, begin, site), keep_seconds),
            optimizer_state=_moments(optimizer, site, task),
        )
        if own:
            own.keep(result.state, task.stage, task.server_round)
        report = TrainReport(num_examples=result.num_examples, loss=result.loss)
        return door.release(task, report, _as_sent(result.state, start, site, task), start)

    def score(content: RecordDict, site: Site) -> RecordDict:
        task = unpack_body(content, EvaluateTask)
        door.admit(task)
        data = load_site(site, task.plan)
        expected = expected_state(task.plan)
        own, painter = _local_norms(norms, site, task), unpack_painter(content, task, expected)
        facts = _facts_of(task, data.describe())
        came = Checkpoint(unpack_weights(content, task, expected), facts, painter)
        final = _to_score(came, own, site, task)
        folder = _keep_shared(models, site, task, final)
        if task.model == PERSONAL:
            checkpointer = _checkpointer(
                state_folder, f"{PERSONAL} {_name_of(task, final.state, site)}", keep_seconds
            )
            final = Adapter(data, hardware, door, checkpointer, on_step).personal(final, folder)
        plan = with_threshold(task.plan, final.facts.threshold)
        samples = data.samples(EVALUATED_ON, task.part)
        scores = evaluate(
            final.state, samples, plan, device=choose_device(device), painter=final.painter
        )
        score = summarise(scores)
        if folder:
            folder.note_score(task.model, score, task.run)
        return door.release(task, score)

    def describe(content: RecordDict, site: Site) -> RecordDict:
        query = unpack_body(content, Query)
        door.admit(query)
        return door.release(query, load_site(site, query.plan).describe())

    app.query()(lambda message, context: answer(message, context, describe))
    app.train()(lambda message, context: answer(message, context, train))
    app.evaluate()(lambda message, context: answer(message, context, score))
    return app


def _refuse(error: Exception, message_type: str, door: OpenGate) -> RefusalCode:
    """Log what went wrong; return the code that may travel."""
    if isinstance(error, PolicyRefusal):
        logger.warning("this site refused a %s: %s", message_type, error)
        fault = error.fault
    else:
        logger.error("this site could not answer a %s", message_type, exc_info=error)
        fault = RefusalCode.DATA_UNUSABLE if isinstance(error, DataError) else RefusalCode.FAILED
    try:
        door.report_refusal(refusal_of(error, fault))
        return door.release_code(fault)
    except Exception:
        logger.exception("the refusal could not be recorded")
        return RefusalCode.FAILED


def _local_norms(folder: Path, site: Site, task: TrainTask | EvaluateTask) -> LocalNorms | None:
    if not task.plan.federation.local_norms:
        return None
    return LocalNorms(folder / site.name, task.plan, task.run)


def _moments(folder: Path, site: Site, task: TrainTask) -> OptimizerStateStore | None:
    if task.plan.stage(task.stage).optimizer_state == "fresh":
        return None
    where = folder / site.name
    return OptimizerStateStore(where, task.plan, task.run, task.stage, task.server_round)


def _facts_of(task: EvaluateTask, here: SiteDescription) -> CheckpointFacts:
    """Say what came; how this site's own data is divided need not come from the server."""
    return CheckpointFacts(
        plan=task.plan,
        plan_sha256=task.plan.sha256(),
        stage=task.stage,
        server_round=task.server_round,
        threshold=task.threshold,
        splits={here.site: here.splits},
    )


def _keep_shared(
    models: ModelsOf | None, site: Site, task: EvaluateTask, shared: Checkpoint
) -> ModelFolder | None:
    """Keep the final shared model at the site; a full disk does not cost its score."""
    if models is None or task.part != "test":
        return None
    try:
        folder = ModelFolder(models(site, task))
        folder.keep_shared(shared, task.run)
    except (OSError, OutputError) as error:
        logger.warning("the shared model cannot be kept: %s", error)
        return None
    return folder


def _to_train(start: State, own: LocalNorms | None, site: Site, task: TrainTask) -> State:
    """Put the site's own or its group's norms in place."""
    begin = select_group(start, group_of(task.plan, site.name))
    return own.to_train_from(begin, task.stage, task.server_round) if own else begin


def _as_sent(trained: State, start: State, site: Site, task: TrainTask) -> State:
    return merge_trained(trained, start, group_of(task.plan, site.name))


def _to_score(
    came: Checkpoint, own: LocalNorms | None, site: Site, task: EvaluateTask
) -> Checkpoint:
    """Put the site's own or its group's norms in place."""
    final = came.for_group(group_of(task.plan, site.name))
    if own is None:
        return final
    return final._replace(state=own.to_score(final.state, task.stage, task.server_round))


def _checkpointer(folder: Path | None, name: str, every_seconds: float) -> RoundCheckpointer | None:
    return RoundCheckpointer(folder, name, every_seconds) if folder else None


def _name_of(task: TrainTask | EvaluateTask, start: State, site: Site) -> str:
    """Name a round by all that decides its result: what is kept of another one is not used."""
    return Fingerprint.of(
        mamfed_version=__version__,
        plan_sha256=task.plan.sha256(),
        stage=task.stage,
        server_round=task.server_round,
        start=state_sha256(start),
        site=site.name,
        data=site_sha256(load_site(site, task.plan)),
    ).sha256
