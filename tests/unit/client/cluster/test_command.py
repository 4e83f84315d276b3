"""Jobs that a command starts: real processes, each in its own session, over a real folder."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from io import StringIO

import pytest
import yaml
from rich.console import Console
from tests.unit.client.cluster.conftest import HARDWARE

from mamfed_client.cluster.command import CommandQueue
from mamfed_client.cluster.dispatcher import cancel_all
from mamfed_client.cluster.documents import Progress, Submission
from mamfed_client.cluster.job_folder import JobFolder, jobs_of
from mamfed_client.node.supervisor import _cancel_jobs
from mamfed_client.site.executor_settings import ExecutorSettings
from mamfed_client.site.policy import PatientPrivacy
from mamfed_client.site.settings import SiteHome
from mamfed_client.training.private import PatientDraw
from mamfed_client.training.round_executor import LocalExecutor
from mamfed_common.errors import DataError, JobError, SetupError
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import Stage
from mamfed_common.training.batches import Batches, RoundContext
from mamfed_common.training.optimizer_state import OptimizerStateStore
from mamfed_common.training.private import Patient
from mamfed_common.training.round_checkpoint import RoundCheckpointer
from nursery import BORN_CODE

pytestmark = pytest.mark.slow

HERE = LocalExecutor(HARDWARE)
JOB = [sys.executable, "-P", "-m", "mamfed_client.cluster.job", "{folder}"]
LATER = BORN_CODE + (
    "import runpy, sys, time; time.sleep(2); sys.argv.pop(0); "
    "runpy.run_module(sys.argv[0], {}, '__main__', True)"
)


def queue_of(*command, **settings):
    chosen = command or JOB
    return CommandQueue(
        ExecutorSettings(kind="command", shared_folder="/nowhere", command=chosen, **settings)
    )


def slowly(seconds):
    """A command that waits before it works."""
    return ["sh", "-c", f"sleep {seconds}; exec {' '.join(JOB)}"]


def only_folder(jobs):
    (path,) = jobs.iterdir()
    return JobFolder(path)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_job_trains_the_bits_that_this_process_would(site_round, executor_with, jobs, stage):
    steps = []
    jobbed = site_round.train(
        executor_with(queue_of()), stage=stage, on_step=lambda: steps.append(1)
    )
    local = site_round.train(HERE, stage=stage)
    assert state_sha256(jobbed.state) == state_sha256(local.state)
    assert (jobbed.loss, jobbed.num_examples) == (local.loss, local.num_examples)
    assert list(jobs.iterdir()) == [], "what was exchanged is removed"


def test_a_job_scores_the_bits_that_this_process_would(site_round, executor_with):
    painter = site_round.state
    scores = site_round.evaluate(executor_with(queue_of()), painter=painter)
    assert scores == site_round.evaluate(HERE, painter=painter)


def test_kept_moments_come_back_from_a_job(site_round, executor_with, tmp_path):
    def rounds(executor, name):
        result = None
        for server_round in (1, 2):
            store = OptimizerStateStore(
                tmp_path / name, site_round.plan, "run", Stage.FINETUNING, server_round
            )
            result = site_round.train(executor, server_round=server_round, optimizer_state=store)
        return state_sha256(result.state)

    jobbed = rounds(executor_with(queue_of()), "jobs")
    assert jobbed == rounds(HERE, "here")
    assert jobbed != state_sha256(site_round.train(HERE, server_round=2).state)


def test_a_private_round_draws_the_same_noise_in_a_job(site_round, executor_with):
    pytest.importorskip("opacus")
    batches = Batches(
        site_round.samples,
        site_round.plan,
        Stage.FINETUNING,
        RoundContext("here", 1),
        site_round.benign,
    )
    draw = PatientDraw(tuple(Patient((i,), ()) for i in range(3)), (0.5, 0.5, 0.5), 2)
    rule = PatientPrivacy(noise_multiplier=1.0, clip_norm=1.0, max_epsilon=50)
    states = {
        state_sha256(executor.train_patients(site_round.state, batches, draw, rule, secret).state)
        for executor, secret in [
            (executor_with(queue_of()), b"a" * 32),
            (HERE, b"a" * 32),
            (HERE, b"b" * 32),
        ]
    }
    assert len(states) == 2, "equal for one secret, and another for another"


def test_the_exchange_is_private_and_holds_no_pickle(site_round, executor_with, jobs):
    with pytest.raises(JobError):
        site_round.train(executor_with(queue_of("false", "{folder}")))
    paths = [only_folder(jobs).path, *only_folder(jobs).path.rglob("*")]
    kinds = {path.suffix for path in paths if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".log", ""}
    for path in paths:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_command_that_fails_is_one_line_and_the_next_attempt_succeeds(site_round, executor_with):
    with pytest.raises(JobError, match=r"its command ended with code 1, and left no result"):
        site_round.train(executor_with(queue_of("false", "{folder}")))
    assert site_round.train(executor_with(queue_of())).num_examples


def test_images_that_a_job_cannot_read_are_a_fault_of_the_data(site_round, executor_with):
    site_round.samples.entries[0][1].path.unlink()
    with pytest.raises(DataError, match="stored sample is missing"):
        site_round.train(executor_with(queue_of()))


def test_a_missing_program_is_named(site_round, executor_with):
    with pytest.raises(SetupError, match="no program 'no-such-program'"):
        site_round.train(executor_with(queue_of("no-such-program", "{folder}")))


def test_a_node_that_comes_back_takes_the_job_that_it_had_started(site_round, executor_with, jobs):
    class Gone(Exception):
        pass

    def die(words):
        if words:
            raise Gone

    later = [sys.executable, "-P", "-c", LATER, *JOB[3:]]
    with pytest.raises(Gone):  # as by SIGKILL: nothing is cancelled
        site_round.train(executor_with(queue_of(*later), on_state=die))
    first = only_folder(jobs).read(Submission)
    submitted = []
    again = queue_of("false", "{folder}")
    again.submit = lambda *_: submitted.append(1)
    result = site_round.train(executor_with(again))
    assert state_sha256(result.state) == state_sha256(site_round.train(HERE).state)
    assert first.job
    assert not submitted, "never two jobs for one round"


def test_a_result_that_was_taken_is_not_computed_again(site_round, executor_with, tmp_path):
    checkpointer = RoundCheckpointer(tmp_path / "state", "the round")
    first = site_round.train(executor_with(queue_of()), checkpointer=checkpointer)
    again = site_round.train(
        executor_with(queue_of("false", "{folder}")), checkpointer=checkpointer
    )
    assert state_sha256(again.state) == state_sha256(first.state)


def test_a_job_is_cancelled_when_the_time_of_the_round_is_over(site_round, executor_with, jobs):
    executor = executor_with(queue_of(*slowly(60)))
    executor.allow(1.0)
    with pytest.raises(JobError, match=r"when the round's time was over; cancelled"):
        site_round.train(executor)
    assert only_folder(jobs).read(Submission) is None


def test_a_job_that_does_not_begin_is_cancelled(site_round, executor_with):
    with pytest.raises(JobError, match=r"has not begun yet .*longer than executor.queue_minutes"):
        site_round.train(executor_with(queue_of(*slowly(60)), queue_seconds=0.5))


def test_who_stops_the_site_ends_its_job(site_round, executor_with, jobs):
    queue = queue_of(*slowly(60))
    failed = []

    def train():
        try:
            site_round.train(executor_with(queue))
        except JobError as error:
            failed.append(str(error))

    thread = threading.Thread(target=train)
    thread.start()
    while not list(jobs.glob("*/submission.json")) or not only_folder(jobs).read(Submission).job:
        time.sleep(0.05)
    pid = int(only_folder(jobs).read(Submission).job)
    assert cancel_all(jobs, queue_of()) == 1, "by another process, which has not started it"
    thread.join(30)
    assert "ended by signal 15" in failed[0]
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_another_round_cancels_the_job_before_it(site_round, executor_with, jobs):
    executor = executor_with(queue_of(*slowly(60)), queue_seconds=0.3)
    with pytest.raises(JobError):
        site_round.train(executor)
    before = only_folder(jobs).path
    site_round.train(executor_with(queue_of()), server_round=2)
    assert not before.exists()


def test_a_job_asked_to_end_ends(site_round, executor_with, jobs):
    with pytest.raises(JobError):
        site_round.train(executor_with(queue_of("false", "{folder}")))
    folder = only_folder(jobs)
    folder.forget(Progress)
    folder.ask_to_cancel()
    argv = [part.replace("{folder}", str(folder.path)) for part in JOB]
    code = subprocess.run(argv, capture_output=True, timeout=60).returncode
    assert code in (0, 76), "it may have been quicker than its first look"


def test_a_second_job_in_a_folder_is_refused(site_round, executor_with, jobs):
    with pytest.raises(JobError):
        site_round.train(executor_with(queue_of("false", "{folder}")))
    folder = only_folder(jobs)
    folder.write(Progress(job="another 12"))
    argv = [part.replace("{folder}", str(folder.path)) for part in JOB]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == SetupError.exit_code
    assert "job 'another 12' works here, never two" in done.stderr


def test_a_damaged_answer_is_refused_and_computed_again(site_round, executor_with):
    class Damaging(CommandQueue):
        def submit(self, folder, submission):
            argv = [part.replace("{folder}", str(folder.path)) for part in JOB]
            subprocess.run(argv, check=True, capture_output=True, timeout=60)
            with open(folder.path / "result.safetensors", "ab") as file:
                file.write(b"x")
            return "1"

    damaging = Damaging(queue_of()._settings)
    with pytest.raises(JobError, match="not the file that the document beside it states"):
        site_round.train(executor_with(damaging))
    assert site_round.train(executor_with(queue_of())).num_examples


def test_an_answer_to_another_order_is_refused(site_round, executor_with, jobs):
    forged = json.dumps({"order": "0" * 64}).replace('"', r"\"")
    with pytest.raises(JobError, match="to another order"):
        site_round.train(
            executor_with(queue_of("sh", "-c", f'echo "{forged}" > {{folder}}/answer.json'))
        )


def test_a_job_has_no_key_and_no_address(site_round, executor_with, jobs):
    with pytest.raises(JobError):
        site_round.train(executor_with(queue_of("false", "{folder}")))
    text = only_folder(jobs).path.joinpath("order.json").read_text()
    for word in ("welcome", "node.key", "tls.key", "server:", "signature", '"key":"'):
        assert word not in text


def test_a_shared_folder_that_lets_others_in_is_refused(tmp_path):
    shared = tmp_path / "open"
    shared.mkdir(mode=0o755)
    with pytest.raises(SetupError, match=r"found mode 0755.*expected 0700: run chmod 700"):
        jobs_of(shared, "here", "rounds")


def test_a_job_killed_midway_goes_on_from_its_checkpoint(site_round, executor_with, jobs, caplog):
    killed = []

    def kill(words):
        folder = only_folder(jobs)
        if "at work" in words and not killed:
            while not list(folder.state.glob("*progress*")):
                time.sleep(0.01)
            killed.append(int(folder.read(Submission).job))
            os.kill(killed[0], signal.SIGKILL)

    stage = site_round.plan.finetuning.model_copy(update={"local_epochs": 60})
    site_round.plan = site_round.plan.model_copy(update={"finetuning": stage})
    with pytest.raises(JobError, match="was killed"):
        site_round.train(executor_with(queue_of(), on_state=kill))
    taken = []
    result = site_round.train(executor_with(queue_of()), on_step=lambda: taken.append(1))
    assert state_sha256(result.state) == state_sha256(site_round.train(HERE).state)


def test_stopping_a_site_cancels_its_job_from_a_process_of_its_own(tmp_path):
    home = SiteHome(tmp_path / "home")
    home.path.mkdir()
    executor = {"kind": "command", "shared_folder": str(tmp_path / "shared"), "command": JOB}
    settings = {"name": "here", "data": [{"name": "a", "folder": "x"}], "executor": executor}
    home.settings_path.write_text(yaml.safe_dump(settings))
    folder = jobs_of(tmp_path / "shared", "here", "rounds") / "a"
    folder.mkdir(mode=0o700)
    command = ["sh", "-c", f"while [ ! -e {folder}/cancel ]; do sleep 0.1; done"]
    with subprocess.Popen(command, start_new_session=True) as process:
        JobFolder(folder).write(
            Submission(
                name=f"mamfed-{'0' * 24}",
                job=str(process.pid),
                since=0.0,
                host=socket.gethostname(),
            )
        )
        printed = Console(file=StringIO(), width=200)
        _cancel_jobs(home, printed)
        assert process.wait(5) == 0
    assert printed.file.getvalue().startswith(
        "1 job cancelled; a round goes on from its checkpoint"
    )
    assert JobFolder(folder).read(Submission) is None
