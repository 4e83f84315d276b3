"""Phantom patients on the network's grid, and a small plan that trains on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mamfed_client.imaging.mammogram import Mammogram
from mamfed_client.imaging.preprocess import prepare
from mamfed_common.model.config import NetworkConfig
from mamfed_common.plan import FederationPlan, FinetuningPlan, StagePlan, TrainingPlan
from mamfed_common.transforms.config import AugmentationConfig, CorruptionConfig
from mamfed_common.transforms.sample import FULL_SCALE, Sample
from mamfed_simulations.phantoms.phantom import Phantom, Population, draw_patient

SIZE = 64
SHAPE = (192, 144)


def patients(seed: int, count: int, *, malignant: bool = True) -> list[Sample]:
    """Draw patients with one view each, all of one hospital."""
    found = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        (view,) = draw_patient(rng, SHAPE, Population(), malignant=malignant, views=("CC",))
        found.append(_sample(view, f"{seed}-{number}"))
    return found


def small_plan(**changes: Any) -> TrainingPlan:
    """Return a plan without augmentation or corruption: all that a site computes is known."""
    values: dict[str, Any] = {
        "image_size": SIZE,
        "network": NetworkConfig(channels=(32, 64, 128), first_skip_level=1, stem=2),
        "pretraining": StagePlan(rounds=1, local_steps=1, batch_size=1, learning_rate=4e-3),
        "finetuning": FinetuningPlan(rounds=1, local_steps=1, batch_size=1, learning_rate=2e-3),
        "augmentation": AugmentationConfig(
            flip=0, max_rotation_degrees=0, max_log_scale=0, gamma=0
        ),
        "corruption": CorruptionConfig(clean=1),
        "federation": FederationPlan(min_sites=1),
    }
    return TrainingPlan(**(values | changes))


def intensities(samples: Sequence[Sample]) -> np.ndarray:
    """Return images ``(N, S, S)`` in 0..1."""
    return np.stack([sample.image for sample in samples]).astype(np.float32) / FULL_SCALE


def _sample(view: Phantom, name: str) -> Sample:
    grey = np.rint(view.attenuation * FULL_SCALE).astype(np.uint16)
    mask = view.mask if view.mask.any() else None
    sample, _ = prepare(Mammogram(grey), mask, SIZE, name)
    return sample
