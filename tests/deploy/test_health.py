"""``status --health`` of a site and of a coordinator: one word, one exit code."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mamfed_client.cli.main import app as client
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import RecentRefusal, RunEnding, Status
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_server.cli.main import app as server
from mamfed_server.service.status_file import STATUS
from mamfed_server.settings import ServerHome

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"


@pytest.fixture
def home(tmp_path):
    for name in ("server.yaml", "site.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    return tmp_path


def health(app, home):
    found = CliRunner().invoke(app, ["status", "--health", "--home", str(home)])
    return found.exit_code, found.stdout.strip()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("online", (0, "working")),
        ("training", (0, "working")),
        ("connecting", (20, "waiting")),
        ("stopped", (20, "waiting")),
        ("refused", (21, "refused")),
        ("unreachable", (22, "unreachable")),
    ],
)
def test_a_site_that_runs(home, state, expected):
    SiteHome(home).status.write_text(Status(state=state).model_dump_json())
    with exclusive_lock(SiteHome(home).lock, "this site"):
        assert health(client, home) == expected


REFUSAL = RecentRefusal(fault=103, words="min_sites is 2")
WAITS = RecentRefusal(fault=102, words="not approved yet", passing=True)
ENDED = RunEnding(run="first", how="finished")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status(state="online", refusal=REFUSAL), (21, "refused")),
        (Status(state="training", refusal=REFUSAL), (21, "refused")),
        (Status(state="online", refusal=WAITS), (20, "waiting")),
        (Status(state="unreachable", refusal=REFUSAL), (22, "unreachable")),
        (Status(state="unreachable", ended=ENDED), (20, "waiting")),
        (Status(state="online", ended=ENDED), (0, "working")),
    ],
)
def test_a_site_that_refuses_or_whose_run_has_ended(home, status, expected):
    SiteHome(home).status.write_text(status.model_dump_json())
    with exclusive_lock(SiteHome(home).lock, "this site"):
        assert health(client, home) == expected


@pytest.mark.parametrize("app", [client, server])
def test_what_does_not_run(home, app):
    """Whatever a kill has left in its status."""
    SiteHome(home).status.write_text(Status(state="online").model_dump_json())
    assert health(app, home) == (23, "not running")


@pytest.mark.parametrize(
    ("event", "expected"),
    [(None, (20, "waiting")), ("waiting", (20, "waiting")), ("round", (0, "working"))],
)
def test_a_coordinator_that_runs(home, event, expected):
    board = {} if event is None else {"phase": event, "last_event": {"event": "came"}}
    (home / STATUS).write_text(json.dumps(board))
    with exclusive_lock(ServerHome(home).lock, "a server"):
        assert health(server, home) == expected
