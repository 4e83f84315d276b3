"""What each role installs is locked by version and hash, within the ranges of pyproject.toml."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "deploy" / "lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SPEC = importlib.util.spec_from_file_location("lock", ROOT / "deploy" / "lock.py")
lock = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lock)


def locked(role):
    """Return the requirement and the hashes of each package that a role's lock holds."""
    text = re.sub(r"(?m)^#.*\n", "", (LOCK / f"{role}.txt").read_text())
    found = {}
    for block in re.split(r"(?m)^(?=\S)", text)[1:]:
        first, *rest = block.replace("\\\n", "\n").splitlines()
        requirement = Requirement(first)
        found[canonicalize_name(requirement.name)] = (requirement, [line.strip() for line in rest])
    return found


def direct(extras):
    """Return what mamfed asks for with some extras, those that they name themselves too."""
    wanted, waiting, seen = [*PROJECT["dependencies"]], [*extras], set()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for text in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(text)
            if requirement.name == "mamfed":
                waiting += requirement.extras
            else:
                wanted.append(text)
    return [Requirement(text) for text in wanted]


@pytest.mark.parametrize("role", lock.ROLES)
class TestRole:
    def test_every_package_has_one_version_and_hashes(self, role):
        for name, (requirement, hashes) in locked(role).items():
            assert re.fullmatch(r"==[^*]+", str(requirement.specifier)), name
            assert hashes, name
            assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", h) for h in hashes), name

    def test_what_mamfed_asks_for_is_in_it_within_its_range(self, role):
        found = locked(role)
        for wanted in direct(lock.ROLES[role]):
            if lock.LEFT_OUT.match(f"{wanted.name}=="):
                continue
            assert canonicalize_name(wanted.name) in found, f"{wanted}: make lock"
            (version,) = found[canonicalize_name(wanted.name)][0].specifier
            assert wanted.specifier.contains(version.version), f"{wanted}: make lock"

    def test_torch_and_its_libraries_are_left_to_the_machine(self, role):
        assert not [name for name in locked(role) if lock.LEFT_OUT.match(f"{name}==")]
        assert "monai" in locked(role)


def test_roles_share_their_versions():
    dev = locked("dev")
    for role in lock.ROLES:
        for name, (requirement, _) in locked(role).items():
            assert dev[name][0].specifier == requirement.specifier, f"{role}: {name}"


def test_a_package_that_comes_with_torch_is_cut_out_whole():
    kept, cut = "numpy==2.0 \\\n    --hash=a\n", "nvidia-nccl-cu13==2.29 ; x \\\n    --hash=b\n"
    text = f"{kept}{cut}torch==2.13\nzip==1\n"
    assert lock.without_torch(text) == f"{kept}zip==1\n"
