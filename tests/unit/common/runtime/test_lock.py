import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from mamfed_common.errors import OutputError, SetupError
from mamfed_common.runtime.lock import exclusive_lock, holder, short_lock, stop

HOLD = """
import sys
from pathlib import Path
from mamfed_common.runtime.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "a server"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_who_runs(tmp_path, other):
    message = rf"a server is already running here \(process {other.pid}, since 20"
    with pytest.raises(SetupError, match=message), exclusive_lock(tmp_path / "lock", "a server"):
        pytest.fail("held twice")


def test_a_kill_leaves_no_lock(tmp_path, other):
    other.kill()
    other.wait()
    with exclusive_lock(tmp_path / "lock", "a server"):
        assert holder(tmp_path / "lock").pid == os.getpid()
    assert holder(tmp_path / "lock") is None


def test_who_looks_turns_nobody_away(tmp_path):
    path = tmp_path / "lock"
    look = f"""
from pathlib import Path
from mamfed_common.runtime.lock import holder
print("looking", flush=True)
while True:
    holder(Path({str(path)!r}))
"""
    looker = subprocess.Popen([sys.executable, "-c", look], stdout=subprocess.PIPE)
    try:
        looker.stdout.readline()
        for _ in range(200):
            with exclusive_lock(path, "a server"):
                pass
    finally:
        looker.kill()
        looker.wait()
        looker.stdout.close()


def test_the_file_is_private_and_names_its_holder(tmp_path):
    with exclusive_lock(tmp_path / "lock", "a server"):
        assert holder(tmp_path / "lock")[:2] == (os.getpid(), socket.gethostname())
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(OutputError, match="lock: cannot be written"),
        exclusive_lock(tmp_path / "missing" / "lock", "a server"),
    ):
        pytest.fail("locked nothing")


def test_no_file_has_no_holder(tmp_path):
    assert holder(tmp_path / "lock") is None


def test_a_lock_file_of_mamfed_0_1_0_names_its_holder(tmp_path, other):
    (tmp_path / "lock").write_text("4711")
    assert holder(tmp_path / "lock").pid == 4711


def test_a_holder_elsewhere_is_named_with_its_machine(tmp_path, other):
    left = '{"pid": 12, "host": "another-machine", "started": "2026-11-29T10:00:00+00:00"}'
    (tmp_path / "lock").write_text(left)
    assert holder(tmp_path / "lock").words().startswith("process 12 on another-machine, since 2026")


def test_stop_ends_who_holds_the_lock(tmp_path, other):
    assert stop(tmp_path / "lock").pid == other.pid
    assert other.wait(10) != 0
    assert stop(tmp_path / "lock") is None


@pytest.mark.parametrize("host", ["", "another-machine"])
def test_stop_signals_no_process_that_it_has_not_verified(tmp_path, other, host):
    """The number in the file may be somebody else's by now, or of another machine."""
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    text = f'{{"pid": {bystander.pid}, "host": "{host}", "started": ""}}'
    (tmp_path / "lock").write_text(text)
    with pytest.raises(SetupError, match=f"process {bystander.pid}"):
        stop(tmp_path / "lock")
    assert bystander.poll() is None
    assert other.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks, as the system call says it."""

    def refuse(descriptor, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("take", [lambda path: exclusive_lock(path, "a server"), short_lock])
def test_a_file_system_without_locks_is_named(tmp_path, no_locks, take):
    with (
        pytest.raises(SetupError, match="lock: its file system does not support locks"),
        take(tmp_path / "lock"),
    ):
        pytest.fail("locked nothing")


def test_who_only_looks_is_not_stopped_by_missing_locks(tmp_path, no_locks):
    (tmp_path / "lock").touch()
    assert holder(tmp_path / "lock") is None


def test_a_lock_whose_file_goes_keeps_two_apart(tmp_path):
    """Many processes at once: what one of them removes is no other one's lock."""
    count = """
import sys
from pathlib import Path
from mamfed_common.errors import OutputError, SetupError
from mamfed_common.runtime.lock import exclusive_lock
folder = Path(sys.argv[1])
done = 0
while done < 60:
    try:
        with exclusive_lock(folder / "lock", "this", leaves_file=False):
            value = int((folder / "count").read_text())
            (folder / "count").write_text(str(value + 1))
            done += 1
    except SetupError:
        pass
"""
    (tmp_path / "count").write_text("0")
    started = [subprocess.Popen([sys.executable, "-c", count, tmp_path]) for _ in range(4)]
    assert [process.wait(120) for process in started] == [0] * 4
    assert (tmp_path / "count").read_text() == "240"
    assert not (tmp_path / "lock").exists()
