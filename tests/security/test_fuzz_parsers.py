import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("fuzz_parsers.py")


def test_hostile_documents_are_refused_in_one_line():
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")
