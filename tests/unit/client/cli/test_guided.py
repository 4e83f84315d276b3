"""``init --guided`` asks six questions at a real terminal, and refuses where there is none."""

import os
import pty
import subprocess
import sys

from tests.unit.client.homes import run_client

from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.security.enrolment import read_request


def answered(folder, *lines):
    """Answer the command at a pseudo-terminal; return its exit code and what it showed."""
    ours, theirs = pty.openpty()
    code = "from mamfed_client.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "init", str(folder), "--guided"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, "".join(f"{line}\n" for line in lines).encode())
    shown = process.communicate(timeout=120)[0].decode()
    os.close(ours)
    return process.returncode, shown


def test_six_answers_make_a_home_and_wrong_ones_are_asked_again(tmp_path):
    home, images = SiteHome(tmp_path / "home"), tmp_path / "images"
    images.mkdir()
    code, shown = answered(
        home.path, "nörth side", "north", tmp_path / "missing", images, "y", "n", "Ada, 12", "y"
    )
    assert code == 0, shown
    settings = load_site_settings(home)
    assert settings.name == "north"
    assert [(d.name, d.folder) for d in settings.data] == [("north", images)]
    assert settings.policy.release.arrays == ("*",)
    assert "dice" not in settings.policy.release.metrics
    assert read_request(home.request).contact == "Ada, 12"
    assert "try north-side" in shown
    assert "no such folder" in shown
    assert "# This site's name in the federation" in shown


def test_the_defaults_let_nothing_leave_and_a_last_no_creates_nothing(tmp_path):
    code, shown = answered(tmp_path / "home", "north", tmp_path, "", "", "Ada", "n")
    assert code == 1
    assert "not confirmed, so nothing was created" in shown
    assert "arrays: []" in shown
    assert not (tmp_path / "home").exists()


def test_without_a_terminal_it_refuses_in_one_line(tmp_path):
    done = run_client("init", tmp_path / "home", "--guided")
    assert done.exception.exit_code == 9
    assert "there is no terminal to answer" in str(done.exception)
    assert not (tmp_path / "home").exists()


def test_the_options_are_still_needed_without_it(tmp_path):
    done = run_client("init", tmp_path / "home", "--name", "a")
    assert done.exit_code == 2
    assert "--data" in done.output
