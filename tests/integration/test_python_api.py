"""The public names exist, are documented, and cost nothing until they are used."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("mamfed_common", "mamfed_client", "mamfed_server", "mamfed_simulations")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_typed_and_documented(package):
    module = importlib.import_module(package)
    stub = Path(module.__file__).with_suffix(".pyi").read_text()
    typed = {
        name: source for source, name in re.findall(r"^from (\S+) import (\w+) as", stub, re.M)
    }
    assert typed == module._NAMES
    page = (ROOT / "docs" / "python-api.md").read_text()
    for name in module._NAMES:
        assert getattr(module, name).__name__ if callable(getattr(module, name)) else True
        assert re.search(rf"`[^`]*\b{name}\b[^`]*`", page), name
        assert name in dir(module)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'mamfed_common' has no attribute 'nothing'"):
        assert importlib.import_module("mamfed_common").nothing


def test_importing_the_packages_loads_nothing_heavy():
    code = (
        f"import sys, {', '.join(PACKAGES)}; print({{'torch', 'flwr', 'numpy'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
