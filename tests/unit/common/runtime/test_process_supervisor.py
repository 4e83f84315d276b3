"""Real child processes: python -c, watched, killed, restarted."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mamfed_common.runtime import child_log, process_supervisor
from mamfed_common.runtime.lifeline import LIFELINE, ORPHANED, hold_lifeline
from mamfed_common.runtime.process_supervisor import Child, child_environment, supervise

WAIT_SECONDS = 20


@pytest.fixture
def child(tmp_path):
    def make(code: str, name: str = "child") -> Child:
        environment = child_environment(tmp_path / "flower")
        argv = (sys.executable, "-c", code)
        return Child(name, argv, tmp_path / "logs" / f"{name}.log", environment)

    return make


class Watched:
    """Supervision in a thread, which its changes can stop."""

    def __init__(self, *children: Child, together=False, stop_after=None, **settings):
        self.changes = []
        self.stopping = threading.Event()
        self.stop_after = stop_after
        self.code = None
        self.thread = threading.Thread(target=self._run, args=(children, together, settings))
        self.thread.start()

    def _run(self, children, together, settings):
        self.code = supervise(
            children,
            together=together,
            stopping=self.stopping,
            on_change=self._changed,
            **settings,
        )

    def _changed(self, change):
        self.changes.append(change)
        if self.stop_after and len(self.of("ended")) >= self.stop_after:
            self.stopping.set()

    def of(self, event):
        return [change for change in self.changes if change.event == event]

    def wait(self, until):
        deadline = time.monotonic() + WAIT_SECONDS
        while not until():
            assert time.monotonic() < deadline, self.changes
            time.sleep(0.02)

    def end(self):
        self.stopping.set()
        self.thread.join(WAIT_SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def short_delays(monkeypatch):
    monkeypatch.setattr(process_supervisor, "LONGEST_DELAY_SECONDS", 0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]


def test_a_child_that_dies_is_started_again_after_1_2_4_up_to_30_seconds(child, monkeypatch):
    clock = iter(range(0, 10**9, 31))  # each look at the clock is 31 s later: nothing is waited for
    monkeypatch.setattr(process_supervisor, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(process_supervisor, "GOOD_LIFE_SECONDS", 1e9)
    watched = Watched(child("raise SystemExit(3)"), stop_after=7)
    watched.thread.join(WAIT_SECONDS)
    assert [change.delay_seconds for change in watched.of("ended")] == [1, 2, 4, 8, 16, 30, 30]
    assert {change.code for change in watched.of("ended")} == {3}
    assert len({change.pid for change in watched.of("started")}) == 7


def test_a_good_life_makes_the_next_delay_short_again(child, monkeypatch):
    monkeypatch.setattr(process_supervisor, "GOOD_LIFE_SECONDS", 0.0)
    watched = Watched(child("raise SystemExit(3)"), stop_after=2)
    watched.thread.join(WAIT_SECONDS)
    assert [change.delay_seconds for change in watched.of("ended")] == [1, 1]


def test_an_exit_code_can_have_a_delay_of_its_own(child):
    watched = Watched(child("raise SystemExit(77)"), stop_after=1, delays={77: 60.0})
    watched.thread.join(WAIT_SECONDS)
    assert [change.delay_seconds for change in watched.of("ended")] == [60]


def test_a_final_code_ends_everything_with_that_code(child):
    other = child("import time; time.sleep(100)", "other")
    watched = Watched(child("raise SystemExit(9)"), other, final_codes={9, 10})
    watched.thread.join(WAIT_SECONDS)
    assert watched.code == 9
    assert [(c.name, c.code) for c in watched.of("stopped")] == [("other", -signal.SIGTERM)]


def test_code_0_is_final_only_where_it_is_said_to_be(child):
    watched = Watched(child("pass"), stop_after=1)
    watched.thread.join(WAIT_SECONDS)
    assert watched.of("ended")[0].delay_seconds == 1
    assert watched.code == 0


@pytest.mark.parametrize("together", [True, False])
def test_together_means_that_one_death_stops_and_restarts_all(child, short_delays, together):
    lasting, mortal = (child("import time; time.sleep(100)", name) for name in ("a", "b"))
    watched = Watched(lasting, mortal, together=together)
    watched.wait(lambda: len(watched.of("started")) == 2)
    first = {change.name: change.pid for change in watched.of("started")}
    os.kill(first["b"], signal.SIGKILL)
    watched.wait(lambda: len(watched.of("started")) == (4 if together else 3))
    assert is_alive(first["a"]) is not together
    watched.end()
    assert watched.of("ended")[0].code == -signal.SIGKILL


def test_a_child_aside_is_restarted_alone_and_its_end_is_never_final(child, short_delays):
    main = child("import time; time.sleep(60)", "main")
    page = replace(child("raise SystemExit(9)", "page"), aside=True)
    watched = Watched(main, page, together=True, stop_after=3, final_codes=[9])
    watched.thread.join(WAIT_SECONDS)
    assert watched.code == 0
    assert {change.name for change in watched.of("ended")} == {"page"}
    assert [change.name for change in watched.of("started")].count("main") == 1


def test_a_child_that_ignores_sigterm_is_killed_with_what_it_started(child, monkeypatch):
    monkeypatch.setattr(process_supervisor, "GRACEFUL_SECONDS", 0.2)
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        "print(p.pid, flush=True); time.sleep(100)"
    )
    stubborn = child(code)
    watched = Watched(stubborn)
    watched.wait(lambda: stubborn.log_path.exists() and stubborn.log_path.read_text().strip())
    grandchild = int(stubborn.log_path.read_text())
    watched.end()
    assert watched.of("stopped")[0].code == -signal.SIGKILL
    watched.wait(lambda: not is_alive(grandchild))


def test_logs_are_private_and_appended_and_rotated(child, monkeypatch, short_delays):
    monkeypatch.setattr(child_log, "LOG_BYTES", 300)
    talker = child("print('x' * 100)")
    watched = Watched(talker, stop_after=12)
    watched.thread.join(WAIT_SECONDS)
    logs = sorted(path.name for path in talker.log_path.parent.iterdir())
    assert logs == ["child.log", "child.log.1", "child.log.2"]
    for path in talker.log_path.parent.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_size <= 300
    assert talker.log_path.parent.stat().st_mode & 0o777 == 0o700


def test_children_write_private_files(child, tmp_path):
    watched = Watched(child(f"open({str(tmp_path / 'made')!r}, 'w')"), final_codes={0})
    watched.thread.join(WAIT_SECONDS)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600


def test_a_command_that_is_not_there_is_tried_again(child, tmp_path):
    missing = Child("gone", ("/no/such/program",), tmp_path / "log", {})
    watched = Watched(missing, stop_after=1)
    watched.thread.join(WAIT_SECONDS)
    (ended,) = watched.of("ended")
    assert ended.code == process_supervisor.NOT_STARTED
    assert ended.how == "could not be started: /no/such/program: No such file or directory"
    assert (tmp_path / "log").read_text().endswith(f" the gone process {ended.how}\n")


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed, probably by the system because memory"),
        ("import os; os.kill(os.getpid(), 7)", "was ended by signal 7 (Bus error)"),
        ("import os; os._exit(3)", "ended with code 3"),
        ("print('why', flush=True); raise SystemExit(3)", "ended with code 3"),
    ],
)
def test_a_log_says_how_its_child_ended_after_its_last_words(child, code, how):
    silent = child(code)
    watched = Watched(silent, stop_after=1)
    watched.thread.join(WAIT_SECONDS)
    *words, last = silent.log_path.read_text().splitlines()
    assert words == (["why"] if "why" in code else [])
    assert f" the child process {how}" in last
    assert watched.of("ended")[0].how in last


SUPERVISOR = """
import sys, threading
from pathlib import Path
from mamfed_common.runtime.process_supervisor import Child, child_environment, supervise
code = ("from mamfed_common.runtime.lifeline import hold_lifeline; hold_lifeline(); "
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN) if %r else None; "
        "print(os.getpid(), flush=True); time.sleep(100)" % ({stubborn},))
