"""``mamfed-client job FOLDER``: one computation of a site, on another machine than its node.

The job gets the site's home neither as an argument nor in its environment: it knows the plan, the
weights and the prepared images, no key and no coordinator. Its answer goes to its folder.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mamfed_client.cluster.documents import Answer, Found, Order, Progress
from mamfed_client.cluster.job_folder import JobFolder, check_private
from mamfed_common import __version__
from mamfed_common.errors import DataError, JobError, MamfedError, SetupError
from mamfed_common.runtime.files import refusal_words
from mamfed_common.runtime.terminal import set_environment

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from mamfed_common.model.state_dict import State
    from mamfed_common.training.round_checkpoint import RoundCheckpointer, TrainingResult

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
"""Time between two signs of life, in which a request to cancel is noticed."""
CANCELLED = 76
"""Exit code of a job that was asked to end."""


def run_job(path: Path) -> None:
    """Compute what a job's folder asks for, and leave the answer there.

    Raises:
        SetupError: The folder is not one of a job, lets others in, or has another job.
        MamfedError: The computation failed; the answer says so as well.
    """
    folder = JobFolder(check_private(path.resolve()))
    order, sha256 = folder.order()
    with _alone(folder), _heart(folder) as heart:
        try:
            if order.mamfed_version != __version__:
                raise SetupError(
                    f"this job runs mamfed {__version__}, the node {order.mamfed_version}: install "
                    "the same version for both"
                )
            answer = _carry_out(order, folder, heart).model_copy(update={"order": sha256})
        except Exception as error:
            text = str(error) if isinstance(error, MamfedError | OSError) else type(error).__name__
            folder.write(
                Answer(
                    order=sha256,
                    error=" ".join(text.split())[:2000],
                    of_data=isinstance(error, DataError),
                )
            )
            raise
        folder.write(answer)


class Heart:
    """Shows a job's signs of life, and ends the job if it is asked to."""

    def __init__(self, folder: JobFolder) -> None:
        """Prepare for the first sign."""
        self._folder = folder
        self._progress = Progress(job=_claimant())
        self._over = threading.Event()
        self._steps = 0
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)

    def start(self) -> None:
        """Claim the folder and begin.

        Raises:
            SetupError: Another job has claimed the folder.
        """
        other = self._folder.read(Progress)
        if other is not None and other.job != self._progress.job:
            raise SetupError(f"{self._folder.path}: job {other.job!r} works here, never two")
        self._folder.write(self._progress)
        self._thread.start()

    def step(self) -> None:
        """Count a training step."""
        self._steps += 1

    def stop(self) -> None:
        """End the signs."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            if self._folder.is_cancelled():
                logger.warning("the job was asked to end")
                os._exit(CANCELLED)
            beat = {"steps": self._steps, "beat": self._progress.beat + 1}
            self._progress = self._progress.model_copy(update=beat)
            try:
                self._folder.write(self._progress)
            except OSError as error:
                logger.warning("cannot show a sign of life: %s", refusal_words(error))


def _claimant() -> str:
    """Return what names this job; a job that Slurm starts again keeps its name."""
    slurm = os.environ.get("SLURM_JOB_ID", "")
    return f"Slurm {slurm}" if slurm else f"{socket.gethostname()} {os.getpid()}"


@contextmanager
def _heart(folder: JobFolder) -> Iterator[Heart]:
    heart = Heart(folder)
    heart.start()
    try:
        yield heart
    finally:
        heart.stop()


@contextmanager
def _alone(folder: JobFolder) -> Iterator[None]:
    """Hold the folder's lock; where the file system has none, the first sign of life decides."""
    descriptor = os.open(folder.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"{folder.path}: another job works here, never two") from None
        except OSError:
            logger.info("no locks on this file system")
        yield
    finally:
        os.close(descriptor)


class CarriedMoments:
    """AdamW's moments, which the node sends and takes back."""

    def __init__(self, folder: JobFolder, inputs: Mapping[str, str]) -> None:
        """Refer to the job's folder."""
        self._folder, self._inputs = folder, inputs
        self.after: State | None = None

    def restore(self, optimizer: Optimizer) -> None:
        """Load the moments that the round starts with, if the node sent any."""
        from mamfed_common.training.round_checkpoint import set_moments

        if "moments" in self._inputs:
            set_moments(self._folder.tensors("moments", self._inputs), optimizer)

    def keep(self, optimizer: Optimizer) -> None:
        """Remember the moments at the end of the round."""
        from mamfed_common.training.round_checkpoint import moments_of

        self.after = {name: value.clone() for name, value in moments_of(optimizer).items()}


