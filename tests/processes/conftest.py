"""Phantoms for every federation of these tests, drawn once."""

import pytest
from tests.processes.phantoms import write_phantoms


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Three hospitals of seven images each, by name."""
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), benign=3, malignant=4)
