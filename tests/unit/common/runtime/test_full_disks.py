"""Disks that are full, gone or too small are named by file and cause, before any work."""

import errno
import io
import os
import shutil
import subprocess
from contextlib import suppress

import pytest
from tests.processes.phantoms import small_plan

from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import read_status, update_status
from mamfed_common.errors import OutputError
from mamfed_common.runtime.child_log import ChildLog
from mamfed_common.runtime.files import ADVICE, os_error_line, refusal_words, write_atomic
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_common.runtime.output_checks import check_room
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.run_folder.jsonl import append_line
from mamfed_server.service.status_file import StatusFile, read_status_file


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only the superuser can mount a small disk, and not in every container")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk):
    with (disk / "full").open("wb", 0) as handle, suppress(OSError):
        while True:
            handle.write(bytes(4096))


def test_a_full_disk_is_named_with_the_file_and_what_was_there_stays(small_disk):
    (small_disk / "plan.yaml").write_text("old")
    fill(small_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(small_disk / "plan.yaml", "x" * 10_000)
    path = small_disk / "plan.yaml"
    assert os_error_line(caught.value) == (
        f"{path}: No space left on device; free some, or choose another folder"
    )
    assert path.read_text() == "old"
    assert {p.name for p in small_disk.iterdir()} == {"plan.yaml", "full"}
    with pytest.raises(OSError, match="No space left") as caught:
        append_line(small_disk / "events.jsonl", "x" * 10_000)
    assert caught.value.filename == str(small_disk / "events.jsonl")


def test_a_lock_that_a_full_disk_does_not_take_is_named(small_disk):
    fill(small_disk)
    with (
        pytest.raises(OSError, match="No space left") as caught,
        exclusive_lock(small_disk / "lock", "it"),
    ):
        pass
    assert caught.value.filename == str(small_disk / "lock")


def test_what_a_full_disk_does_not_take_of_a_log_is_said_elsewhere_and_once_why(small_disk, capsys):
    log = ChildLog(small_disk / "logs" / "worker.log")
    fill(small_disk)
    log.copy(io.BytesIO(b"first\nsecond\n"))
    log.note("the worker process was killed")
    why, *lines = capsys.readouterr().err.splitlines()
    assert why == (
        f"{log.baseFilename}: No space left on device; free some, or choose another folder; "
        "its lines:"
    )
    assert [line.split(" ", 2)[-1] for line in lines] == [
        "first", "second", "the worker process was killed",
    ]  # fmt: skip
    (small_disk / "full").unlink()
    log.copy(io.BytesIO(b"third\n"))
    log.close()
    assert (small_disk / "logs" / "worker.log").read_text().endswith("third\n")
    assert capsys.readouterr().err == ""


def test_a_status_that_a_full_disk_does_not_take_is_warned_of_and_the_work_goes_on(
    small_disk, caplog
):
    home, board = SiteHome(small_disk), StatusFile(small_disk)
    update_status(home, state="connecting")
    before = home.status.read_text()
    fill(small_disk)
    update_status(home, error="x" * 10_000)
    board.set(state="y" * 10_000)
    board.set(state="z" * 10_000)
    why = f"{home.status}: No space left on device; free some, or choose another folder"
    assert caplog.messages == [f"cannot write the status: {why}"] * 2
    assert home.status.read_text() == before
    (small_disk / "full").unlink()
    update_status(home, state="online")
    assert read_status(home).state == "online"
    board.set(state="running")
    assert read_status_file(small_disk)["state"] == "running"


def test_a_run_whose_checkpoints_have_no_room_is_refused_and_leaves_no_folder(small_disk):
    plan = small_plan().changed(network={"channels": (16, 32, 64), "stem": 1})
    with pytest.raises(OutputError) as caught:
        RunFolder(small_disk / "runs" / "first").create(plan)
    assert str(small_disk / "runs") in str(caught.value)
    assert "MB left" in str(caught.value)
    assert not (small_disk / "runs" / "first").exists()


def test_a_full_disk_refuses_a_run_and_moves_no_earlier_one(small_disk, tmp_path):
    folder = RunFolder(small_disk / "first")
    (small_disk / "first" / "checkpoints").mkdir(parents=True)
    (small_disk / "first" / "plan.yaml").write_text(small_plan().to_yaml())
    fill(small_disk)
    with pytest.raises(OutputError, match="No space left on device; free some"):
        folder.create(small_plan())
    assert folder.holds_run()
    assert not (small_disk / "first.1").exists()


def test_room_enough_is_enough(tmp_path):
    check_room(tmp_path, 1000)
    assert list(tmp_path.iterdir()) == []
    RunFolder(tmp_path / "runs" / "first").create(small_plan())


def test_a_disk_that_says_no_size_is_taken_at_its_word(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    check_room(tmp_path, 10**15)


@pytest.mark.parametrize("number", ADVICE)
def test_every_refusal_says_what_to_do(number):
    error = OSError(number, os.strerror(number), "/home/site/audit.jsonl")
    words = refusal_words(error)
    assert words.startswith(os.strerror(number) + "; ")
    assert os_error_line(error) == f"/home/site/audit.jsonl: {words}"


def test_a_stale_handle_is_the_shares(tmp_path):
    error = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    assert "mount it again" in refusal_words(error)


def test_a_line_of_which_a_full_disk_takes_a_part_is_an_error_and_the_next_is_whole(small_disk):
    path = small_disk / "events.jsonl"
    append_line(path, '"first"')
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        append_line(path, '"' + "x" * 5000 + '"')
    (small_disk / "full").unlink()
    append_line(path, '"third"')
    lines = path.read_text().splitlines()
    assert (lines[0], lines[-1]) == ('"first"', '"third"')
