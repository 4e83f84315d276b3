"""A site's Flower ClientApp, which answers query, train and evaluate, never with images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from mamfed_client.disclosure.gate import Gate, OpenGate
from mamfed_client.disclosure.plan_admission import PolicyRefusal, check_extensions
from mamfed_client.disclosure.refusal_messages import refusal_of
from mamfed_client.models.known_scores import by_image
from mamfed_client.models.model_store import PERSONAL, ModelFolder
from mamfed_client.models.personal_model import Adapter
from mamfed_client.node.error_lines import log_error
from mamfed_client.node.private_round import train_private_round
from mamfed_client.node.round_state import (
    local_norms_of,
    model_to_score,
    optimizer_state_of,
    patients_drawn,
    received_model,
    round_name,
    state_to_send,
    state_to_train,
)
from mamfed_client.preparation.cohort import StoredSamples
from mamfed_client.preparation.site_data import Site, SiteData, load_site
from mamfed_client.site.hardware import Hardware
from mamfed_client.training.round_executor import LocalExecutor, RoundExecutor
from mamfed_common.checkpoint import Checkpoint
from mamfed_common.domain import EVALUATED_ON
from mamfed_common.errors import DataError, JobError, OutputError
from mamfed_common.metrics.scores import summarise
from mamfed_common.model.state_dict import State
from mamfed_common.plan import TrainingPlan, with_threshold
from mamfed_common.plan.norm_groups import expected_state
from mamfed_common.protocol.messages import unpack_body, unpack_weights
from mamfed_common.protocol.tasks import (
    REFUSAL_CODES,
    EvaluateTask,
    PrivacySpent,
    Query,
    RefusalCode,
    TrainReport,
    TrainTask,
)
from mamfed_common.training.batches import Batches, RoundContext
from mamfed_common.training.inference import OnStep
from mamfed_common.training.round_checkpoint import RoundCheckpointer, TrainingResult

logger = logging.getLogger(__name__)

Handler = Callable[[RecordDict, Site], RecordDict]
CheckpointerOf = Callable[[str], RoundCheckpointer | None]
OnData = Callable[[SiteData, TrainingPlan], None]
ModelsOf = Callable[[Site, EvaluateTask], Path]
"""Returns the folder in which a site keeps the models of a run."""


@dataclass(frozen=True)
class _Handlers:
    """Handlers of the three requests; a request that fails is answered with a code.

    Attributes:
        site_of: Returns the site of a Flower context.
        threads: CPU threads; None: torch's default.
        executor: What trains and scores.
        gate: Admits requests and releases answers.
        checkpointer_of: Returns the checkpointer of a round by its name; None: it is not saved.
        norms: Folder of each site's own norms.
        optimizer: Folder of each site's AdamW moments.
        models: Returns where a site stores its models; None: nowhere.
        on_step: Called after each training step.
        on_data: Called with the site's images once they are described for a plan.
    """

    site_of: Callable[[Context], Site]
    threads: int | None
    executor: RoundExecutor
    gate: OpenGate
    checkpointer_of: CheckpointerOf
    norms: Path
    optimizer: Path
    models: ModelsOf | None
    on_step: OnStep | None
    on_data: OnData | None

    def client_app(self) -> ClientApp:
        app, answer = ClientApp(), self.answer
        app.query()(lambda message, context: answer(message, context, self.describe))
        app.train()(lambda message, context: answer(message, context, self.train))
        app.evaluate()(lambda message, context: answer(message, context, self.evaluate))
        return app

    def answer(self, message: Message, context: Context, handler: Handler) -> Message:
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        self.executor.allow(_seconds_left(message))
        try:
            return Message(handler(message.content, self.site_of(context)), reply_to=message)
        except Exception as error:  # its text may contain paths or patients and must not leave
            code = _refuse(error, message.metadata.message_type, self.gate)
            return Message(Error(code, REFUSAL_CODES[code]), reply_to=message)

    def describe(self, content: RecordDict, site: Site) -> RecordDict:
        query = unpack_body(content, Query)
        self.gate.admit(query)
        check_extensions(query.plan)
        data = load_site(site, query.plan)
        if self.on_data:
            self.on_data(data, query.plan)
        return self.gate.release(query, data.describe())

    def train(self, content: RecordDict, site: Site) -> RecordDict:
        task = unpack_body(content, TrainTask)
        self.gate.admit(task)
        check_extensions(task.plan)
        global_state = unpack_weights(content, task, expected_state(task.plan))
        self.gate.answered(task, global_state)
        local_norms = local_norms_of(self.norms, site, task)
        initial_state = state_to_train(global_state, local_norms, site, task)
        samples, benign = load_site(site, task.plan).training(task.plan, task.stage)
        round_context = RoundContext(site.name, task.server_round)
        batches = Batches(samples, task.plan, task.stage, round_context, benign)
        patients = patients_drawn(samples, benign, batches)
        self.gate.admit_cases(len(samples) or len(benign), patients)
        result, spent = self._trained(task, site, initial_state, batches, (samples, benign))
        if local_norms:
            local_norms.keep(result.state, task.stage, task.server_round)
        loss = None if spent else result.loss
        report = TrainReport(num_examples=result.num_examples, loss=loss, privacy=spent)
        state = state_to_send(result.state, global_state, site, task)
        behind = self.gate.behind([*samples.images, *benign.images])
        return self.gate.release(task, report, state, global_state, behind)

    def _trained(
        self,
        task: TrainTask,
        site: Site,
        start: State,
        batches: Batches,
        images: tuple[StoredSamples, StoredSamples],
    ) -> tuple[TrainingResult, PrivacySpent | None]:
        """Train the round, with differential privacy of the patients if the policy says so."""
        name, (samples, benign) = round_name(task, start, site), images
        optimizer_state = optimizer_state_of(self.optimizer, site, task)
        if budget := self.gate.patient_budget():
            return train_private_round(
                budget,
                f"{name} {task.run}",
                self.executor,
                start,
                batches,
                on_step=self.on_step,
                checkpointer_of=self.checkpointer_of,
                optimizer_state=optimizer_state,
            )
        result = self.executor.train(
            task.stage,
            start,
            samples,
            task.plan,
            batches.round_context,
            benign=benign,
            on_step=self.on_step,
            checkpointer=self.checkpointer_of(name),
            optimizer_state=optimizer_state,
        )
        return result, None

    def evaluate(self, content: RecordDict, site: Site) -> RecordDict:
        task = unpack_body(content, EvaluateTask)
        self.gate.admit(task)
        check_extensions(task.plan)
        data = load_site(site, task.plan)
        received = received_model(content, task, data.describe())
        norms = local_norms_of(self.norms, site, task)
        model = model_to_score(received, norms, site, task)
        folder = _keep_shared(self.models, site, task, model)
        if earlier := self.gate.answered(task, received.state, received.painter):
            return earlier
        if task.model == PERSONAL:
            checkpointer = self.checkpointer_of(f"{PERSONAL} {round_name(task, model.state, site)}")
            adapter = Adapter(data, self.executor, self.gate, checkpointer, self.on_step)
            model = adapter.personal(model, folder)
        plan = with_threshold(task.plan, model.facts.threshold)
        samples = data.samples(EVALUATED_ON, task.part)
        scores = self.executor.evaluate(model.state, samples, plan, painter=model.painter)
        score = summarise(scores)
        if folder:
            patients = [image.case.row.patient_id for image in samples.images]
            folder.note_score(task.model, score, task.run, by_image(scores, patients))
        behind = self.gate.behind(samples.images, scores)
        return self.gate.release(task, score, behind=behind)


def make_client_app(
    site_of: Callable[[Context], Site],
    *,
    device: str = "auto",
    devices: int | Literal["auto"] = 1,
    threads: int | None = None,
    activation_checkpointing: bool = False,
    on_step: OnStep | None = None,
    on_data: OnData | None = None,
    gate: Gate | None = None,
    state_folder: Path | None = None,
    keep_seconds: float = 60.0,
    norms: Path,
    optimizer: Path,
    models: ModelsOf | None = None,
    executor: RoundExecutor | None = None,
) -> ClientApp:
    """Create the ClientApp of one site, or of all simulated sites.

    Args:
        site_of: Returns the site of a Flower context.
        device: Device to train on: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: Number of such devices that train together; ``auto``: all GPUs.
        threads: CPU threads. Equal numbers give equal bits; None: torch's default.
        activation_checkpointing: Whether to save memory at the cost of time.
        on_step: Called after each training step, e.g. for a progress bar.
        on_data: Called with a site's images once they are described for a plan.
        gate: Decides which requests are answered and what leaves; None (simulations): everything.
        state_folder: Folder in which the round in training is saved; None: a crash loses the round.
        keep_seconds: Seconds of training between two saves: the most that a crash loses.
        norms: Folder in which each site stores its own norms, for plans with local norms.
        optimizer: Folder in which each site stores AdamW's moments, for plans that keep them.
        models: Returns where a site stores the shared and the personal model; None: nowhere.
        executor: What trains and scores; None: this process, on these devices.
    """
    hardware = Hardware(device, devices, threads, activation_checkpointing)
    computing = executor or LocalExecutor(hardware)
    save = _checkpointer_of(state_folder, keep_seconds)
    opened = gate or OpenGate()
    ways = (norms, optimizer, models, on_step, on_data)
    handlers = _Handlers(site_of, threads, computing, opened, save, *ways)
    return handlers.client_app()


def _checkpointer_of(state_folder: Path | None, keep_seconds: float) -> CheckpointerOf:
    if state_folder is None:
        return lambda name: None
    return lambda name: RoundCheckpointer(state_folder, name, keep_seconds)


def _seconds_left(message: Message) -> float | None:
    """Return until when the coordinator takes an answer; None where it does not say."""
    metadata = message.metadata
    return metadata.created_at + metadata.ttl - time.time() if metadata.ttl > 0 else None


def _refuse(error: Exception, message_type: str, gate: OpenGate) -> RefusalCode:
    """Log an error; return the code that may leave."""
    if isinstance(error, PolicyRefusal):
        logger.warning("this site refused a %s: %s", message_type, error)
        code = error.fault
    elif isinstance(error, JobError):
        logger.warning("this site could not answer a %s: %s", message_type, error)
        code = RefusalCode.JOB_LOST
    else:
        log_error(f"this site could not answer a {message_type}", error)
        code = RefusalCode.DATA_UNUSABLE if isinstance(error, DataError) else RefusalCode.FAILED
    try:
        gate.report_refusal(refusal_of(error, code))
        return gate.release_code(code)
    except Exception as failed:
        log_error("the refusal could not be recorded", failed)
        return RefusalCode.FAILED


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
