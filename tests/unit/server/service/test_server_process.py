"""The coordinator's server process."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["mamfed_server.service.server_process", "mamfed_common.plan"])
def test_what_reads_plans_and_scores_does_not_wait_for_monai(module):
    code = f"import {module}, sys; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
