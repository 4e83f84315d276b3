"""What a site's node and its job tell each other: JSON documents in the job's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from mamfed_client.site.hardware import Hardware
from mamfed_client.training.devices import StoredImage
from mamfed_common import __version__
from mamfed_common.config import DIGEST, Config
from mamfed_common.domain import Examples
from mamfed_common.metrics.scores import ImageScore
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.training.batches import RoundContext

Kind = Literal["train", "train_patients", "evaluate", "probe"]
Probability = Annotated[float, Field(ge=0, le=1)]


class PrivateDraw(Config):
    """The draw of a round with differential privacy; its secret lies in a file of its own.

    Attributes:
        images: Each patient's images of the stage, by index.
        companions: Each patient's companion images.
        rates: Probability with which a step takes each patient.
        steps: Steps of the round.
        clip_norm: Largest L2 norm of a patient's gradient.
        noise_multiplier: Standard deviation of the noise, as a multiple of the norm.
    """

    images: tuple[tuple[int, ...], ...]
    companions: tuple[tuple[int, ...], ...]
    rates: tuple[Probability, ...]
    steps: int
    clip_norm: float
    noise_multiplier: float


class Order(Config):
    """What a job computes. It names no coordinator and holds no key.

    Attributes:
        kind: The computation; a ``probe`` reads a few images and finds the devices.
        plan: The plan; its threshold decides scores.
        stage: The stage to train.
        round_context: The site, and the round.
        hardware: The devices and threads.
        checkpoint_seconds: Time between two checkpoints of the job.
        samples: The images, prepared and on a disk that the job sees.
        benign: Companion images.
        private: The draw of a private round.
        moments: Whether AdamW's moments are kept.
        inputs: SHA-256 of each tensor file beside the order, by its name.
        mamfed_version: The node's version, which the job must have too.
    """

    kind: Kind
    plan: TrainingPlan
    stage: Stage = Stage.FINETUNING
    round_context: RoundContext
    hardware: Hardware
    checkpoint_seconds: float = 60
    samples: tuple[StoredImage, ...] = ()
    benign: tuple[StoredImage, ...] = ()
    private: PrivateDraw | None = None
    moments: bool = False
    inputs: dict[str, Annotated[str, Field(pattern=DIGEST)]] = Field(default_factory=dict)
    mamfed_version: str = __version__


class Submission(Config):
    """One job that was started for an order.

    Attributes:
        name: The job's name, which no other job has.
        job: The scheduler's number, or the process id of the command; empty until it is known.
        since: When it was submitted, seconds since 1970.
        host: The machine that submitted it.
    """

    name: str = Field(pattern=r"^mamfed-[0-9a-f]{24}$")
    job: str = Field(default="", max_length=64)
    since: float
    host: str = ""


class Progress(Config):
    """A job's sign of life.

    Attributes:
        job: The job that works in the folder.
        steps: Training steps done.
        beat: Counts up, so that two signs differ.
    """

    job: str = Field(max_length=300)
    steps: int = Field(default=0, ge=0)
    beat: int = Field(default=0, ge=0)


class Found(Config):
    """What a probe found.

    Attributes:
        host: The job's machine.
        devices: Its devices.
        images: Images that it read.
    """

    host: str = Field(max_length=300)
    devices: tuple[str, ...]
    images: int


class Answer(Config):
    """What a job answers; tensors lie in files beside it.

    Attributes:
        order: SHA-256 of the order.
        outputs: SHA-256 of each tensor file, by its name.
        num_examples: Images that trained, by purpose.
        loss: The round's loss, which may be infinite.
        scores: The score of each image.
        found: What a probe found.
        error: What failed, in one line; empty if nothing did.
        of_data: Whether the data is what failed.
    """

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    order: str = Field(pattern=DIGEST)
    outputs: dict[str, Annotated[str, Field(pattern=DIGEST)]] = Field(default_factory=dict)
    num_examples: Examples | None = None
    loss: float = 0.0
    scores: tuple[ImageScore, ...] = ()
    found: Found | None = None
    error: str = Field(default="", max_length=2000)
    of_data: bool = False


def first_images(images: tuple[StoredImage, ...], count: int) -> tuple[StoredImage, ...]:
    """Return the first images of each folder, ``count`` at most."""
    chosen: dict[Path, list[StoredImage]] = {}
    for image in images:
        chosen.setdefault(image.path.parent, []).append(image)
    return tuple(image for found in chosen.values() for image in found[:count])
