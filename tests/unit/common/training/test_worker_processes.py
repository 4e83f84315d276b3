"""Groups whose workers do not join, or crash; rounds are in test_devices."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mamfed_common.errors import RunError
from mamfed_common.runtime.child_processes import how_it_ended
from mamfed_common.training.worker_processes import STUCK, launch

TWO = [torch.device("cpu")] * 2


@pytest.mark.parametrize(("module", "code"), [("no_such_module", 1), ("this", 0)])
@pytest.mark.parametrize("order", ["short", "long " * 2**18], ids=["short", "longer than a pipe"])
def test_a_worker_that_does_not_come_is_one_line(module, code, order):
    started = time.monotonic()
    with pytest.raises(RunError) as caught, launch(module, TWO, lambda place: order):
        pytest.fail("there is no group")
    assert str(caught.value) == f"cpu: its process {how_it_ended(code)}"
    assert time.monotonic() - started < 60, "it was noticed, not waited for"
    assert not torch.distributed.is_initialized()


def test_an_order_goes_to_each_worker_through_a_pipe_and_its_folder_is_private():
    places = []

    def order(place):
        places.append(place)
        assert place.folder.stat().st_mode & 0o777 == 0o700
        return ""

    three = [torch.device("cpu")] * 3
    with pytest.raises(RunError), launch("this", three, order):
        pass
    assert [(place.rank, place.world_size, place.device) for place in places] == [
        (1, 3, "cpu"),
        (2, 3, "cpu"),
    ]
    assert not places[0].folder.exists()


WAITING = """
import time
import torch
from mamfed_common.training import worker_processes

worker_processes.END_SECONDS = worker_processes.STUCK_SECONDS = 0.1
order = worker_processes.ProcessRank.model_dump_json
module = "tests.unit.common.training.test_worker_processes"
with worker_processes.launch(module, [torch.device("cpu")] * 2, order):
    time.sleep(600)  # as NCCL does
"""


def test_a_leader_that_waits_for_a_crashed_worker_for_ever_is_ended():
    root = Path(__file__).parents[4]
    child = subprocess.run(
        [sys.executable, "-c", WAITING],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == STUCK
    assert (
        "cpu: its process ended with code 3; this process hangs and exits as well" in child.stderr
    )


if __name__ == "__main__":  # a worker that joins, then crashes
    from mamfed_common.training.data_parallel import ProcessRank, join_group

    with join_group(ProcessRank.model_validate_json(sys.stdin.read())):
        os._exit(3)
