"""Help comes before anything heavy is imported, and how threads wait is set before torch is."""

import os
import subprocess
import sys

import pytest

from mamfed_client.cluster.slurm import QUIET
from mamfed_common.runtime.process_supervisor import child_environment
from mamfed_common.runtime.threads import WAITING

HEAVY = ("torch", "flwr", "numpy", "cv2", "pydicom", "monai", "matplotlib")


@pytest.mark.parametrize("module", ["mamfed_client.cli.main", "mamfed_server.cli.main"])
def test_help_imports_nothing_heavy(module):
    code = (
        f"import sys; sys.argv = ['mamfed', '--help']\n"
        f"from {module} import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


LOOK = """
import importlib.abc, os, runpy, sys

class Look(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
            sys.stderr.write(" ".join(os.environ.get(name, "unset") for name in names) + "\\n")
            os._exit(0)

sys.meta_path.insert(0, Look())
"""
"""Ends the process where it first asks for torch, and says what libgomp would read then."""


CHOSEN = [
    ({}, "PASSIVE 1000"),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE unset"),
    ({"GOMP_SPINCOUNT": "7"}, "unset 7"),
]
"""What the user has set, and what libgomp finds."""


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("mamfed_simulations.cli.main", ["plan"]),
        ("mamfed_client.cli.main", ["plan", "list", "--home", "nowhere"]),
        ("mamfed_client.node.supervisor", []),
        ("mamfed_client.node.supernode", []),
        ("mamfed_client.node.overview", []),
        ("mamfed_client.node.watchman", []),
        ("mamfed_server.service.supervisor", []),
        ("mamfed_server.service.server_process", []),
        ("mamfed_server.service.watchman", []),
        ("mamfed_server.dashboard.process", []),
    ],
)
def test_what_neither_trains_nor_averages_does_without_torch(module, command, tmp_path):
    code = (
        f"import sys; sys.argv[1:] = {command}\nimport {module} as found\n"
        f"try:\n    {command} and found.main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'cv2', 'matplotlib', 'monai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)


@pytest.mark.parametrize(
    ("command", "order"),
    [
        ("from mamfed_simulations.cli.main import main; "
         "sys.argv[1:] = 'demo --out x'.split(); main()", ""),
        ("from mamfed_client.cli.main import main; "
         "sys.argv[1:] = 'evaluate --checkpoint x --data x --out x'.split(); main()", ""),
        ("from mamfed_server.cli.main import main; sys.argv[1:] = ['export', 'x']; main()", ""),
        ("runpy.run_module('mamfed_simulations.federation.arm_worker', run_name='__main__')", "{}"),
        ("runpy.run_module('mamfed_client.training.device_worker', run_name='__main__')", "{}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("chosen", "found"), CHOSEN)
def test_threads_are_told_to_spin_briefly_before_torch_is_loaded(
    command, order, chosen, found, tmp_path
):
    surroundings = {k: v for k, v in os.environ.items() if k not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", LOOK + command],
        input=order, env=surroundings | chosen, capture_output=True, text=True, timeout=120,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1:] == [found], done.stderr


@pytest.mark.parametrize(("chosen", "found"), CHOSEN)
def test_supervised_processes_are_born_with_it(tmp_path, monkeypatch, chosen, found):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    environment = child_environment(tmp_path)
    assert " ".join(environment.get(name, "unset") for name in WAITING) == found


@pytest.mark.parametrize(("chosen", "found"), CHOSEN)
def test_a_job_of_slurm_is_told_so_by_its_script(chosen, found):
    show = "; echo " + " ".join(f"${{{name}-unset}}" for name in WAITING)
    surroundings = {k: v for k, v in os.environ.items() if k not in WAITING}
    done = subprocess.run(
        ["sh", "-ec", QUIET + show], env=surroundings | chosen, capture_output=True, text=True
    )
    assert done.stdout == f"{found}\n"
