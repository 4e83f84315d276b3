import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mamfed_common.errors import OutputError, PlanError, RunError, SetupError
from mamfed_common.plan import parse_plan
from mamfed_server.cli.main import app

runner = CliRunner()


def test_check_prints_the_whole_plan_and_its_hash(tmp_path):
    (tmp_path / "plan.yaml").write_text("image_size: 64\n")
    result = runner.invoke(app, ["check", str(tmp_path / "plan.yaml"), "--whole"])
    plan = parse_plan(result.stdout, "stdout")
    assert plan.image_size == 64
    assert f"# plan_sha256: {plan.sha256()}" in result.stdout


def test_check_as_json(tmp_path):
    (tmp_path / "plan.yaml").write_text("image_size: 64\n")
    result = runner.invoke(app, ["check", str(tmp_path / "plan.yaml"), "--format", "json"])
    assert json.loads(result.stdout)["plan"]["image_size"] == 64


def test_check_refuses_an_unknown_key(tmp_path):
    (tmp_path / "plan.yaml").write_text("epochs: 64\n")
    result = runner.invoke(app, ["check", str(tmp_path / "plan.yaml")])
    assert isinstance(result.exception, PlanError)


def test_show_of_no_run_names_the_folder(tmp_path):
    result = runner.invoke(app, ["show", str(tmp_path)])
    assert isinstance(result.exception, RunError)
    assert str(tmp_path) in str(result.exception)


@pytest.mark.parametrize("command", ["server", "client", "simulate"])
def test_version_and_help_answer_without_heavy_imports(command):
    module = {"simulate": "mamfed_simulations"}.get(command, f"mamfed_{command}")
    code = (
        f"import sys; from {module}.cli.main import app; app(['--help'], standalone_mode=False);"
        "print([m for m in ('torch', 'flwr', 'pydicom', 'monai') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_a_mistake_is_one_line_and_an_exit_code(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("epochs: 64\n")
    code = "from mamfed_server.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "check", str(plan)], capture_output=True, text=True
    )
    assert result.returncode == PlanError.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "unknown key 'epochs'" in result.stderr


def test_a_file_in_the_place_of_a_home_is_one_line_and_an_exit_code(tmp_path):
    home = tmp_path / "home"
    home.write_text("")
    code = "from mamfed_server.cli.main import main; main()"
    options = ["init", str(home), "--name", "North", "--host", "localhost"]
    result = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)
    assert result.returncode == OutputError.exit_code == 8
    advice = "a folder was expected; choose another folder"
    assert result.stderr == f"error: {home}: File exists; {advice}\n"


@pytest.mark.parametrize("command", ["status", "runs", "stop"])
def test_a_command_that_only_looks_does_not_take_another_folder_for_an_idle_home(tmp_path, command):
    result = runner.invoke(app, [command, "--home", str(tmp_path)])
    assert isinstance(result.exception, SetupError)
    assert "server.yaml: not found" in str(result.exception)
