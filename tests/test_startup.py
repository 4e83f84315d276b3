"""Help is printed before anything heavy is imported."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "flwr", "numpy", "cv2", "pydicom", "monai", "matplotlib")


@pytest.mark.parametrize("module", ["mamfed_client.cli", "mamfed_server.cli"])
def test_help_imports_nothing_heavy(module):
    code = (
        f"import sys; sys.argv = ['mamfed', '--help']\n"
        f"from {module} import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
