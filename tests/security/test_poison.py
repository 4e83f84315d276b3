"""The short form of ``poison.py``: the bounds, without the Dice."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("poison.py")


def test_a_hostile_site_moves_the_weights_no_further_than_the_bound():
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")
