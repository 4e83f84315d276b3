"""Node and worker as real processes: what they answer, and what never runs or leaves."""

import os
import signal
import time

import pytest
from tests.unit.client.loopback import Coordinator, Processes, wait_for, wait_for_state

from mamfed_client.node.executor import Progress, Worker
from mamfed_client.node.supernode import RUNTIME_FILE
from mamfed_client.site.status import STARTS_OVER, read_status
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.protocol.flower_bundle import PYPROJECT
from mamfed_common.protocol.flower_compat import build_fab_from_files
from mamfed_common.protocol.messages import pack, unpack_body, unpack_update
from mamfed_common.protocol.tasks import (
    Query,
    RefusalCode,
    SiteDescription,
    TrainTask,
)
from mamfed_common.runtime.lock import holder
from mamfed_server.fleet import node_rules, superlink

POLICY = {
    "min_patients_a_round": 1,
    "plans": {"approval": "within-bounds"},
    "bounds": {"max_local_epochs": 10**6, "max_rounds": 10**4},
    "release": {"arrays": ["*"], "metrics": ["counts", "num_examples", "loss", "images", "dice"]},
}


@pytest.fixture
def coordinator(tmp_path):
    found = Coordinator(tmp_path / "server")
    yield found
    found.close()


@pytest.fixture
def processes():
    found = Processes()
    yield found
    found.end()


@pytest.fixture
def home(coordinator, folder, tmp_path):
    for number in range(3):
        folder.malignant(f"SECRET-M{number}").benign(f"SECRET-B{number}")
    settings = {"device": "cpu", "threads": 1, "policy": POLICY, "cache": str(tmp_path / "cache")}
    return coordinator.enrol(tmp_path / "home", data=folder.write(), **settings)


def order(coordinator, plan):
    return {"plan": plan, "signature": coordinator.sign(plan)}


def test_a_site_answers_questions_and_trains_and_keeps_its_images(
    coordinator, home, processes, tiny_plan
):
    processes.module("node", home)
    worker = processes.module("worker", home)
    wait_for_state(home, "online")
    orders = order(coordinator, tiny_plan)
    reply = coordinator.ask("query", pack(Query(**orders)))
    assert unpack_body(reply.content, SiteDescription).site == "here"
    state = state_of(build_network(tiny_plan.network, 0))
    task = TrainTask(**orders, stage=Stage.FINETUNING, server_round=1)
    started = time.monotonic()
    reply = coordinator.ask("train", pack(task, state))
    seconds = time.monotonic() - started
    update = unpack_update(reply.content, state)
    assert state_sha256(update.state) != state_sha256(state)
    assert "SECRET" not in str(reply.content)
    assert read_status(home).worker_pid == worker.pid
    wait_for(lambda: read_status(home).task is None)
    print(f"a train exchange took {seconds:.2f} s")


CODE = """
from pathlib import Path
Path({marker!r}).touch()
"""


def test_a_bundle_with_foreign_code_is_refused_and_never_unpacked(
    coordinator, home, processes, tiny_plan, tmp_path, monkeypatch
):
    import hashlib

    marker = tmp_path / "code-ran"
    code = CODE.format(marker=str(marker)).encode()
    fab, _ = build_fab_from_files(
        {"pyproject.toml": PYPROJECT, "mamfed_client/node/client_app.py": code}
    )
    monkeypatch.setattr(superlink, "bundle", lambda: fab)
    for module in (superlink, node_rules):
        monkeypatch.setattr(module, "bundle_sha256", lambda: hashlib.sha256(fab).hexdigest())
    coordinator.restart()
    processes.module("node", home)
    worker = processes.module("worker", home)
    reply = coordinator.ask("query", pack(Query(**order(coordinator, tiny_plan))))
    assert reply.error.code == RefusalCode.OTHER_VERSION
    assert not marker.exists()
    assert not [path for path in (home.path / "flower").rglob("*") if path.suffix == ".py"]
    assert "not mamfed's" in worker.log.read_text()


def test_the_text_of_a_failure_stays_at_home(coordinator, home, processes, tiny_plan):
    processes.module("node", home)
    worker = processes.code(
        home,
        "import sys; from pathlib import Path; import logging; logging.basicConfig()\n"
        "from mamfed_client.site.settings import SiteHome\n"
        "from mamfed_client.node.executor import Progress, RequestHandler, Worker\n"
        "def app(message, context): raise ValueError('/data/SECRET^NAME/1.dcm')\n"
        f"home = SiteHome(Path({str(home.path)!r}))\n"
        "Worker(home, RequestHandler(app, lambda fault: fault), Progress(home)).run()",
    )
    reply = coordinator.ask("query", pack(Query(**order(coordinator, tiny_plan))))
    assert reply.error.code == RefusalCode.FAILED
    assert not reply.error.reason, "only the code travels"
    assert "SECRET" not in str(reply)
    assert "SECRET^NAME" in worker.log.read_text()


TWICE = """
import logging
from pathlib import Path
from mamfed_client.node import executor
from mamfed_client.node.flower_compat import RuntimeHttpClient, set_worker_arrival
from mamfed_client.site.settings import SiteHome
push, late = RuntimeHttpClient.PushObject, []
def push_again_once(client, request):
    answer = push(client, request)
    if not late:
        late.append(request)
        answer = push(client, request)
    return answer
RuntimeHttpClient.PushObject = push_again_once
logging.basicConfig()
set_worker_arrival(executor.ARRIVAL)
home = SiteHome(Path({home!r}))
progress = executor.Progress(home)
executor.Worker(home, executor.installed_handler(home, progress), progress).run()
"""


