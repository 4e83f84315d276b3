"""The shell completes the three commands, and nothing heavy is imported for it."""

import os
import subprocess
import sys

import pytest

MODULES = {
    "mamfed-client": "mamfed_client.cli.main",
    "mamfed-server": "mamfed_server.cli.main",
    "mamfed-simulate": "mamfed_simulations.cli.main",
}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mamfed-client pre", {"predict", "preflight"}),
        ("mamfed-server rep", {"report"}),
        ("mamfed-simulate experiment ", {"table1", "peers", "federation"}),
        ("mamfed-simulate run --re", {"--resume"}),
    ],
)
def test_the_shell_completes_commands_and_options(line, expected):
    assert completed(line) == expected


def test_the_shell_completes_runs_sites_and_plans_of_the_home(tmp_path):
    for name in ("runs/first/plan.yaml", "runs/second/plan.yaml", "sites/north.json",
                 f"plans/{'a1' * 32}.yaml"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for command in ("resume", "show", "report", "export"):
        assert completed(f"mamfed-server {command} ", tmp_path) == {"first", "second"}
    assert completed("mamfed-server show f", tmp_path) == {"first"}
    assert completed("mamfed-server sites revoke ", tmp_path) == {"north"}
    for command in ("show", "approve", "refuse"):
        assert completed(f"mamfed-client plan {command} a", tmp_path) == {"a1" * 32}
    assert completed(f"mamfed-server show --home {tmp_path} s") == {"second"}


def completed(line, folder=None):
    program = line.split()[0]
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    code = (
        f"import sys; sys.argv = [{program!r}]\nfrom {MODULES[program]} import main\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, variable: "complete_bash", "COMP_WORDS": line,
             "COMP_CWORD": str(len(line.split(" ")) - 1)},
        capture_output=True, text=True, timeout=120, cwd=folder,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "False", "torch was imported"
    return set(done.stdout.split())
