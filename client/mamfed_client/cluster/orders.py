"""The orders of a site's computations, with their tensors as files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mamfed_client.cluster.documents import Kind, Order, PrivateDraw
from mamfed_client.cluster.job_folder import SECRET, packed
from mamfed_client.site.hardware import Hardware
from mamfed_client.site.policy import PatientPrivacy
from mamfed_client.training.devices import stored_images
from mamfed_client.training.private import PatientDraw
from mamfed_common.errors import SetupError
from mamfed_common.model.state_dict import State
from mamfed_common.plan import TrainingPlan
from mamfed_common.training.batches import RoundContext


class Parcel(NamedTuple):
    """An order with everything that belongs to it.

    Attributes:
        order: The order.
        tensors: Its files by name, as bytes.
        secret: The secret of a private round.
    """

    order: Order
    tensors: Mapping[str, bytes]
    secret: bytes | None = None

    @property
    def sha256(self) -> str:
        """Return the order's SHA-256, which names all its inputs: equal computations share it."""
        return hashlib.sha256(self.order.model_dump_json().encode()).hexdigest()


class Orders(NamedTuple):
    """Makes the orders of one site.

    Attributes:
        site: The site's name.
        hardware: The devices and threads of a job.
        checkpoint_seconds: Time between two checkpoints of a job.
    """

    site: str
    hardware: Hardware
    checkpoint_seconds: float = 60.0

    def parcel(
        self,
        kind: Kind,
        plan: TrainingPlan,
        tensors: Mapping[str, State | None],
        *,
        samples: Any = None,
        benign: Any = None,
        round_context: RoundContext | None = None,
        secret: bytes | None = None,
        **facts: Any,
    ) -> Parcel:
        """Return an order and its files.

        Args:
            kind: The computation.
            plan: The plan.
            tensors: Weights by the name of their file; None is left out.
            samples: Stored images; None: there are none.
            benign: Companion images.
            round_context: The round; None: it is none.
            secret: The secret of a private round.
            facts: Further fields of the order.

        Raises:
            SetupError: An image is encrypted; a job may not have its key.
        """
        files = {name: packed(state) for name, state in tensors.items() if state is not None}
        images = [stored_images(found) if found else () for found in (samples, benign)]
        if any(image.key for found in images for image in found):
            raise SetupError(
                "executor: found encrypted prepared folders, whose key no job may have; expected "
                "executor: local, or folders prepared without a key"
            )
        named = files if secret is None else {**files, SECRET: secret}
        order = Order(
            kind=kind,
            plan=plan,
            round_context=round_context or RoundContext(self.site, 1),
            hardware=self.hardware,
            checkpoint_seconds=self.checkpoint_seconds,
            samples=images[0],
            benign=images[1],
            inputs={name: hashlib.sha256(data).hexdigest() for name, data in named.items()},
            **facts,
        )
        return Parcel(order, files, secret)


def private_draw(draw: PatientDraw, rule: PatientPrivacy) -> PrivateDraw:
    """Return a private round's draw as a document; patients are numbers in it."""
    return PrivateDraw(
        images=tuple(patient.images for patient in draw.patients),
        companions=tuple(patient.companions for patient in draw.patients),
        rates=draw.rates,
        steps=draw.steps,
        clip_norm=rule.clip_norm,
        noise_multiplier=rule.noise_multiplier,
    )
