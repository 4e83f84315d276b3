"""Real Slurm on loopback, and submitit's own executor of local jobs."""

import os
import subprocess
import time

import pytest
from tests.unit.client.cluster.conftest import HARDWARE
from tests.unit.client.cluster.slurm_cluster import missing_programs, slurm_cluster

from mamfed_client.cluster.dispatcher import cancel_all
from mamfed_client.cluster.documents import Submission
from mamfed_client.cluster.job_folder import JobFolder
from mamfed_client.cluster.queues import JobState
from mamfed_client.cluster.slurm import SlurmQueue
from mamfed_client.site.executor_settings import ExecutorSettings
from mamfed_client.training.round_executor import LocalExecutor
from mamfed_common.errors import JobError
from mamfed_common.model.state_dict import state_sha256

submitit = pytest.importorskip("submitit")
SMALL = {"kind": "slurm", "shared_folder": "/nowhere", "gpus": 0, "cpus": 1}
SMALL |= {"memory": "500M", "minutes": 10}
pytestmark = pytest.mark.slow
HERE = LocalExecutor(HARDWARE)


def queue_of(**settings):
    return SlurmQueue(ExecutorSettings(**{**SMALL, **settings}))


def only_folder(jobs):
    (path,) = jobs.iterdir()
    return JobFolder(path)


class LocalQueue(SlurmQueue):
    """Submitit's executor of local jobs in the place of Slurm's."""

    def _executor(self, folder, submission):
        executor = submitit.LocalExecutor(folder.logs)
        executor.update_parameters(timeout_min=5)
        return executor

    def state(self, folder, submission):
        try:
            line = open(f"/proc/{submission.job}/cmdline", "rb").read()
        except OSError:
            line = b""
        return JobState("running" if line else "ended", f"local job {submission.job}")

    def cancel(self, folder, submission):
        subprocess.run(["kill", "-9", submission.job])


def test_a_job_of_submitits_local_executor_trains_the_same_bits(site_round, executor_with, jobs):
    jobbed = site_round.train(executor_with(LocalQueue(ExecutorSettings(**SMALL))))
    assert state_sha256(jobbed.state) == state_sha256(site_round.train(HERE).state)
    assert list(jobs.iterdir()) == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed: {', '.join(missing)} missing")
    folder = tmp_path_factory.mktemp("slurm")
    before = os.environ.get("SLURM_CONF")
    with slurm_cluster(folder) as conf:
        os.environ["SLURM_CONF"] = str(conf)
        try:
            yield folder
        finally:
            os.environ.pop("SLURM_CONF")
            if before is not None:
                os.environ["SLURM_CONF"] = before


def test_a_slurm_job_trains_the_same_bits_and_leaves_no_pickle(
    site_round, executor_with, jobs, cluster
):
    words, seen = [], set()

    def note(text):
        words.append(text)
        seen.update(path.suffix for path in jobs.rglob("*") if path.is_file())

    jobbed = site_round.train(executor_with(queue_of(), on_state=note))
    assert state_sha256(jobbed.state) == state_sha256(site_round.train(HERE).state)
    assert any("Slurm job" in text for text in words)
    assert words[-1] == ""
    assert ".pkl" not in seen
    assert list(jobs.iterdir()) == []


def test_a_partition_that_is_down_is_waited_for_and_then_cancelled(
    site_round, executor_with, jobs, cluster
):
    words = []
    queue = queue_of(partition="closed")
    executor = executor_with(queue, queue_seconds=2, on_state=words.append)
    with pytest.raises(JobError, match=r"Slurm job \d+ waits \(PartitionDown\) for .*cancelled"):
        site_round.train(executor)
    assert any("waits (PartitionDown)" in text for text in words)
    assert _live_jobs() == []


def test_a_partition_that_does_not_exist_is_one_line(site_round, executor_with, cluster):
    with pytest.raises(JobError, match=r"Slurm refuses the job: .*Invalid partition"):
        site_round.train(executor_with(queue_of(partition="no-such")))


def test_a_node_that_was_killed_finds_its_slurm_job_by_its_name(
    site_round, executor_with, jobs, cluster
):
    class Gone(Exception):
        pass

    def die(words):
        if words:
            raise Gone

    with pytest.raises(Gone):
        site_round.train(executor_with(queue_of(partition="closed"), on_state=die))
    folder = only_folder(jobs)
    submission = folder.read(Submission)
    folder.write(submission.model_copy(update={"job": ""}))  # killed before it learned the number
    again = queue_of()
    state = again.state(folder, submission)
    assert state.phase == "queued"
    subprocess.run(["scontrol", "update", f"JobId={submission.job}", "Partition=main"], check=True)
    result = site_round.train(executor_with(again))
    assert state_sha256(result.state) == state_sha256(site_round.train(HERE).state)


def test_stopping_cancels_a_slurm_job(site_round, executor_with, jobs, cluster):
    class Gone(Exception):
        pass

    def die(words):
        if words:
            raise Gone

    with pytest.raises(Gone):
        site_round.train(executor_with(queue_of(partition="closed"), on_state=die))
    assert queue_of().state(only_folder(jobs), only_folder(jobs).read(Submission)).phase == "queued"
    assert cancel_all(jobs, queue_of()) == 1
    assert _live_jobs() == []


def test_a_job_that_slurm_loses_is_a_fault_and_goes_on_later(
    site_round, executor_with, jobs, cluster
):
    def lose(words):
        if "waits" in words:
            subprocess.run(["scancel", only_folder(jobs).read(Submission).job], check=True)

    with pytest.raises(JobError, match=r"was cancelled.*left no result; see "):
        site_round.train(executor_with(queue_of(partition="closed"), on_state=lose))
    assert site_round.train(executor_with(queue_of())).num_examples


def test_slurm_that_does_not_answer_is_no_loss(jobs, cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "none.conf"))
    submission = Submission(name=f"mamfed-{'0' * 24}", job="1", since=0.0)
    state = queue_of().state(JobFolder(tmp_path), submission)
    assert state.phase == "unknown"
    assert state.words.startswith("Slurm does not answer (")


def _live_jobs():
    # An earlier test's job may still run to its end; one that waits here would wait for ever.
    deadline = time.monotonic() + 60
    while True:
        rows = subprocess.run(["squeue", "-h", "-o", "%T"], capture_output=True, text=True)
        live = [row for row in rows.stdout.split() if row != "COMPLETING"]
        if not live or time.monotonic() > deadline:
            return live
        time.sleep(0.1)
