"""The bill of materials beside a wheel names every locked package with its hashes."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("wheel", ROOT / "deploy" / "wheel.py")
wheel = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(wheel)


@pytest.mark.slow
def test_a_bill_names_what_a_lock_holds(tmp_path):
    (path,) = wheel.bills_of_materials(tmp_path / "mamfed-1.2.3-py3-none-any.whl", ["server"])
    assert path.name == "mamfed-1.2.3.server.cdx.json"
    text = (ROOT / "deploy" / "lock" / "server.txt").read_text()
    locked = dict(re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", text))
    bill = json.loads(path.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "mamfed"
    assert {part["name"]: part["version"] for part in bill["components"]} == locked
    assert all(part["externalReferences"][0]["hashes"] for part in bill["components"])


def test_every_page_that_installs_a_role_installs_its_lock_first():
    """A page of an install names the lock; extras for one more output may follow it alone."""
    pages = ["docs/site.md", "docs/coordinator.md", "deploy/README.md"]
    pages += [str(path.relative_to(ROOT)) for path in ROOT.glob("deploy/*/Dockerfile*")]
    for page in pages:
        text = (ROOT / page).read_text()
        locks = re.findall(r"--require-hashes --no-deps -r deploy/lock/(\w+)\.txt", text)
        assert locks, page
        assert all((ROOT / "deploy" / "lock" / f"{role}.txt").exists() for role in locks), page
