import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("disk_full.py")


def test_a_full_disk_leaves_every_file_whole_and_the_next_write_goes_on():
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")
