"""Start says which run it begins or resumes, and which unfinished runs it abandons."""

import json
import shutil

import pytest
from tests.processes.phantoms import small_plan
from typer.testing import CliRunner

from mamfed_client.site import identity
from mamfed_client.site.settings import SiteHome
from mamfed_common.errors import PlanError
from mamfed_server.admission.approval import approve
from mamfed_server.cli.main import app
from mamfed_server.run.overview import overview
from mamfed_server.run.resume import check_same_plan
from mamfed_server.run.run_choice import describe, earlier_run, left_behind
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_server.service.supervisor import check_start
from mamfed_server.settings import ServerHome

PLAN = small_plan()
ROUND = RoundRecord(
    stage="pretraining",
    server_round=1,
    expected=("a",),
    answered=("a",),
    accepted={"a": {"num_examples": {"benign": 2}, "share": 1.0, "loss": 0.5}},
    refused={},
)
LONGER = small_plan(finetuning=3)


@pytest.fixture
def first(tmp_path):
    """A run of three rounds, of which one is done."""
    folder = RunFolder(tmp_path / "first")
    folder.create(PLAN)
    folder.append_round(ROUND)
    return folder


def end(folder, status):
    folder.write_summary({"status": status, "reason": ""})


def test_a_run_starts_resumes_or_is_finished(tmp_path, first):
    plan = f"plan {PLAN.sha256()}"
    assert describe(RunFolder(tmp_path / "new"), PLAN) == f"run new starts, {plan}"
    assert describe(first, PLAN) == f"run first resumes, 1 of 3 rounds done, {plan}"
    end(first, "finished")
    assert describe(first, PLAN) == (
        f"run first is already finished, {plan}: nothing to train; give another --run to start a "
        "new one"
    )


@pytest.mark.parametrize("status", ["interrupted", "stopped", "failed"])
def test_an_unfinished_run_that_a_changed_plan_leaves_behind_is_named(tmp_path, first, status):
    if status != "interrupted":
        end(first, status)
    assert left_behind(tmp_path, "second", LONGER) == [
        f"warning: run first is unfinished ({status}, 1 of 3 rounds) and stays as it is: "
        "finetuning: rounds was 2, is now 3; to resume it: mamfed-server resume first"
    ]


def test_the_same_plan_under_another_name_leaves_it_behind_as_well(tmp_path, first):
    (said,) = left_behind(tmp_path, "second", PLAN)
    assert said.endswith("this start names another --run; to resume it: mamfed-server resume first")


def test_who_goes_on_leaves_nothing_behind_nor_does_a_run_after_a_finished_one(tmp_path, first):
    assert left_behind(tmp_path, "first", PLAN) == []
    end(first, "finished")
    assert left_behind(tmp_path, "second", LONGER) == []


def test_of_many_unfinished_runs_the_latest_are_named(tmp_path, first):
    for name in "abcd":
        shutil.copytree(first.path, tmp_path / name)
    said = left_behind(tmp_path, "second", LONGER)
    assert len(said) == 4
    assert said[-1] == "and 2 more; list them with mamfed-server runs"


def test_an_unfinished_run_whose_plan_cannot_be_read_says_why(tmp_path, first):
    (first.path / "plan.yaml").write_text("epochs: 3\n")
    (said,) = left_behind(tmp_path, "second", PLAN)
    assert "(damaged, 1 round) and stays as it is: it cannot be resumed: " in said
    assert "unknown key 'epochs'" in said


def test_a_finished_run_of_an_unreadable_plan_stays_finished(tmp_path, first):
    end(first, "finished")
    (first.path / "plan.yaml").write_text("epochs: 3\n")
    (row,) = overview(tmp_path)
    assert (row["status"], row["rounds"], row["rounds_planned"]) == ("finished", 1, None)
    assert "unknown key 'epochs'" in row["reason"]


def test_another_plan_under_a_run_s_name_is_refused_by_what_differs(first):
    with pytest.raises(PlanError, match=r"\(finetuning: rounds was 2, is now 3\); go on"):
        check_same_plan(first, LONGER)


def test_a_simulation_says_where_the_earlier_run_goes(tmp_path, first):
    assert earlier_run(RunFolder(tmp_path / "new")) == ""
    assert earlier_run(first) == (
        f"the earlier run in {first.path}, unfinished (1 of 3 rounds done), becomes "
        f"{first.path}.1; a new run starts"
    )
    place = first.next_place()
    end(first, "finished")
    assert "unfinished" not in earlier_run(first)
    first.create(PLAN)
    assert json.loads((place / "summary.json").read_text())["status"] == "finished"


def test_start_says_it_before_anything_begins(tmp_path, first):
    home = ServerHome(tmp_path / "home")
    runner = CliRunner()
    made = runner.invoke(app, ["init", str(home.path), "--name", "N", "--host", "localhost"])
    assert made.exit_code == 0
    site = SiteHome(tmp_path / "site")
    identity.make_keys(site)
    approve(home, identity.build_request(site, "a", ""))
    shutil.copytree(first.path, home.runs / "first")
    changed = LONGER.changed(federation={"min_sites": 1})
    lines = list(check_start(home, changed, "second"))
    assert lines[0] == f"run second starts, plan {changed.sha256()}"
    assert lines[1].startswith("warning: run first is unfinished")
    assert "resume first" in lines[1]


def test_runs_lists_a_run_of_an_unreadable_plan(tmp_path, first):
    home = tmp_path / "home"
    runner = CliRunner()
    assert runner.invoke(app, ["init", str(home), "--name", "N", "--host", "h"]).exit_code == 0
    shutil.copytree(first.path, home / "runs" / "first")
    (home / "runs" / "first" / "plan.yaml").write_text("epochs: 3\n")
    result = runner.invoke(app, ["runs", "--home", str(home)])
    assert result.exit_code == 0
    assert result.stdout.startswith("first: damaged, 1 round, plan unknown (")
