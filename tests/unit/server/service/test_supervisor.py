"""``mamfed-server start`` where it cannot listen, and where it is stopped before it began."""

import socket
import threading

import pytest
from rich.console import Console
from tests.processes.phantoms import small_plan
from typer.testing import CliRunner

from mamfed_common.errors import LinkError, OutputError
from mamfed_common.runtime.process_supervisor import Change
from mamfed_server.cli.main import app
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.service import supervisor
from mamfed_server.settings import ServerHome

NOT_OF_THIS_MACHINE = "192.0.2.1"
"""RFC 5737: an address for documents."""


def make_home(folder, bind, port):
    options = ["--host", "localhost", "--bind", bind, "--port", str(port)]
    assert CliRunner().invoke(app, ["init", str(folder), "--name", "N", *options]).exit_code == 0
    return ServerHome(folder)


def refusal(home):
    """Return why a run is not started."""
    with pytest.raises(LinkError) as refused:
        supervisor.run_server(home, small_plan(), "run", Console(quiet=True))
    assert not (home.runs / "run").exists()
    return str(refused.value)


def test_a_port_that_is_taken_ends_the_start_at_once_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "PORT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refusal(make_home(tmp_path, "127.0.0.1", port)) == (
            f"cannot listen on 127.0.0.1:{port}; is another server running? "
            "(Address already in use)"
        )


def test_an_address_of_another_machine_is_named(tmp_path):
    found = refusal(make_home(tmp_path, NOT_OF_THIS_MACHINE, 9443))
    assert found.startswith(f"cannot listen on {NOT_OF_THIS_MACHINE}:9443; ")
    assert found.endswith("(Cannot assign requested address)")


def test_a_run_that_was_stopped_before_its_start_says_how_it_goes_on(tmp_path):
    folder = RunFolder(tmp_path / "first")
    folder.create(small_plan())
    supervisor._log_end(folder, 0, gave_up=False)
    words = supervisor._final_line(folder, 0)
    assert words == "stopped; 0 of 3 rounds done; to resume it: mamfed-server resume first"


def test_an_end_for_lack_of_room_is_not_counted_as_a_crash(tmp_path):
    folder, stopping = RunFolder(tmp_path / "first"), threading.Event()
    folder.create(small_plan())
    crashes = supervisor._CrashCounter(folder, tmp_path, Console(quiet=True), stopping)

    def end(code):
        crashes.on_change(Change("server", "ended", 1, code, 30.0, "ended"))

    for _ in range(3 * supervisor.MAX_CRASHES):
        end(OutputError.exit_code)
    assert not stopping.is_set()
    for _ in range(supervisor.MAX_CRASHES):
        end(1)
    assert stopping.is_set()
    assert crashes.code == 7