def test_a_part_that_the_node_got_twice_does_not_end_the_worker(
    coordinator, home, processes, tiny_plan
):
    """On a busy machine, Flower's client repeats a request whose answer comes late."""
    processes.module("node", home)
    worker = processes.code(home, TWICE.format(home=str(home.path)))
    reply = coordinator.ask("query", pack(Query(**order(coordinator, tiny_plan))))
    assert unpack_body(reply.content, SiteDescription).site == "here"
    wait_for(lambda: "it gets the answer again" in worker.log.read_text(), worker.log.read_text)
    coordinator.ask("query", pack(Query(**order(coordinator, tiny_plan))))
    assert "Traceback" not in worker.log.read_text()
    assert worker.poll() is None


LATE = """
import logging, time
from pathlib import Path
from mamfed_client.node.executor import Progress, RequestHandler, Worker
from mamfed_client.node.flower_compat import RuntimeHttpClient
from mamfed_client.site.settings import SiteHome
push = RuntimeHttpClient.PushObject
def push_late(client, request):
    time.sleep(1)
    return push(client, request)
RuntimeHttpClient.PushObject = push_late
logging.basicConfig()
def app(message, context):
    raise ValueError
home = SiteHome(Path({home!r}))
Worker(home, RequestHandler(app, lambda fault: fault), Progress(home)).run()
"""


def test_a_refusal_that_left_before_its_parts_came_does_not_hold_up_the_next_answer(
    coordinator, home, processes, tiny_plan
):
    """The coordinator needs no part of a refusal, so the node does not wait for any."""
    processes.module("node", home)
    processes.code(home, LATE.format(home=str(home.path)))
    for _ in range(3):
        reply = coordinator.ask("query", pack(Query(**order(coordinator, tiny_plan))))
        assert reply.error.code == RefusalCode.FAILED


def test_a_worker_without_a_node_waits_a_while_and_ends(home):
    worker = Worker(home, None, Progress(home))
    worker._patience_seconds = 0.3
    worker.run()
    (home.path / RUNTIME_FILE).write_text('{"port": 1, "secret": "00"}')
    worker.run()


def test_a_worker_with_a_wrong_secret_gets_no_task(coordinator, home, processes, tiny_plan):
    processes.module("node", home)
    wait_for_state(home, "online")
    runtime = (home.path / RUNTIME_FILE).read_text()
    (home.path / RUNTIME_FILE).write_text(runtime.replace('"secret": "', '"secret": "00'))
    worker = Worker(home, None, Progress(home))
    worker._patience_seconds = 0.3
    coordinator.transport.push(
        coordinator.node_id, "query", pack(Query(**order(coordinator, tiny_plan))), 600
    )
    wait_for_state(home, "training")
    worker.run()


@pytest.fixture
def running(home, processes):
    """``mamfed-client start`` in a process of its own."""
    process = processes.code(
        home,
        "import sys; from mamfed_client.cli.main import main\n"
        f"sys.argv = ['mamfed-client', 'start', '--home', {str(home.path)!r}]; main()",
    )
    wait_for_state(home, "online")
    return process


def test_a_site_whose_worker_is_killed_mid_training_is_back_by_itself(
    coordinator, home, running, tiny_plan
):
    endless = tiny_plan.finetuning.model_copy(update={"local_epochs": 10**6})
    plan = tiny_plan.model_copy(update={"finetuning": endless})
    state = state_of(build_network(plan.network, 0))
    task = TrainTask(**order(coordinator, plan), stage=Stage.FINETUNING, server_round=1)
    coordinator.transport.push(coordinator.node_id, "train", pack(task, state), 600)
    before = coordinator.transport.online()[coordinator.node_id]
    status = wait_for(lambda: (s := read_status(home)).task and s.task.steps > 2 and s)
    assert (status.task.stage, status.task.server_round) == ("finetuning", 1)
    assert status.worker_pid != running.pid == holder(home.lock).pid
    os.kill(status.worker_pid, signal.SIGKILL)
    wait_for(lambda: coordinator.transport.online().get(coordinator.node_id, before) != before)
    reply = coordinator.ask("query", pack(Query(**order(coordinator, tiny_plan))))
    assert unpack_body(reply.content, SiteDescription).site == "here"
    running.terminate()
    assert running.wait(25) == 0
    status = read_status(home)
    assert (status.state, status.supervisor_pid, status.worker_pid) == ("stopped", 0, 0)
    assert holder(home.lock) is None
    said = running.log.read_text()
    assert "online" in said
    assert "the worker process was killed" in said


def test_a_site_that_runs_already_is_not_started_twice(home, running, processes):
    second = processes.code(
        home,
        "import sys; from mamfed_client.cli.main import main\n"
        f"sys.argv = ['mamfed-client', 'start', '--home', {str(home.path)!r}]; main()",
    )
    assert second.wait(20) == 9
    assert f"process {running.pid}" in second.log.read_text()
    assert running.poll() is None


def test_exit_codes_of_the_processes_are_no_final_ones():
    from mamfed_client.node.supervisor import FINAL_CODES

    assert STARTS_OVER not in FINAL_CODES
