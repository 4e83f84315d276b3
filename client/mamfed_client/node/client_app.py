"""A site's Flower ClientApp, which answers query, train and evaluate, never with images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from mamfed_client.disclosure.evaluation_question import site_sha256
from mamfed_client.disclosure.gate import Gate, OpenGate
from mamfed_client.disclosure.plan_admission import PolicyRefusal, check_extensions
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


@dataclass(frozen=True)
class _Handlers:
    """Handlers of the three requests; a request that fails is answered with a code.

    Attributes:
        site_of: Returns the site of a Flower context.
        hardware: The devices and threads to train with.
        gate: Admits requests and releases answers.
        state_folder: Folder in which the round in training is saved; None: it is not saved.
        keep_seconds: Seconds of training between two saves.
        norms: Folder of each site's own norms.
        optimizer: Folder of each site's AdamW moments.
        models: Returns where a site stores its models; None: nowhere.
        on_step: Called after each training step.
    """

    site_of: Callable[[Context], Site]
    hardware: Hardware
    gate: OpenGate
    state_folder: Path | None
    keep_seconds: float
    norms: Path
    optimizer: Path
    models: ModelsOf | None
    on_step: OnStep | None

    def answer(self, message: Message, context: Context, handler: Handler) -> Message:
        if self.hardware.threads is not None:
            torch.set_num_threads(self.hardware.threads)
        try:
            return Message(handler(message.content, self.site_of(context)), reply_to=message)
        except Exception as error:  # its text may contain paths or patients and must not leave
            code = _refuse(error, message.metadata.message_type, self.gate)
            return Message(Error(code, REFUSAL_CODES[code]), reply_to=message)

    def describe(self, content: RecordDict, site: Site) -> RecordDict:
        query = unpack_body(content, Query)
        self.gate.admit(query)
        check_extensions(query.plan)
        return self.gate.release(query, load_site(site, query.plan).describe())

    def train(self, content: RecordDict, site: Site) -> RecordDict:
        task = unpack_body(content, TrainTask)
        self.gate.admit(task)
        check_extensions(task.plan)
        global_state = unpack_weights(content, task, expected_state(task.plan))
        local_norms = _local_norms(self.norms, site, task)
        initial_state = _state_to_train(global_state, local_norms, site, task)
        samples, benign = load_site(site, task.plan).training(task.plan, task.stage)
        self.gate.admit_cases(len(samples) or len(benign))
        result = train_on(
            self.hardware,
            task.stage,
            initial_state,
            samples,
            task.plan,
            RoundContext(site.name, task.server_round),
            benign=benign,
            on_step=self.on_step,
            checkpointer=self._checkpointer(_round_name(task, initial_state, site)),
            optimizer_state=_optimizer_state(self.optimizer, site, task),
        )
        if local_norms:
            local_norms.keep(result.state, task.stage, task.server_round)
        report = TrainReport(num_examples=result.num_examples, loss=result.loss)
        state = _state_to_send(result.state, global_state, site, task)
        return self.gate.release(task, report, state, global_state)

    def evaluate(self, content: RecordDict, site: Site) -> RecordDict:
        task = unpack_body(content, EvaluateTask)
        self.gate.admit(task)
        check_extensions(task.plan)
        data = load_site(site, task.plan)
        model = _received_model(content, task, data.describe())
        model = _model_to_score(model, _local_norms(self.norms, site, task), site, task)
        folder = _keep_shared(self.models, site, task, model)
        if task.model == PERSONAL:
            checkpointer = self._checkpointer(f"{PERSONAL} {_round_name(task, model.state, site)}")
            adapter = Adapter(data, self.hardware, self.gate, checkpointer, self.on_step)
            model = adapter.personal(model, folder)
        plan = with_threshold(task.plan, model.facts.threshold)
        samples = data.samples(EVALUATED_ON, task.part)
        device = choose_device(self.hardware.device)
        scores = evaluate(model.state, samples, plan, device=device, painter=model.painter)
        score = summarise(scores)
        if folder:
            folder.note_score(task.model, score, task.run)
        return self.gate.release(task, score)

    def _checkpointer(self, name: str) -> RoundCheckpointer | None:
        if self.state_folder is None:
            return None
        return RoundCheckpointer(self.state_folder, name, self.keep_seconds)


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
    """Create the ClientApp of one site, or of all simulated sites.

    Args:
        site_of: Returns the site of a Flower context.
        device: Device to train on: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: Number of such devices that train together; ``auto``: all GPUs.
        threads: CPU threads. Equal numbers give equal bits; None: torch's default.
        activation_checkpointing: Whether to save memory at the cost of time.
        on_step: Called after each training step, e.g. for a progress bar.
        gate: Decides which requests are answered and what leaves; None (simulations): everything.
        state_folder: Folder in which the round in training is saved; None: a crash loses the round.
        keep_seconds: Seconds of training between two saves: the most that a crash loses.
        norms: Folder in which each site stores its own norms, for plans with local norms.
        optimizer: Folder in which each site stores AdamW's moments, for plans that keep them.
        models: Returns where a site stores the shared and the personal model; None: nowhere.
    """
    hardware = Hardware(device, devices, threads, activation_checkpointing)
    handlers = _Handlers(
        site_of,
        hardware,
        gate or OpenGate(),
        state_folder,
        keep_seconds,
        norms,
        optimizer,
        models,
        on_step,
    )
    app, answer = ClientApp(), handlers.answer
    app.query()(lambda message, context: answer(message, context, handlers.describe))
    app.train()(lambda message, context: answer(message, context, handlers.train))
    app.evaluate()(lambda message, context: answer(message, context, handlers.evaluate))
    return app


def _refuse(error: Exception, message_type: str, gate: OpenGate) -> RefusalCode:
    """Log an error; return the code that may leave."""
    if isinstance(error, PolicyRefusal):
        logger.warning("this site refused a %s: %s", message_type, error)
        code = error.fault
    else:
        logger.error("this site could not answer a %s", message_type, exc_info=error)
        code = RefusalCode.DATA_UNUSABLE if isinstance(error, DataError) else RefusalCode.FAILED
    try:
        gate.report_refusal(refusal_of(error, code))
        return gate.release_code(code)
    except Exception:
        logger.exception("the refusal could not be recorded")
        return RefusalCode.FAILED


def _local_norms(folder: Path, site: Site, task: TrainTask | EvaluateTask) -> LocalNorms | None:
    if not task.plan.federation.local_norms:
        return None
    return LocalNorms(folder / site.name, task.plan, task.run)


def _optimizer_state(folder: Path, site: Site, task: TrainTask) -> OptimizerStateStore | None:
    if task.plan.stage(task.stage).optimizer_state == "fresh":
        return None
    site_folder = folder / site.name
    return OptimizerStateStore(site_folder, task.plan, task.run, task.stage, task.server_round)


def _received_model(
    content: RecordDict, task: EvaluateTask, description: SiteDescription
) -> Checkpoint:
    """Return the model in a message, with this site's splits, which the server need not send."""
    expected = expected_state(task.plan)
    facts = CheckpointFacts(
        plan=task.plan,
        plan_sha256=task.plan.sha256(),
        stage=task.stage,
        server_round=task.server_round,
        threshold=task.threshold,
        splits={description.site: description.splits},
    )
    painter = unpack_painter(content, task, expected)
    return Checkpoint(unpack_weights(content, task, expected), facts, painter)


