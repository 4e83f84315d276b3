"""What becomes of a team whose partners do not come, or leave; rounds are in test_devices."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mamfed_common.errors import RunError
from mamfed_common.runtime.child_processes import how_it_ended
from mamfed_common.training.data_parallel import STUCK, launch

TWO = [torch.device("cpu")] * 2


@pytest.mark.parametrize(("module", "code"), [("no_such_module", 1), ("this", 0)])
@pytest.mark.parametrize("order", ["short", "long " * 2**18], ids=["short", "longer than a pipe"])
def test_a_partner_that_does_not_come_is_one_line(module, code, order):
    started = time.monotonic()
    with pytest.raises(RunError) as caught, launch(module, TWO, lambda place: order):
        pytest.fail("there is no team")
    assert str(caught.value) == f"cpu: its process {how_it_ended(code)}"
    assert time.monotonic() - started < 60, "it was noticed, not waited for"
    assert not torch.distributed.is_initialized()


def test_an_order_goes_to_each_partner_through_a_pipe_and_its_folder_is_private():
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
from mamfed_common.training import data_parallel

data_parallel.END_SECONDS = data_parallel.STUCK_SECONDS = 0.1
order = data_parallel.ProcessRank.model_dump_json
module = "tests.unit.common.training.test_data_parallel"
with data_parallel.launch(module, [torch.device("cpu")] * 2, order):
    time.sleep(600)  # as NCCL does
"""


def test_a_leader_that_waits_for_a_dead_partner_for_ever_is_ended():
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
    assert "cpu: its process ended with code 3, and this process with it" in child.stderr


if __name__ == "__main__":  # a partner that comes, and dies
    from mamfed_common.training.data_parallel import ProcessRank, join_group

    with join_group(ProcessRank.model_validate_json(sys.stdin.read())):
        os._exit(3)
