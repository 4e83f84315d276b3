"""The short form of ``quorum.py``."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("quorum.py")


def test_no_average_is_made_below_the_floor_and_the_run_goes_on():
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")
