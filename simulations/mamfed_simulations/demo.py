"""What ``mamfed-simulate demo`` trains on: three phantom sites, and a plan that fits minutes."""

from __future__ import annotations

from pathlib import Path

from mamfed_common.augmentation import AugmentationConfig
from mamfed_common.plan import EvaluationPlan, FinetuningPlan, PersonalPlan, StagePlan, TrainingPlan
from mamfed_common.unet import NetworkConfig
from mamfed_simulations.vendors import VENDORS, write_cohort

BENIGN_IMAGES = 40
MALIGNANT_IMAGES = 96


def demo_plan(seed: int = 0, size: int = 128) -> TrainingPlan:
    """Return the demo's plan: small images and a small network, so that minutes suffice.

    Chosen on the phantoms of other seeds than it reports on (``docs/decisions/0035-demo.md``).
    """
    return TrainingPlan(
        image_size=size,
        seed=seed,
        # A window of 5 pixels would wipe out lesions that are a few pixels wide.
        network=NetworkConfig(
            channels=(16, 32, 64, 128, 128), first_skip_level=2, stem=1, smoothing=1
        ),
        pretraining=StagePlan(rounds=6, local_steps=12, batch_size=2, learning_rate=2e-3),
        finetuning=FinetuningPlan(
            rounds=80,
            local_steps=5,
            batch_size=2,
            learning_rate=5e-3,
            optimizer_state="kept",
        ),
        evaluation=EvaluationPlan(validation_fraction=0.05, every=10),
        personal=PersonalPlan(steps=40),
        # So short a training has no time to learn rotated and scaled breasts too.
        augmentation=AugmentationConfig(max_rotation_degrees=0, max_log_scale=0),
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
