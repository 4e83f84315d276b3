"""Two processes of one site's identity are noticed, once; a site that starts again is not two."""

import json

import pytest
from tests.processes.phantoms import small_plan
from typer.testing import CliRunner

from mamfed_client.site import identity
from mamfed_client.site.settings import SiteHome
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_server.admission.approval import approve
from mamfed_server.cli.main import app
from mamfed_server.fleet.duplicate_sites import MAX_INSTANCES, WINDOW_SECONDS, DuplicateSites
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.settings import ServerHome

A, B = b"a" * 16, b"b" * 16


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def noticed():
    return []


@pytest.fixture
def twins(noticed, clock):
    return DuplicateSites(noticed.append, clock)


def send(twins, *instances):
    for instance in instances:
        twins.seen("north", instance, "10.0.0.1" if instance == A else "10.0.0.2")


def test_two_that_take_turns_are_noticed_once_with_both_addresses(twins, noticed):
    send(twins, A, A, B, B, A)
    assert noticed == []
    send(twins, B)
    assert noticed == ["north"]
    assert twins.now()["north"]["addresses"] == ["10.0.0.1", "10.0.0.2"]
    send(twins, A, B, A, B)
    assert noticed == ["north"]


def test_a_site_that_starts_again_and_again_is_one(twins, noticed):
    send(twins, *(f"{number:016x}".encode() for number in range(100)))
    assert noticed == []
    assert twins.now() == {}
    assert len(twins._sites["north"].order) == len(twins._sites["north"].addresses) == MAX_INSTANCES


def test_the_last_request_of_a_process_that_has_ended_may_come_late(twins, noticed):
    send(twins, A, B, A)
    assert noticed == []
    assert twins.now() == {}


def test_returns_that_lie_far_apart_are_none(twins, noticed, clock):
    send(twins, A, B, A)
    clock.now += WINDOW_SECONDS
    send(twins, B)
    assert noticed == []


def test_when_one_was_stopped_there_is_one_again_and_a_second_time_is_said_again(
    twins, noticed, clock
):
    send(twins, A, B, A, B)
    clock.now += WINDOW_SECONDS
    assert twins.now() == {}
    send(twins, B)
    send(twins, A, B)
    assert noticed == ["north", "north"]


def test_sites_are_apart_and_a_site_of_an_older_version_says_nothing(twins, noticed):
    for instance in (A, B, A, B):
        twins.seen("one" if instance == A else "two", instance, "10.0.0.1")
    for instance in (b"", b"x" * 16, b"", b"x" * 16):
        twins.seen("old", instance, "10.0.0.1")
    assert noticed == []


def test_status_says_it_in_words(tmp_path):
    home, runner = ServerHome(tmp_path / "home"), CliRunner()
    made = runner.invoke(app, ["init", str(home.path), "--name", "N", "--host", "localhost"])
    assert made.exit_code == 0
    site = SiteHome(tmp_path / "site")
    identity.make_keys(site)
    approve(home, identity.build_request(site, "north", ""))
    RunFolder(home.runs / "first").create(small_plan())
    found = {"since": "2026-11-29T12:00:00+00:00", "addresses": ["10.0.0.1", "10.0.0.2"]}
    (home.path / "status.json").write_text(json.dumps({"run": "first", "twins": {"north": found}}))
    with exclusive_lock(home.lock, "a server"):
        said = runner.invoke(app, ["status", "--home", str(home.path)]).stdout
    assert "warning: north answers from two processes at once with one identity" in said
    assert "(since 2026-11-29T12:00:00+00:00, from 10.0.0.1, 10.0.0.2)" in said
    said = runner.invoke(app, ["status", "--home", str(home.path)]).stdout
    assert "two processes" not in said  # nobody listens any more
