"""Computes a site's rounds as jobs. The node keeps the gate, the audit log and every key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from mamfed_client.cluster.dispatcher import Dispatcher, OnState
from mamfed_client.cluster.documents import Answer, Found, first_images
from mamfed_client.cluster.job_folder import JobFolder, jobs_of
from mamfed_client.cluster.orders import Orders, Parcel, private_draw
from mamfed_client.cluster.queues import Queue, queue_of
from mamfed_client.preparation.cohort import StoredSamples
from mamfed_client.site.policy import PatientPrivacy
from mamfed_client.site.settings import SiteSettings
from mamfed_client.training.devices import stored_images
from mamfed_client.training.private import PatientDraw
from mamfed_client.training.round_executor import LocalExecutor, RoundExecutor
from mamfed_common.errors import JobError
from mamfed_common.metrics.scores import ImageScore
from mamfed_common.model.state_dict import State, check_state
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.training.batches import Batches, RoundContext
from mamfed_common.training.inference import OnStep
from mamfed_common.training.optimizer_state import OptimizerStateStore
from mamfed_common.training.round_checkpoint import RoundCheckpointer, TrainingResult

ROUNDS, CHECKS = "rounds", "checks"
"""Folders of a site's jobs: those of its node, and those of ``mamfed-client preflight``."""
PROBED_IMAGES = 2
"""Images of each folder that a probe reads."""


class JobExecutor:
    """Computes as jobs, one at a time; a result that was not taken yet is found again."""

    def __init__(self, dispatcher: Dispatcher, orders: Orders) -> None:
        """Dispatch these orders."""
        self._dispatcher, self._orders = dispatcher, orders

    def allow(self, seconds: float | None) -> None:
        """Cancel the next jobs if they last longer than this."""
        self._dispatcher.until = None if seconds is None else monotonic() + seconds

    def train(
        self,
        stage: Stage,
        state: State,
        samples: StoredSamples,
        plan: TrainingPlan,
        round_context: RoundContext,
        *,
        benign: StoredSamples,
        on_step: OnStep | None = None,
        checkpointer: RoundCheckpointer | None = None,
        optimizer_state: OptimizerStateStore | None = None,
    ) -> TrainingResult:
        """Train one round as a job.

        Raises:
            JobError: The job brought no result.
            DataError: It could not use the images.
            SetupError: The shared folder, the scheduler or the images cannot be used.
        """

        def parcel(moments: State | None) -> Parcel:
            return self._orders.parcel(
                "train",
                plan,
                {"weights": state, "moments": moments},
                samples=samples,
                benign=benign,
                round_context=round_context,
                stage=stage,
                moments=optimizer_state is not None,
            )

        return self._trained(parcel, state, on_step, checkpointer, optimizer_state)

    def train_patients(
        self,
        state: State,
        batches: Batches,
        draw: PatientDraw,
        rule: PatientPrivacy,
        secret: bytes,
        *,
        on_step: OnStep | None = None,
        checkpointer: RoundCheckpointer | None = None,
        optimizer_state: OptimizerStateStore | None = None,
    ) -> TrainingResult:
        """Train one round privately as a job.

        Raises:
            JobError, DataError, SetupError: As :meth:`train`.
        """

        def parcel(moments: State | None) -> Parcel:
            return self._orders.parcel(
                "train_patients",
                batches.plan,
                {"weights": state, "moments": moments},
                samples=batches.samples,
                benign=batches.benign,
                round_context=batches.round_context,
                stage=batches.stage,
                secret=secret,
                private=private_draw(draw, rule),
                moments=optimizer_state is not None,
            )

        return self._trained(parcel, state, on_step, checkpointer, optimizer_state)

    def evaluate(
        self,
        state: State,
        samples: StoredSamples,
        plan: TrainingPlan,
        *,
        painter: State | None = None,
    ) -> list[ImageScore]:
        """Score images as a job.

        Raises:
            JobError, DataError, SetupError: As :meth:`train`.
        """
        tensors = {"weights": state, "painter": painter}
        parcel = self._orders.parcel("evaluate", plan, tensors, samples=samples)
        answer, folder = self._dispatcher.answer(parcel, lambda count: None)
        names = [image.name for image in parcel.order.samples]
        if [score.image for score in answer.scores] != names:
            folder.remove()
            raise JobError(f"{folder.path}: the answer has scores of other images")
        folder.remove()
        return list(answer.scores)

    def probe(self, samples: StoredSamples, plan: TrainingPlan) -> Found:
        """Run a job that reads a few images and finds the devices.

        Raises:
            JobError, DataError, SetupError: As :meth:`train`.
        """
        parcel = self._orders.parcel("probe", plan, {}, samples=samples)
        few = first_images(stored_images(samples), PROBED_IMAGES)
        parcel = parcel._replace(order=parcel.order.model_copy(update={"samples": few}))
        answer, folder = self._dispatcher.answer(parcel, lambda count: None)
        folder.remove()
        if answer.found is None:
            raise JobError(f"{folder.path}: the answer does not say what the job found")
        return answer.found

    def _trained(
        self,
        parcel: Callable[[State | None], Parcel],
        state: State,
        on_step: OnStep | None,
        checkpointer: RoundCheckpointer | None,
        optimizer_state: OptimizerStateStore | None,
    ) -> TrainingResult:
        """Return the result that was taken before, or the one of a job."""
        if checkpointer and (result := checkpointer.result()):
            return result
        order = parcel(optimizer_state.before() if optimizer_state else None)
        answer, folder = self._dispatcher.answer(order, _counting(on_step))
        try:
            trained = _checked(folder, answer, state)
            result = TrainingResult(trained, dict(answer.num_examples or {}), answer.loss)
            if optimizer_state and "moments-after" in answer.outputs:
                moments = folder.tensors("moments-after", answer.outputs)
                optimizer_state.keep_moments(moments)
        except JobError:
            folder.remove()  # a damaged answer stays damaged
            raise
        if checkpointer:
            checkpointer.finish(result)
        folder.remove()
        return result


