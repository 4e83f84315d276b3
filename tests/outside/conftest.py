"""One session's material, and a folder for each cell of the table."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from .material import make_material
from .situations import content
from .zygote import Zygote


@pytest.fixture(scope="session")
def material():
    """What commands work on; other users may look at it, as pytest's own folders forbid."""
    path = Path(tempfile.mkdtemp(prefix="mamfed-outside-"))
    zygote = Zygote()
    try:
        made = make_material(path, zygote)
        inputs = ("data", "study", "run", "prepared", "plan.yaml")
        before = {name: content(path / name) for name in inputs if (path / name).is_dir()}
        yield made
        assert {name: content(path / name) for name in before} == before, "an input was changed"
    finally:
        zygote.close()
        shutil.rmtree(path)


@pytest.fixture
def folder(material, request):
    path = material.path / "cells" / f"{os.getpid()}-{abs(hash(request.node.name))}"
    yield path
    shutil.rmtree(path, ignore_errors=True)