def _carry_out(order: Order, folder: JobFolder, heart: Heart) -> Answer:
    """Compute; the answer lacks the order's SHA-256."""
    import torch

    if order.hardware.threads is not None:
        torch.set_num_threads(order.hardware.threads)
    if order.kind == "probe":
        return Answer(order="0" * 64, found=_probe(order))
    if order.kind == "evaluate":
        return _evaluate(order, folder)
    return _train(order, folder, heart)


def _probe(order: Order) -> Found:
    for image in order.samples:
        image.entry().load(image.name)
    devices = tuple(str(device) for device in order.hardware.choose())
    return Found(host=socket.gethostname(), devices=devices, images=len(order.samples))


def _evaluate(order: Order, folder: JobFolder) -> Answer:
    from mamfed_client.training.device_worker import StoredSamples
    from mamfed_common.training.device import choose_device
    from mamfed_common.training.inference import evaluate

    weights = folder.tensors("weights", order.inputs)
    painter = folder.tensors("painter", order.inputs) if "painter" in order.inputs else None
    device = choose_device(order.hardware.device)
    samples = StoredSamples(order.samples)
    scores = evaluate(weights, samples, order.plan, device=device, painter=painter)
    return Answer(order="0" * 64, scores=tuple(scores))


def _train(order: Order, folder: JobFolder, heart: Heart) -> Answer:
    moments = CarriedMoments(folder, order.inputs) if order.moments else None
    train = _train_patients if order.private else _train_round
    result = train(order, folder, heart, moments)
    outputs = {"result": folder.write_tensors("result", result.state)}
    if moments is not None and moments.after is not None:
        outputs["moments-after"] = folder.write_tensors("moments-after", moments.after)
    return Answer(
        order="0" * 64, outputs=outputs, num_examples=result.num_examples, loss=result.loss
    )


def _train_round(
    order: Order, folder: JobFolder, heart: Heart, moments: CarriedMoments | None
) -> TrainingResult:
    from mamfed_client.training.device_worker import StoredSamples
    from mamfed_client.training.devices import train_on

    return train_on(
        order.hardware,
        order.stage,
        folder.tensors("weights", order.inputs),
        StoredSamples(order.samples),
        order.plan,
        order.round_context,
        benign=StoredSamples(order.benign),
        on_step=heart.step,
        checkpointer=_checkpointer(order, folder),
        optimizer_state=moments,
    )


def _train_patients(
    order: Order, folder: JobFolder, heart: Heart, moments: CarriedMoments | None
) -> TrainingResult:
    from mamfed_client.site.policy import PatientPrivacy
    from mamfed_client.training.device_worker import StoredSamples
    from mamfed_client.training.private import PatientDraw, train_patients
    from mamfed_common.training.batches import Batches
    from mamfed_common.training.private import Patient

    private = order.private
    assert private is not None
    patients = zip(private.images, private.companions, strict=True)
    return train_patients(
        order.hardware,
        folder.tensors("weights", order.inputs),
        Batches(
            StoredSamples(order.samples),
            order.plan,
            order.stage,
            order.round_context,
            StoredSamples(order.benign),
        ),
        PatientDraw(tuple(Patient(*both) for both in patients), private.rates, private.steps),
        PatientPrivacy.model_construct(
            clip_norm=private.clip_norm, noise_multiplier=private.noise_multiplier
        ),
        folder.secret(order.inputs),
        on_step=heart.step,
        checkpointer=_checkpointer(order, folder),
        optimizer_state=moments,
    )


def _checkpointer(order: Order, folder: JobFolder) -> RoundCheckpointer:
    from mamfed_common.training.round_checkpoint import RoundCheckpointer

    return RoundCheckpointer(folder.state, folder.path.name, order.checkpoint_seconds)


def main() -> None:
    """Run the job of the folder on the command line."""
    os.umask(0o077)
    set_environment()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        run_job(Path(sys.argv[1]))
    except (MamfedError, OSError) as error:
        logger.error("%s", error)
        sys.exit(error.exit_code if isinstance(error, MamfedError) else JobError.exit_code)


if __name__ == "__main__":
    main()
