"""Data and plan of ``mamfed-simulate demo``: three phantom sites and minutes of training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mamfed_common.model.config import NetworkConfig
from mamfed_common.plan import EvaluationPlan, FinetuningPlan, PersonalPlan, StagePlan, TrainingPlan
from mamfed_common.runtime.bounded import TABLE_BYTES
from mamfed_common.runtime.files import cannot_write, give_all_to_owner, private_directory
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_common.runtime.output_checks import check_folder
from mamfed_common.runtime.text import read_text
from mamfed_common.transforms.config import AugmentationConfig
from mamfed_simulations.phantoms.vendors import SOURCE, TABLE, VENDORS, write_cohort

BENIGN_IMAGES = 40
MALIGNANT_IMAGES = 96
SITES = tuple(VENDORS)


def demo_plan(seed: int = 0, size: int = 128) -> TrainingPlan:
    """Return the demo's plan: small images and a small network, to train within minutes.

    It was tuned on phantoms of other seeds (``docs/decisions/0035-demo.md``).
    """
    return TrainingPlan(
        image_size=size,
        seed=seed,
        # A smoothing window of 5 pixels would erase lesions that are a few pixels wide.
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
        # Training is too short to learn rotated and scaled breasts as well.
        augmentation=AugmentationConfig(max_rotation_degrees=0, max_log_scale=0),
    )


def demo_phantoms(out: Path) -> Path:
    """Return the folder of a demo's phantoms, next to its run folder."""
    absolute = Path(os.path.abspath(out))
    return (out.parent if out.name else absolute.parent) / f"{absolute.name}-phantoms"


@contextmanager
def draw_phantoms(folder: Path, seed: int) -> Iterator[dict[str, Path]]:
    """Draw the phantoms of a demo and lock them against other demos while the block runs.

    Yields:
        The cohort folders by vendor name.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
        SetupError: Another demo uses the folder.
    """
    check_folder(folder, _holds_phantoms, "phantoms of a demo")
    try:
        private_directory(folder.parent)
    except OSError as error:
        raise cannot_write(folder, error) from None
    lock = folder.parent / f".{folder.name}.lock"
    with exclusive_lock(lock, "another demo", folder, leaves_file=False):
        folders = write_demo_cohorts(folder, seed)
        give_all_to_owner(folder, folder.parent)
        yield folders


def _holds_phantoms(folder: Path) -> bool:
    """Return whether ``folder`` holds phantoms, by the source that their tables name.

    A killed demo may have left cohorts without a table.
    """
    tables = [folder / name / TABLE for name in VENDORS]
    known = {path.name for path in folder.iterdir()} <= VENDORS.keys()
    return known and all(SOURCE in read_text(t, TABLE_BYTES) for t in tables if t.is_file())


def write_demo_cohorts(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Write one phantom cohort per vendor as DICOM; return the folders by vendor name."""
    folders = {}
    for name, look in VENDORS.items():
        folders[name] = folder / name
        write_cohort(
            folders[name], look, benign=BENIGN_IMAGES, malignant=MALIGNANT_IMAGES, seed=seed
        )
    return folders
