"""What ``mamfed-simulate demo`` trains on: three phantom sites, and a plan that fits minutes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mamfed_common.model.unet import NetworkConfig
from mamfed_common.plan import EvaluationPlan, FinetuningPlan, PersonalPlan, StagePlan, TrainingPlan
from mamfed_common.runtime.files import cannot_write, give_all_to_owner, private_directory
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_common.runtime.output_checks import check_folder
from mamfed_common.transforms.augmentation import AugmentationConfig
from mamfed_simulations.phantoms.vendors import SOURCE, TABLE, VENDORS, write_cohort

BENIGN_IMAGES = 40
MALIGNANT_IMAGES = 96
SITES = tuple(VENDORS)


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


def demo_phantoms(out: Path) -> Path:
    """Return where the phantoms of a demo lie: beside its run folder."""
    place = Path(os.path.abspath(out))
    return (out.parent if out.name else place.parent) / f"{place.name}-phantoms"


@contextmanager
def draw_phantoms(folder: Path, seed: int) -> Iterator[dict[str, Path]]:
    """Draw the phantoms of a demo, and keep another demo off them while the block runs.

    Yields:
        The folders by the name of the vendor.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
        SetupError: Another demo works there.
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
    """Tell phantoms by the source that their tables name; a kill may have left some without."""
    tables = [folder / name / TABLE for name in VENDORS]
    known = {path.name for path in folder.iterdir()} <= VENDORS.keys()
    return known and all(SOURCE in t.read_text() for t in tables if t.is_file())


def write_demo_cohorts(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Write one phantom cohort a vendor as DICOM; return the folders by the name of the vendor."""
    folders = {}
    for name, look in VENDORS.items():
        folders[name] = folder / name
        write_cohort(
            folders[name], look, benign=BENIGN_IMAGES, malignant=MALIGNANT_IMAGES, seed=seed
        )
    return folders
