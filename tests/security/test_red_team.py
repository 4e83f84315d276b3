import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("red_team.py")


@pytest.mark.slow
def test_private_training_gives_no_image_away():
    pytest.importorskip("opacus")
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")
