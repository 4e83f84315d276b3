"""Freed memory is kept: a second large block costs no fresh pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import numpy as np
from mamfed_common.model.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(64 << 20, 7, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_a_second_large_block_costs_no_fresh_pages() -> None:
    pages = {}
    for how in ("keep", "plain"):
        command = [sys.executable, "-c", COUNT, how]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        pages[how] = int(done.stdout)
    assert pages["keep"] < 10 < pages["plain"]
