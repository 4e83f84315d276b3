"""A full disk in mid-run: the server waits inside the process and goes on by itself."""

import errno
import threading

import pytest
from tests.security.lib.small_disk import NoSmallDisk, empty, fill, small_disk
from tests.unit.server.sites import Sites, final, run

from mamfed_server.run.job import Job
from mamfed_server.run.requests import StopRequested
from mamfed_server.run.run import run_job
from mamfed_server.run_folder.event_log import read_events
from mamfed_server.run_folder.jsonl import append_line, read_lines
from mamfed_server.run_folder.room import WaitForRoom
from mamfed_simulations.federation.in_process import InProcessTransport


@pytest.fixture
def disk(tmp_path):
    try:
        with small_disk(tmp_path / "disk", 1024) as folder:
            yield folder
    except NoSmallDisk as error:
        pytest.skip(str(error))


def train(plan, disk, moments, **job):
    """Run a plan on a disk that is full from each of some events until 0.6 s later."""
    left = list(moments)

    def on_event(event):
        if left and (event["event"], event.get("server_round")) == left[0]:
            left.pop(0)
            fill(disk)
            threading.Timer(0.6, empty, [disk]).start()

    sites = Sites()
    run_job(
        Job(plan=plan, folder=disk / "run", num_nodes=3, on_event=on_event, **job),
        InProcessTransport(sites.app(), 3),
    )
    assert not left, f"never came: {left}"
    return sites


def test_a_run_waits_until_there_is_room_and_ends_with_the_same_bits(tmp_path, tiny_plan, disk):
    undisturbed = run(Sites(), tiny_plan, tmp_path / "run")
    sites = train(tiny_plan, disk, [("round", 1), ("round", 2), ("test", None)], room_seconds=0.1)
    folder = type(undisturbed)(disk / "run")
    assert final(folder) == final(undisturbed)
    assert len(folder.rounds()) == len(undisturbed.rounds())
    assert len(sites.trained) == 9, "each site trained each of the three rounds once"
    waits = [event for event in read_events(disk / "run") if event["event"] == "no room"]
    assert len(waits) >= 2
    assert all("No space left" in event["reason"] for event in waits)
    assert all(0.1 <= event["seconds"] < 5 for event in waits)


def test_without_patience_a_full_disk_ends_the_run(tiny_plan, disk):
    with pytest.raises(OSError, match="No space left"):
        train(tiny_plan, disk, [("round", 2)])


def test_a_line_that_found_no_room_leaves_nothing_behind(disk):
    path = disk / "log.jsonl"
    append_line(path, "whole")
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        append_line(path, "x" * 10_000)
    empty(disk)
    append_line(path, "next")
    assert read_lines(path) == ["whole", "next"]


def test_one_line_says_that_there_is_no_room(caplog):
    found, tries = [], iter([errno.EMFILE, errno.ENOSPC, errno.ENOMEM])

    def action():
        for number in tries:
            raise OSError(number, "busy", "runs/first/rounds.jsonl")
        return "done"

    room = WaitForRoom(0.01, lambda: None, lambda why, seconds: found.append(why))
    with caplog.at_level("WARNING"):
        assert room(action) == "done"
    (line,) = caplog.messages
    assert line.startswith("no room: runs/first/rounds.jsonl: busy")
    assert "trying again every" in line
    assert len(found) == 1


def test_a_request_to_stop_ends_the_wait_and_other_errors_are_not_waited_for():
    def stop():
        raise StopRequested("stop")

    def full():
        raise OSError(errno.ENOSPC, "full")

    def denied():
        raise PermissionError(errno.EACCES, "denied")

    room = WaitForRoom(60, stop, lambda why, seconds: None)
    with pytest.raises(StopRequested):
        room(full)
    with pytest.raises(PermissionError):
        room(denied)
