import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("pki.py")


def test_no_attempt_by_keys_or_certificates_succeeds():
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")
