"""The short form of ``partition.py``."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("partition.py")


def test_a_run_outlives_a_black_hole_and_a_reset():
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")
