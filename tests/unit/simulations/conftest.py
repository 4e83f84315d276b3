"""Phantom hospitals that several tests train on; none of them changes a file."""

import pytest

from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """One small cohort a vendor."""
    root = tmp_path_factory.mktemp("phantoms")
    for name, look in VENDORS.items():
        write_cohort(root / name, look, benign=5, malignant=8, seed=3, scale=0.06)
    return {name: root / name for name in VENDORS}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")
