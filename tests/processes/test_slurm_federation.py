"""A federation over TLS in which one site's rounds are jobs of a real Slurm, beside local sites.

Its first job is cancelled from outside, and its node is killed while the second one runs.
"""

import json
import os
import re
import signal
import subprocess

import pytest
from tests.processes.deployment import Deployment, simulated_sha256, wait_until
from tests.processes.phantoms import small_plan
from tests.unit.client.cluster.slurm_cluster import missing_programs, slurm_cluster

pytestmark = pytest.mark.slow
ROUNDS = 3
"""One of stage 1, two of stage 2."""


class Jobs:
    """The jobs of the site behind Slurm; while a file is there, none begins to compute."""

    def __init__(self, conf):
        self.environment, self.hold = {"SLURM_CONF": str(conf)}, conf.parent / "hold"
        self._log = conf.parent / "slurmctld.log"

    def ask(self, *argv):
        environment = {**os.environ, **self.environment}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def running(self):
        return self.ask("squeue", "-h", "--states=RUNNING", "-o", "%A")

    def next_running(self, *before):
        """Return the number of the job that runs now, once there is another one than before."""
        wait_until(lambda: bool(set(self.running()) - set(before)), "a job runs", 600)
        (job,) = set(self.running()) - set(before)
        return job

    def submitted(self):
        return re.findall(r"_slurm_rpc_submit_batch_job: JobId=(\d+)", self._log.read_text())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed: {', '.join(missing)} missing")
    pytest.importorskip("submitit")
    folder = tmp_path_factory.mktemp("slurm")
    with slurm_cluster(folder) as conf:
        yield Jobs(conf)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cluster, phantoms):
    """The deployment after its run, with what was done to the site behind Slurm."""
    folder = tmp_path_factory.mktemp("federation")
    plan = folder / "plan.yaml"
    plan.write_text(small_plan(pretraining=1, finetuning=ROUNDS - 1).to_yaml())
    behind = min(phantoms)
    with Deployment(folder, phantoms) as federation:
        federation.environment |= cluster.environment
        wait = f"while [ -e {cluster.hold} ]; do sleep 0.1; done"
        executor = {"kind": "slurm", "shared_folder": str(folder / "shared"), "setup": [wait]}
        executor |= {"gpus": 0, "cpus": 1, "memory": "500M", "minutes": 30}
        federation.change_settings(behind, executor=executor)
        cluster.hold.touch()
        federation.start_server(plan)
        for name in phantoms:
            federation.start_site(name)
        federation.cancelled = cluster.next_running()
        cluster.ask("scancel", federation.cancelled)

        federation.found = cluster.next_running(federation.cancelled)
        node = federation.processes.pop(behind)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        federation.start_site(behind)
        log = federation.site_home(behind) / "logs" / "worker.log"
        words = f"found again: Slurm job {federation.found} is running"
        wait_until(lambda: words in log.read_text(), "the job is found again", 600)
        federation.submitted_then = cluster.submitted()
        cluster.hold.unlink()
        assert federation.wait_for_end(900) == 0, federation.story()
        federation.behind, federation.plan = behind, plan
        yield federation


def test_the_bits_are_those_of_sites_that_compute_locally(finished, phantoms):
    assert len(finished.rounds()) == ROUNDS
    simulated = simulated_sha256(finished.folder, finished.plan, phantoms)
    assert finished.weights_sha256() == simulated


def test_a_cancelled_job_costs_one_round_that_is_done_again(finished):
    lines = (finished.run_folder() / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    begun = [
        (event["stage"], event["server_round"]) for event in events if event["event"] == "round"
    ]
    again = [each for each in dict.fromkeys(begun) if begun.count(each) > 1]
    assert again == [("pretraining", 1)]
    assert begun.count(again[0]) == 2
    log = (finished.site_home(finished.behind) / "logs" / "worker.log").read_text()
    assert f"Slurm job {finished.cancelled} was cancelled" in log


def test_a_killed_node_s_job_is_not_started_twice(finished, cluster):
    assert finished.submitted_then == [finished.cancelled, finished.found]
    assert len(finished.submitted_then) < len(cluster.submitted())  # those of later rounds
    assert cluster.ask("squeue", "-h", "-o", "%A") == []


def test_nothing_stays_in_the_shared_folder(finished):
    left = [path for path in (finished.folder / "shared").rglob("*") if path.is_file()]
    assert left == []
