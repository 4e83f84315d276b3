"""``init --guided`` asks six questions at a real terminal, and refuses where there is none."""

import os
import pty
import subprocess
import sys

from typer.testing import CliRunner

from mamfed_server.cli.main import app
from mamfed_server.settings import ServerHome, load_settings


def answered(folder, *lines):
    """Answer the command at a pseudo-terminal; return its exit code and what it showed."""
    ours, theirs = pty.openpty()
    code = "from mamfed_server.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "init", str(folder), "--guided"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, "".join(f"{line}\n" for line in lines).encode())
    shown = process.communicate(timeout=120)[0].decode()
    os.close(ours)
    return process.returncode, shown


def test_six_answers_make_a_home_and_a_wrong_one_is_asked_again(tmp_path):
    home = ServerHome(tmp_path / "home")
    code, shown = answered(
        home.path, "North", "no/host", "localhost 192.0.2.1", "99999", "9555", "127.0.0.1",
        "Ada, 12", "y",
    )  # fmt: skip
    assert code == 0, shown
    settings = load_settings(home)
    assert (settings.name, settings.hosts) == ("North", ("localhost", "192.0.2.1"))
    assert (settings.port, settings.bind, settings.contact) == (9555, "127.0.0.1", "Ada, 12")
    assert "found 'no/host', expected a host name" in shown
    assert "port: found '99999', expected 65535 at most" in shown
    assert "# Port of this machine (127.0.0.1) at which Prometheus reads metrics" in shown


def test_a_last_no_creates_nothing(tmp_path):
    code, shown = answered(tmp_path / "home", "North", "localhost", "", "", "Ada", "n")
    assert code == 1
    assert "not confirmed, so nothing was created" in shown
    assert not (tmp_path / "home").exists()


def test_without_a_terminal_it_refuses_in_one_line(tmp_path):
    done = CliRunner().invoke(app, ["init", str(tmp_path / "home"), "--guided"])
    assert done.exception.exit_code == 9
    assert "there is no terminal to answer" in str(done.exception)
    assert not (tmp_path / "home").exists()


def test_the_options_are_still_needed_without_it(tmp_path):
    done = CliRunner().invoke(app, ["init", str(tmp_path / "home"), "--host", "localhost"])
    assert done.exit_code == 2
    assert "--name" in done.output
