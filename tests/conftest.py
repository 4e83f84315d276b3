"""What every test starts from: no telemetry, one thread, a cache and a secret of its own."""

from mamfed_common.runtime.terminal import set_environment

set_environment()  # before anything imports Flower

import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from mamfed_common.model.config import NetworkConfig
from mamfed_common.plan import (
    FederationPlan,
    FinetuningPlan,
    PersonalPlan,
    StagePlan,
    TrainingPlan,
)
from mamfed_common.transforms.sample import FULL_SCALE, Sample

# A shell ignores Ctrl-C for what it starts in the background, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

BORN = (
    "benchmarks/",
    "fault/",
    "outside/",
    "processes/test_archive.py",
    "processes/test_archive_round_trip.py",
    "processes/test_compact_wire.py",
    "processes/test_dashboard.py",
    "processes/test_federation.py",
    "processes/test_hostile_sites.py",
    "processes/test_live_page_hardships.py",
    "processes/test_network.py",
    "processes/test_plan_refusals.py",
    "processes/test_playground.py",
    "processes/test_refusals.py",
    "processes/test_slurm_federation.py",
    "security/",
    "unit/client/",
    "unit/common/training/test_round_checkpoint.py",
    "unit/server/",
    "unit/simulations/",
    "unit/test_nursery.py",
)
"""Whose processes are forked with their imports; those of other tests are executed."""


def pytest_configure():
    """Adopt the nursery in pytest alone: processes of tests import this module, too."""
    import nursery

    nursery.adopt()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    import nursery

    if item.path.relative_to(Path(__file__).parent).as_posix().startswith(BORN):
        return (yield)
    with nursery.executed():
        return (yield)


def pytest_unconfigure():
    import nursery

    nursery.close()


@pytest.fixture
def executed():
    """Processes of this test are executed, not forked with their imports (``nursery.py``)."""
    import nursery

    with nursery.executed():
        yield


@pytest.fixture(autouse=True)
def _fixed_surroundings(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("MAMFED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MAMFED_SECRET", str(tmp_path / "cache" / "secret"))
    with patch.dict(os.environ):  # Ray leaves a PYTHONPATH behind, for one
        yield


@pytest.fixture
def tiny_plan() -> TrainingPlan:
    """A plan that trains in about a second, and leaves alone what sites of few weights send."""
    return TrainingPlan(
        image_size=32,
        network=NetworkConfig(channels=(4, 8), first_skip_level=1, stem=1),
        pretraining=StagePlan(rounds=1, local_epochs=1, batch_size=2, learning_rate=1e-3),
        finetuning=FinetuningPlan(rounds=2, local_epochs=1, batch_size=2, learning_rate=1e-3),
        personal=PersonalPlan(steps=0),
        federation=FederationPlan(max_share_ratio=3, clip_update_norm_ratio=2),
    )


@pytest.fixture
def not_installed(monkeypatch):
    """Hide a package, and every part of it that an earlier test has imported."""

    def hide(package: str) -> None:
        parts = [name for name in sys.modules if name.startswith(f"{package}.")]
        for name in (package, *parts):
            monkeypatch.setitem(sys.modules, name, None)

    return hide


def blob_sample(seed: int, *, size: int = 32, malignant: bool = True) -> Sample:
    """A grey square breast with one bright malignant square."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0.2, 0.4, (size, size))
    mask = np.zeros((size, size), bool)
    breast_mask = np.zeros((size, size), bool)
    breast_mask[2:-2, : size - 6] = True
    if malignant:
        top, left = rng.integers(4, size // 2, 2)
        mask[top : top + 6, left : left + 6] = True
        image[mask] += 0.5
    image[~breast_mask] = 0
    return Sample((image * FULL_SCALE).astype(np.uint16), breast_mask, mask, f"image-{seed}")
