"""What ``mamfed-simulate demo`` trains on: three phantom sites, and a plan that fits minutes."""

from __future__ import annotations

from pathlib import Path

from mamfed_common.plan import StagePlan, TrainingPlan
from mamfed_common.unet import NetworkConfig
from mamfed_simulations.vendors import VENDORS, write_cohort

BENIGN_IMAGES = 32
MALIGNANT_IMAGES = 40


def demo_plan(seed: int = 0, size: int = 128) -> TrainingPlan:
    """Return the demo's plan: small images and a small network, so that minutes suffice."""
    return TrainingPlan(
        image_size=size,
        seed=seed,
        network=NetworkConfig(channels=(16, 32, 64, 128, 128), first_skip_level=2, stem=1),
        pretraining=StagePlan(rounds=4, local_epochs=4, batch_size=4, learning_rate=8e-3),
        finetuning=StagePlan(rounds=6, local_epochs=4, batch_size=4, learning_rate=3e-3),
    )


def write_demo_cohorts(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Write one phantom cohort a vendor as DICOM; return the folders by the name of the vendor."""
    folders = {}
    for name, look in VENDORS.items():
        folders[name] = folder / name
        write_cohort(
            folders[name], look, benign=BENIGN_IMAGES, malignant=MALIGNANT_IMAGES, seed=seed
        )
    return folders
