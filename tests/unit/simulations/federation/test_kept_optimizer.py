"""Short rounds with kept moments over real sites in one process: a kill changes no bit."""

import pytest

from mamfed_client.preparation.site_data import Site
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.model.state_dict import state_sha256
from mamfed_server.run.run import Job
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.federation.runner import run_federation
from mamfed_simulations.phantoms.vendors import VENDORS

NAMES = tuple(sorted(VENDORS))[:2]


class Died(BaseException):
    """The process is gone."""


@pytest.fixture
def plan(tiny_plan):
    stage = {"rounds": 3, "local_steps": 2, "learning_rate": 0.02, "optimizer_state": "kept"}
    return tiny_plan.changed(pretraining=stage, finetuning=stage)


@pytest.fixture(scope="module")
def train(folders, cache):
    def run(plan, folder, *, on_step=None, **job):
        sites = [Site(name, ((name, folders[name]),), cache) for name in NAMES]
        job = Job(plan=plan, folder=folder, num_nodes=len(NAMES), resume=True, **job)
        run_federation(sites, job, device="cpu", threads=1, on_step=on_step)
        return state_sha256(load_checkpoint(RunFolder(folder).checkpoint_path("final")).state)

    return run


def test_a_run_that_is_killed_ends_with_the_same_bits(tmp_path, plan, train):
    """In the middle of each stage, and with the latest checkpoint damaged."""
    whole = train(plan, tmp_path / "whole")
    fresh = {"rounds": 3, "local_steps": 2, "learning_rate": 0.02}
    assert whole != train(plan.changed(finetuning=fresh), tmp_path / "fresh")
    for steps in (7, 15, 22):  # of 4 a round
        folder, taken = tmp_path / f"killed at {steps}", []

        def on_step(steps=steps, taken=taken):
            taken.append(1)
            if len(taken) == steps:
                raise Died

        with pytest.raises(Died):
            train(plan, folder, on_step=on_step)
        latest = folder / "checkpoints" / "latest.safetensors"
        if steps == 22:
            latest.write_bytes(latest.read_bytes()[:-5] + b"12345")
        assert train(plan, folder) == whole, steps
    kept = sorted(p.name for p in (tmp_path / "whole" / "optimizer" / NAMES[0]).rglob("*.*"))
    assert kept == [f"1-000{n}.safetensors" for n in (1, 2, 3)]
