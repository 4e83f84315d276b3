"""Every process that mamfed starts: its own modules, its own folder, no stream of the terminal."""

import os
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from mamfed_common.runtime.child_processes import (
    ask_process,
    last_line,
    module_command,
    start_process,
)

SHOW = "import calendar, os, sys; print(calendar.__file__); print(os.getcwd()); print(sys.path[0])"


def said_by(*argv, **options):
    process = start_process(argv, env=os.environ, stdout=subprocess.PIPE, **options)
    with process.stdout:
        lines = process.stdout.read().decode().splitlines()
    assert process.wait(30) == 0
    return lines


@pytest.fixture
def in_the_way(tmp_path, monkeypatch):
    """The folder in which the command was started holds somebody's calendar.py."""
    (tmp_path / "calendar.py").write_text("raise SystemExit('was run')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_module_of_the_current_folder_is_imported(in_the_way):
    found, folder, _ = said_by(sys.executable, "-c", SHOW, folder=in_the_way)
    assert Path(found).parent != in_the_way
    assert folder == str(in_the_way)


def test_nor_by_what_the_child_starts(in_the_way):
    again = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SHOW!r}], check=True)"
    found, *_ = said_by(sys.executable, "-c", again, folder=in_the_way)
    assert Path(found).parent != in_the_way


def test_it_does_not_stay_in_the_folder_where_the_command_was_started(in_the_way):
    assert said_by(sys.executable, "-c", SHOW)[1] == "/"


def test_a_module_is_run_by_its_name():
    assert said_by(*module_command("platform"))


def test_one_place_starts_processes():
    """Who starts one another way gets none of this."""
    roots = Path(__file__).parents[4]
    found = [
        path.relative_to(roots).as_posix()
        for role in ("common", "client", "server", "simulations")
        for path in sorted((roots / role).rglob("*.py"))
        if "subprocess.Popen(" in (text := path.read_text()) or "subprocess.run(" in text
    ]
    assert found == ["common/mamfed_common/runtime/child_processes.py"]


def test_it_reads_what_it_is_given():
    done = ask_process(("/bin/cat",), 30, text="für Anna\n")
    assert (done.returncode, done.stdout) == (0, "für Anna\n")


def test_without_a_text_it_reads_nothing():
    assert ask_process(("/bin/cat",), 30).stdout == ""


def test_one_that_reads_nothing_of_a_long_text_is_no_error():
    assert ask_process(("/bin/true",), 30, text="x" * 1_000_000).returncode == 0


def test_who_is_not_heard_may_leave_a_child_behind():
    """A command that tells in the background is not waited for."""
    begun = monotonic()
    done = ask_process(("/bin/sh", "-c", "echo said; sleep 20 &"), 15, is_heard=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert monotonic() - begun < 10


def test_one_that_takes_too_long_is_killed_with_its_children(tmp_path):
    words = f"sleep 60 & echo $! >{tmp_path}/pid; wait"
    with pytest.raises(subprocess.TimeoutExpired):
        ask_process(("/bin/sh", "-c", words), 1, text="x", is_heard=False)
    child, until = int((tmp_path / "pid").read_text()), monotonic() + 10
    while Path(f"/proc/{child}/stat").exists() and _state(child) not in "ZX":
        assert monotonic() < until
        sleep(0.05)


def _state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("", ""),
        (" \n\n", ""),
        ("first\n  error: it is full \n\n", "it is full"),
        ("x" * 5000, "x" * 1000),
    ],
)
def test_the_last_line_of_what_a_process_said(said, line):
    assert last_line(said) == line
