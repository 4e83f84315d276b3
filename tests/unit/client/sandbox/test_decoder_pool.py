import subprocess
import sys
from contextlib import ExitStack
from threading import Barrier

import pytest

from mamfed_client.sandbox.decoder_pool import MAX_DECODERS, open_decoder_pool


@pytest.mark.parametrize(
    ("cores", "tasks", "expected"),
    [
        (6, 1, [6]),
        (6, 2, [3, 3]),
        (6, 4, [1] * 4),
        (6, 100, [1] * 6),
        (32, 100, [4] * MAX_DECODERS),
        (6, 0, []),
    ],
)
def test_files_read_side_by_side_share_the_cores(monkeypatch, cores, tasks, expected):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    with open_decoder_pool(tasks) as side_by_side, ExitStack() as stack:
        decoders = [stack.enter_context(side_by_side.decoder()) for _ in expected]
        assert [decoder.threads for decoder in decoders] == expected


def test_two_threads_take_turns_at_a_decoder(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    met = Barrier(2, timeout=10)

    def task(_):
        with side_by_side.decoder() as decoder:
            pass
        met.wait()  # a single thread would wait for ever
        return decoder

    with open_decoder_pool(5) as side_by_side:
        assert len(set(side_by_side.pool.map(task, range(4)))) == 1


COUNT = """
import resource
import numpy as np
from mamfed_client.sandbox.decoder_pool import open_decoder_pool

def faults(_):
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    arrays = [np.full(size << 20, 7, np.uint8) for size in (17, 5, 2, 2, 7, 7)]
    del arrays
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

with open_decoder_pool(1, threads_per_decoder=1) as pool:
    first, second = pool.pool.map(faults, range(2))
print(second)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_the_second_image_of_a_thread_costs_no_fresh_pages():
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, check=True)
    assert int(done.stdout) < 10
