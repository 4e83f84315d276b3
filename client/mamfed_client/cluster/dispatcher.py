"""Starts a site's jobs, one at a time, waits for their answers, and finds them again.

A job's folder is named after its order, so a node that was restarted and is asked the same again
meets the job that it had started. Any other job of the site is of no more use, and is cancelled.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

from mamfed_client.cluster.documents import Answer, Progress, Submission
from mamfed_client.cluster.job_folder import JobFolder
from mamfed_client.cluster.orders import Parcel
from mamfed_client.cluster.queues import JobState, Queue
from mamfed_common.errors import DataError, JobError, OutputError
from mamfed_common.runtime.files import cannot_write, reason, refusal_words
from mamfed_common.runtime.polling import pause_seconds
from mamfed_common.runtime.wording import span

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 2.0
ASK_SECONDS = 10.0
"""Longest time between two questions to the scheduler."""
ARRIVAL_SECONDS = 20.0
"""Time that an answer may take to arrive by a network file system once its job has ended."""

OnState = Callable[[str], None]


class Dispatcher:
    """The jobs of one site."""

    def __init__(
        self,
        jobs: Path,
        queue: Queue,
        *,
        queue_seconds: float,
        on_state: OnState = lambda words: None,
        arrival_seconds: float = ARRIVAL_SECONDS,
    ) -> None:
        """Prepare for jobs.

        Args:
            jobs: The folder of this site's jobs.
            queue: What starts them.
            queue_seconds: Longest wait for a job to begin.
            on_state: Called with the words of each new state; empty once there is no job.
            arrival_seconds: As :data:`ARRIVAL_SECONDS`.
        """
        self._jobs, self._queue = jobs, queue
        self._queue_seconds, self._on_state = queue_seconds, on_state
        self._arrival_seconds = arrival_seconds
        self.until: float | None = None

    def folder_of(self, parcel: Parcel) -> JobFolder:
        """Return the folder of an order's job."""
        return JobFolder(self._jobs / parcel.sha256[:32])

    def answer(self, parcel: Parcel, on_steps: Callable[[int], None]) -> tuple[Answer, JobFolder]:
        """Return the answer to an order, from a job that is found or started; keep its folder.

        Args:
            parcel: The order and its inputs.
            on_steps: Called with the number of new training steps.

        Raises:
            JobError: The job was refused, lost, cancelled or too late. What it has done so far is
                kept for the next attempt.
            DataError: The job could not use the images.
            OutputError: The shared folder cannot be written.
        """
        folder = self.folder_of(parcel)
        try:
            self._forget_others(folder)
            if not folder.exists():
                folder.create(parcel.order, parcel.tensors, parcel.secret)
            answer = folder.read(Answer) or self._run(folder, on_steps)
            self._check(answer, parcel, folder)
        except OSError as error:
            raise cannot_write(folder.path, error) from None
        except (JobError, DataError):
            folder.forget(Answer, Submission)  # so that the next attempt starts a job
            raise
        finally:
            self._on_state("")
        return answer, folder

    def _run(self, folder: JobFolder, on_steps: Callable[[int], None]) -> Answer:
        submission = self._found(folder) or self._submit(folder)
        try:
            for answer in self._watch(folder, submission, on_steps):
                if answer is not None:
                    return answer
        except JobError:
            cancel(folder, self._queue)
            raise
        raise AssertionError("a job is watched until it has answered")

    def _found(self, folder: JobFolder) -> Submission | None:
        """Return the job that an earlier process of this node started, if it is still of use."""
        submission = folder.read(Submission)
        if submission is None:
            return None
        if folder.is_cancelled():
            self._queue.cancel(folder, submission)
            return None
        state = self._queue.state(folder, submission)
        if state.phase == "ended":
            return None
        logger.info("found again: %s", state.words)
        return submission

    def _submit(self, folder: JobFolder) -> Submission:
        folder.may_go_on()
        folder.forget(Progress, Answer)
        name = f"mamfed-{secrets.token_hex(12)}"
        submission = Submission(name=name, since=time.time(), host=socket.gethostname())
        folder.write(submission)  # before: a node that is killed now finds the job by its name
        job = self._queue.submit(folder, submission)
        submission = submission.model_copy(update={"job": job})
        folder.write(submission)
        logger.info("job %s is submitted, folder %s", job, folder.path.name)
        return submission

    def _watch(
        self, folder: JobFolder, submission: Submission, on_steps: Callable[[int], None]
    ) -> Iterator[Answer | None]:
        """Yield the answer, and None until it is there."""
        began, asked_at, queued_at, ended_at = monotonic(), 0.0, monotonic(), 0.0
        state, steps = JobState("unknown", ""), 0
        while True:
            if answer := folder.read(Answer):
                yield answer
                return
            if (progress := folder.read(Progress)) and progress.steps > steps:
                on_steps(progress.steps - steps)
                steps = progress.steps
            now = monotonic()
            if now - asked_at >= pause_seconds(now - began, ASK_SECONDS, 0.5):
                state, asked_at = self._look(folder, submission, state), now
            queued_at = queued_at if state.phase == "queued" else now
            ended_at = (ended_at or now) if state.phase == "ended" else 0.0
            self._check_time(state, now - queued_at)
            if ended_at and now - ended_at >= self._arrival_seconds:
                raise JobError(f"{state.words}, and left no result; see {folder.path / 'logs'}")
            time.sleep(pause_seconds(now - began, LONGEST_PAUSE))
            yield None

    def _look(self, folder: JobFolder, submission: Submission, before: JobState) -> JobState:
        state = self._queue.state(folder, submission)
        if state.words != before.words:
            logger.info("%s", state.words)
            self._on_state(state.words)
        return state

    def _check_time(self, state: JobState, queued_seconds: float) -> None:
        if self.until is not None and monotonic() >= self.until:
            raise JobError(f"{state.words or 'the job'} when the round's time was over; cancelled")
        if queued_seconds >= self._queue_seconds:
            raise JobError(
                f"{state.words} for {span(queued_seconds)}, longer than executor.queue_minutes; "
                "cancelled"
            )

    def _check(self, answer: Answer, parcel: Parcel, folder: JobFolder) -> None:
        """Refuse an answer that is not to this order, or that says what failed."""
        if answer.error:
            raise (DataError if answer.of_data else JobError)(f"the job failed: {answer.error}")
        if answer.order != parcel.sha256:
            raise JobError(f"{folder.path}: the answer is to another order")

    def _forget_others(self, folder: JobFolder) -> None:
        for path in self._jobs.iterdir():
            if path != folder.path and path.is_dir():
                cancel(JobFolder(path), self._queue)
                JobFolder(path).remove()


def cancel(folder: JobFolder, queue: Queue) -> None:
    """Cancel the job of a folder, wherever it is; its checkpoints stay."""
    try:
        submission = folder.read(Submission)
    except JobError:
        submission = None
    if submission is None:
        return
    try:
        folder.ask_to_cancel()
    except OSError as error:
        logger.warning("cannot ask a job to end: %s", refusal_words(error))
    queue.cancel(folder, submission)
    folder.forget(Submission)
    logger.info("job %s is cancelled", submission.job or submission.name)


def cancel_all(jobs: Path, queue: Queue) -> int:
    """Cancel all jobs of a site; return how many had been started.

    Raises:
        OutputError: The folder cannot be read.
    """
    try:
        folders = [JobFolder(path) for path in jobs.iterdir() if path.is_dir()]
        started = [folder for folder in folders if (folder.path / "submission.json").exists()]
    except OSError as error:
        raise OutputError(f"{jobs}: cannot be read: {reason(jobs, error)}") from None
    for folder in started:
        cancel(folder, queue)
    return len(started)
