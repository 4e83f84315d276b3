"""What all examples share: small phantom hospitals, and a plan that trains in seconds."""

from pathlib import Path

from mamfed_common import TrainingPlan, parse_plan
from mamfed_simulations import VENDORS, write_cohort

TINY_PLAN = """
image_size: 32
network: {channels: [4, 8], first_skip_level: 1, stem: 1, smoothing: 1}
pretraining: {rounds: 1, local_epochs: 1, learning_rate: 0.002}
finetuning: {rounds: 2, local_epochs: 1, batch_size: 2, learning_rate: 0.002}
personal: {steps: 0}
"""


def tiny_plan() -> TrainingPlan:
    """Return a plan for smoke tests; ``demo_plan()`` is one that learns something."""
    return parse_plan(TINY_PLAN, "TINY_PLAN")


def phantom_folders(folder: Path) -> dict[str, Path]:
    """Write three hospitals: DICOM files, masks and ``labels.csv``; return them by name."""
    for name, look in VENDORS.items():
        write_cohort(folder / name, look, benign=5, malignant=8, seed=3, scale=0.06)
    return {name: folder / name for name in VENDORS}
