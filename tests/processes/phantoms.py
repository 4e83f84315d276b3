"""Three small phantom hospitals and a plan that trains on them in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mamfed_common.model.config import NetworkConfig
from mamfed_common.plan import (
    FederationPlan,
    FinetuningPlan,
    PersonalPlan,
    StagePlan,
    TrainingPlan,
)
from mamfed_common.transforms.config import AugmentationConfig
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort


def write_phantoms(folder: Path, benign: int = 8, malignant: int = 10) -> dict[str, Path]:
    """Write a cohort a vendor; return the folders by name."""
    folders = {}
    for name, look in VENDORS.items():
        folders[name] = folder / name
        write_cohort(folders[name], look, benign=benign, malignant=malignant, seed=0)
    return folders


NORM_GROUPS = {"digital": ("aurora",), "film": ("borealis", "cirrus")}
"""Groups for :func:`small_plan`, so that a run between processes covers them too."""


def small_plan(pretraining: int = 1, finetuning: int = 2, **federation: Any) -> TrainingPlan:
    """Return a plan of seconds a round, with deadlines that suit a test.

    Stage 2 is the recipe of the default plan: equal steps at every site, and kept moments.
    """
    stage = {"batch_size": 2, "deadline_seconds": 180, "min_deadline_seconds": 60}
    recipe = {"local_steps": 4, "optimizer_state": "kept", "beside": "without_malignancy"}
    return TrainingPlan(
        image_size=64,
        network=NetworkConfig(channels=(8, 16, 32), first_skip_level=1, stem=1),
        pretraining=StagePlan(rounds=pretraining, learning_rate=8e-3, **stage),
        finetuning=FinetuningPlan(rounds=finetuning, learning_rate=5e-3, **stage, **recipe),
        augmentation=AugmentationConfig(max_rotation_degrees=0, max_log_scale=0),
        federation=FederationPlan(**{"join_seconds": 120, "offline_seconds": 120, **federation}),
        personal=PersonalPlan(steps=5),
    )
