import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("corrupt.py")


def test_damage_of_every_file_that_is_kept_is_noticed():
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")