def _keep_shared(
    models: ModelsOf | None, site: Site, task: EvaluateTask, shared: Checkpoint
) -> ModelFolder | None:
    """Store the final shared model at the site; a full disk must not cost its score."""
    if models is None or task.part != "test":
        return None
    try:
        folder = ModelFolder(models(site, task))
        folder.keep_shared(shared, task.run)
    except (OSError, OutputError) as error:
        logger.warning("cannot store the shared model: %s", error)
        return None
    return folder


def _state_to_train(
    global_state: State, local_norms: LocalNorms | None, site: Site, task: TrainTask
) -> State:
    """Return the global weights with the norms of the site or its group."""
    state = select_group(global_state, group_of(task.plan, site.name))
    return local_norms.to_train_from(state, task.stage, task.server_round) if local_norms else state


def _state_to_send(trained: State, global_state: State, site: Site, task: TrainTask) -> State:
    return merge_trained(trained, global_state, group_of(task.plan, site.name))


def _model_to_score(
    received: Checkpoint, local_norms: LocalNorms | None, site: Site, task: EvaluateTask
) -> Checkpoint:
    """Return the received model with the norms of the site or its group."""
    model = received.for_group(group_of(task.plan, site.name))
    if local_norms is None:
        return model
    state = local_norms.to_score(model.state, task.stage, task.server_round)
    return model._replace(state=state)


def _round_name(task: TrainTask | EvaluateTask, initial_state: State, site: Site) -> str:
    """Return a hash of everything that decides a round's result: other saved rounds are ignored."""
    return Fingerprint.of(
        mamfed_version=__version__,
        plan_sha256=task.plan.sha256(),
        stage=task.stage,
        server_round=task.server_round,
        start=state_sha256(initial_state),
        site=site.name,
        data=site_sha256(load_site(site, task.plan)),
    ).sha256
