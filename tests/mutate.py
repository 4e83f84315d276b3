"""Change seeded lines of the packages one at a time, and count which the tests of that module see.

Usage: ``.venv/bin/python tests/mutate.py [--count 40] [--seed 0] [--only PART ...]``

A module is tested by the file that mirrors it, as ``tests/unit/client/site/test_policy.py`` mirrors
``client/mamfed_client/site/policy.py``; what runs in a process of its own, by that of ``BESIDE``.
``--only`` takes parts of paths. All happens in a copy of the repository. Run it before and after a
change to the tests: the same seed changes the same lines.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("client", "common", "server", "simulations")
BESIDE = {
    "client/mamfed_client/sandbox/worker.py": "tests/unit/client/sandbox/test_decoder.py",
    "client/mamfed_client/sandbox/process.py": "tests/unit/client/sandbox/test_decoder.py",
    "client/mamfed_client/cluster/job.py": "tests/unit/client/cluster/test_command.py",
    "client/mamfed_client/training/device_worker.py": "tests/unit/client/training/test_devices.py",
    "simulations/mamfed_simulations/federation/arm_worker.py":
        "tests/unit/simulations/federation/test_arm_pool.py",
    "simulations/mamfed_simulations/federation/arm_process.py":
        "tests/unit/simulations/federation/test_arm_pool.py",
}  # fmt: skip
OPPOSITE = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE,
    ast.LtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip
NO_TESTS = (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED)
"""Exit codes of pytest that say nothing about a change."""


def tests_of(module: str) -> str | None:
    """Return the file of tests that mirrors a module, if there is one."""
    package, _, *folders, name = Path(module).parts
    mirrored = Path("tests/unit", package, *folders, f"test_{name}")
    found = BESIDE.get(module, str(mirrored))
    return found if (ROOT / found).exists() else None


def changes(text: str) -> Iterator[tuple[int, str]]:
    """Yield each change of one node: its line, and the whole text with it."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for change in _changes_of(node):
            line = getattr(node, "lineno", 0)
            with change:
                yield line, ast.unparse(tree)


class _Changed:
    """A field of a node that has another value for a while."""

    def __init__(self, node: ast.AST, field: str, value: object) -> None:
        self.node, self.field, self.value = node, field, value

    def __enter__(self) -> None:
        self.before = getattr(self.node, self.field)
        setattr(self.node, self.field, self.value)

    def __exit__(self, *_: object) -> None:
        setattr(self.node, self.field, self.before)


def _changes_of(node: ast.AST) -> Iterator[_Changed]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
        yield _Changed(node, "ops", [OPPOSITE[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in OPPOSITE:
        yield _Changed(node, "op", OPPOSITE[type(node.op)]())
    elif isinstance(node, ast.Constant) and type(node.value) in (int, bool):
        yield _Changed(node, "value", not node.value if node.value in (0, 1) else node.value + 1)
    elif isinstance(node, ast.If | ast.While):
        yield _Changed(node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield _Changed(node, "value", ast.Constant(None))
    elif isinstance(node, ast.Return) and node.value is not None:
        yield _Changed(node, "value", ast.Constant(None))


def chosen(count: int, seed: int, only: list[str]) -> list[tuple[str, int, str]]:
    """Return as many changes as asked: module, line, text; no line twice."""
    found = {}
    for path in sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        module = str(path.relative_to(ROOT))
        if tests_of(module) and (not only or any(part in module for part in only)):
            for line, text in changes(path.read_text()):
                found.setdefault((module, line), []).append(text)
    generator = random.Random(seed)
    lines = generator.sample(sorted(found), min(count, len(found)))
    return [(*key, generator.choice(found[key])) for key in lines]


def main() -> None:
    """Try every change; print a line for each, then the count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=40, help="lines to change")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the modules' paths")
    options = parser.parse_args()
    mutants = chosen(options.count, options.seed, options.only)
    seen = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=_left_out)
        for module, line, text in mutants:
            found = _is_seen(copy, module, text)
            seen += found
            print(f"{'seen' if found else 'UNSEEN'} {module}:{line}", flush=True)
    print(f"{seen} of {len(mutants)} seen")


def _left_out(folder: str, names: list[str]) -> list[str]:
    made = ("runs", "site") if Path(folder) == ROOT else ()
    return [n for n in names if n.startswith(".") or n == "__pycache__" or n in made]


def _is_seen(copy: Path, module: str, text: str) -> bool:
    path = copy / module
    before = path.read_text()
    path.write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(copy / p) for p in PACKAGES)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, str(tests_of(module))], cwd=copy, env=environment, capture_output=True,
            timeout=1800,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(before)
    assert done.returncode not in NO_TESTS, done.stdout  # others may have ended pytest itself
    return done.returncode != 0


if __name__ == "__main__":
    main()
