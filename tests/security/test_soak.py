"""The short form of ``soak.py``."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("soak.py")


@pytest.mark.usefixtures("executed")  # imports that it has not made would hide growth
def test_memory_and_descriptors_do_not_grow_with_the_rounds():
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")
