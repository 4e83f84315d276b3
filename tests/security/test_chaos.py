"""The short form of ``chaos.py``."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("chaos.py")


def test_a_run_killed_between_the_steps_of_its_writes_ends_with_the_same_bits():
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")