folder = Path({folder!r})
child = Child("c", (sys.executable, "-c", code), folder / "c.log", child_environment(folder / "f"))
raise SystemExit(supervise([child], together=True, stopping=threading.Event()))
"""


@pytest.fixture
def supervisor(tmp_path):
    """A supervisor in a process of its own; gives it and its child's process id."""
    started = []

    def start(stubborn=False):
        code = SUPERVISOR.format(folder=str(tmp_path), stubborn=stubborn)
        process = subprocess.Popen([sys.executable, "-c", code])
        started.append(process)
        deadline, log = time.monotonic() + WAIT_SECONDS, tmp_path / "c.log"
        while not (log.exists() and log.read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process, int(log.read_text())

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for_death(pid: int) -> bool:
    deadline = time.monotonic() + WAIT_SECONDS
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_a_supervisor_killed_by_sigkill_takes_even_a_stubborn_child_along(supervisor):
    process, pid = supervisor(stubborn=True)
    process.kill()
    assert wait_for_death(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_supervision_in_order_with_code_0(supervisor, number):
    process, pid = supervisor()
    process.send_signal(number)
    assert process.wait(WAIT_SECONDS) == 0
    assert not is_alive(pid)


def test_a_child_ends_by_its_own_code_when_the_lifeline_is_cut():
    read_end, write_end = os.pipe()
    code = (
        "from mamfed_common.runtime.lifeline import hold_lifeline\n"
        "import time; assert hold_lifeline(); print('ready', flush=True); time.sleep(100)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, LIFELINE: str(read_end)},
        pass_fds=(read_end,),
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    assert process.poll() is None
    os.close(write_end)
    assert process.wait(WAIT_SECONDS) == ORPHANED
    process.stdout.close()
    os.close(read_end)


def test_a_process_without_a_supervisor_has_no_lifeline(monkeypatch):
    monkeypatch.delenv(LIFELINE, raising=False)
    assert hold_lifeline() is False


def test_loopback_is_never_proxied_and_nothing_phones_home(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "example.org,localhost")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    environment = child_environment(tmp_path / "flower")
    assert environment["NO_PROXY"] == "example.org,localhost,127.0.0.1"
    assert environment["HTTPS_PROXY"] == "http://proxy.example.org:3128"
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_HOME"] == str(tmp_path / "flower")
    assert (tmp_path / "flower").stat().st_mode & 0o777 == 0o700


def test_flower_finds_no_id_of_this_machine_and_writes_none(tmp_path):
    environment = child_environment(tmp_path / "flower")
    code = (
        "from flwr.supercore.telemetry import EventType, create_event, state\n"
        "create_event(EventType.PING, None)\nprint(state['source'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "invalid"
    source = tmp_path / "flower/source"
    assert (source.read_text(), source.stat().st_mode & 0o777) == ("off", 0o600)


def test_a_child_shown_in_an_error_does_not_show_its_environment(child, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "do-not-show")
    assert "do-not-show" not in repr(child("pass"))