def _checked(folder: JobFolder, answer: Answer, expected: Mapping[str, Any]) -> State:
    if not answer.num_examples:
        raise JobError(f"{folder.path}: the answer does not count its images")
    state = folder.tensors("result", answer.outputs)
    check_state(state, expected)
    return state


def _counting(on_step: OnStep | None) -> Callable[[int], None]:
    def count(steps: int) -> None:
        for _ in range(steps if on_step else 0):
            assert on_step is not None
            on_step()

    return count


def executor_of(settings: SiteSettings, on_state: OnState = lambda words: None) -> RoundExecutor:
    """Return what computes a site's rounds.

    Raises:
        SetupError: The shared folder cannot be used.
        PlanError: This machine has not the devices that ``executor: local`` needs.
    """
    if settings.executor.kind == "local":
        settings.hardware().choose()
        return LocalExecutor(settings.hardware())
    return job_executor(settings, queue_of(settings.executor), on_state)


def job_executor(
    settings: SiteSettings,
    queue: Queue,
    on_state: OnState = lambda words: None,
    what: str = ROUNDS,
) -> JobExecutor:
    """Return what computes a site's rounds as jobs of a queue, ``what`` names their folder.

    Raises:
        SetupError: The shared folder cannot be used.
    """
    dispatcher = Dispatcher(
        site_jobs(settings, what),
        queue,
        queue_seconds=60 * settings.executor.queue_minutes,
        on_state=on_state,
    )
    orders = Orders(settings.name, settings.hardware(), settings.checkpoint_seconds)
    return JobExecutor(dispatcher, orders)


def site_jobs(settings: SiteSettings, what: str = ROUNDS) -> Path:
    """Return the folder of a site's jobs, as :func:`jobs_of`."""
    shared = settings.executor.shared_folder
    assert shared is not None, "every kind but local has one"
    return jobs_of(shared, settings.name, what)
