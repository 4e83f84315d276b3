"""What mamfed 0.1.0 wrote is read today, or named in one line."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mamfed_client.cli.main import app as client
from mamfed_common.errors import DataError, MamfedError, OutputError, SetupError
from mamfed_common.plan import read_plan
from mamfed_server.cli.main import app as server
from mamfed_server.run.resume import load_last_good, reopen
from mamfed_server.run.run_choice import describe, warn_of_older
from mamfed_server.run_folder.folder import SUMMARY, RunFolder

WRITTEN = Path(__file__).parent / "data" / "0.1.0"
CHECKPOINT = "server/runs/first/checkpoints/best.safetensors"
PLAN_OF_THEN, PLAN_OF_NOW = "7a1e859c8c34", "f103e4c1c009"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A copy with the modes that mamfed gives."""
    folder = tmp_path_factory.mktemp("old") / "0.1.0"
    shutil.copytree(WRITTEN, folder)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


def said_by(app, *argv):
    """Run a command that only reads; return what it said."""
    result = CliRunner().invoke(app, [str(part) for part in argv])
    assert result.exit_code == 0, result.output or result.exception
    return result.output


def refused_by(app, *argv):
    """Return the one line that a command ends with."""
    error = CliRunner().invoke(app, [str(part) for part in argv]).exception
    assert isinstance(error, MamfedError)
    assert "\n" not in str(error)
    return error


class TestCoordinator:
    def test_its_home_is_read(self, old):
        home = ("--home", old / "server")
        assert said_by(server, "status", *home).startswith("run first: finished\n")
        sites = said_by(server, "sites", "list", *home)
        assert [line.split()[:2] for line in sites.splitlines()] == [
            ["aurora", "active"],
            ["borealis", "active"],
        ]

    def test_runs_counts_its_rounds_and_names_its_own_plan(self, old):
        line = said_by(server, "runs", "--home", old / "server")
        assert line == f"first: finished, 3 of 3 rounds, plan {PLAN_OF_THEN}\n"

    @pytest.mark.parametrize("run", ["server/runs/first", "simulated"])
    def test_show_and_report_tell_of_all_rounds(self, old, run, tmp_path):
        shown = said_by(server, "show", old / run)
        assert [line.split(",")[0] for line in shown.splitlines() if " of 2 sites" in line] == [
            "  pretraining 1: 2 of 2 sites",
            "  finetuning 1: 2 of 2 sites",
            "  finetuning 2: 2 of 2 sites",
        ]
        report = said_by(server, "report", old / run, "--out", tmp_path / "report.html")
        assert "6 of 6 updates accepted (3 rounds)." in report

    def test_export_hands_on_its_result(self, old, tmp_path):
        said_by(server, "export", "first", "--home", old / "server", "--out", tmp_path / "out")
        rounds = (tmp_path / "out" / "rounds.jsonl").read_bytes()
        assert rounds == (old / "server/runs/first/rounds.jsonl").read_bytes()

    def test_its_plan_is_a_plan(self, old):
        assert f"is valid, plan {PLAN_OF_NOW}" in said_by(server, "check", old / "plan.yaml")


class TestUnfinishedRun:
    @pytest.fixture
    def folder(self, old, tmp_path):
        folder = RunFolder(tmp_path / "first")
        shutil.copytree(old / "server/runs/first", folder.path)
        (folder.path / SUMMARY).unlink()
        return folder

    def test_it_goes_on_and_one_line_says_what_its_plan_did_not_know(self, folder):
        plan = read_plan(folder.path / "plan.yaml")
        assert describe(folder, plan).startswith("run first resumes, 3 of 3 rounds done")
        (line,) = warn_of_older(folder)
        assert line.startswith("warning: run first was started by an older mamfed; ")
        assert "federation.weights sqrt, federation.max_share 0.5" in line

    def test_its_rounds_are_kept_when_it_goes_on(self, folder):
        before = len(folder.rounds())
        resumed = reopen(folder, read_plan(folder.path / "plan.yaml"))
        assert resumed.done == before == len(folder.rounds()) == 3
        assert resumed.redone == []
        assert load_last_good(folder)[1] == []

    def test_a_run_of_today_says_nothing(self, tiny_plan, tmp_path):
        folder = RunFolder(tmp_path / "today")
        folder.create(tiny_plan)
        assert warn_of_older(folder) == []


class TestSite:
    def test_its_home_is_read(self, old):
        home = ("--home", old / "site")
        status = said_by(client, "status", *home)
        assert status.startswith("site aurora: not running\n")
        assert "audit: 7 lines" in status
        assert said_by(client, "audit", "verify", *home).startswith("intact: 7 lines")
        assert "7 messages left this site" in said_by(client, "audit", "report", *home)
        assert said_by(client, "models", "list", *home).startswith("no model yet")

    def test_the_plan_that_it_kept_is_named_in_one_line(self, old):
        home = ("--home", old / "site")
        for command in (["status"], ["plan", "list"]):
            said = said_by(client, *command, *home)
            (warning,) = [line for line in said.splitlines() if line.startswith("warning: ")]
            assert PLAN_OF_THEN in warning
            assert "another version of mamfed may have stored it" in warning
        error = refused_by(client, "plan", "show", *home)
        assert isinstance(error, SetupError)
        assert "another version of mamfed may have stored it" in str(error)


class TestData:
    def test_its_checkpoint_gives_the_same_figures(self, old, tmp_path):
        out = tmp_path / "evaluation.json"
        data = ("--checkpoint", old / CHECKPOINT, "--data", old / "images-and-labels")
        said_by(client, "evaluate", *data, "--out", out)
        now, then = json.loads(out.read_text()), json.loads((old / out.name).read_text())
        assert now["mean_dice"] == pytest.approx(then["mean_dice"], abs=1e-4)
        assert now["intervals"].keys() == then["intervals"].keys()
        assert now["weights_sha256"] == then["weights_sha256"]

    def test_its_checkpoint_predicts(self, old, tmp_path):
        images = old / "images-and-labels" / "images"
        options = ("--checkpoint", old / CHECKPOINT, "--out", tmp_path / "new")
        assert "3 predicted now" in said_by(client, "predict", images, *options)

    def test_its_predictions_are_not_mixed_with_those_of_today(self, old):
        images = old / "images-and-labels" / "images"
        before = {path: path.stat().st_mtime_ns for path in (old / "predictions").rglob("*")}
        options = ("--checkpoint", old / CHECKPOINT, "--out", old / "predictions")
        error = refused_by(client, "predict", images, *options)
        assert isinstance(error, OutputError)
        assert "name a new folder" in str(error)
        after = {path: path.stat().st_mtime_ns for path in (old / "predictions").rglob("*")}
        assert after == before

    def test_a_prepared_folder_is_to_be_prepared_again(self, old, tmp_path):
        data = ("--checkpoint", old / CHECKPOINT, "--data", old / "prepared")
        error = refused_by(client, "evaluate", *data, "--out", tmp_path / "e.json")
        assert isinstance(error, DataError)
        assert "written by another version of mamfed; prepare the folder again" in str(error)
