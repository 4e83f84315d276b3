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
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert set(done.stdout.split()) == expected, done.stderr
    assert done.stderr.splitlines()[-1] == "False", "torch was imported"
