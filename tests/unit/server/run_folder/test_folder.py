"""A folder is a run's only by mamfed's own mark; nothing of others is moved or written over."""

import json

import pytest

from mamfed_common.errors import OutputError, SetupError
from mamfed_server.run_folder.folder import MARK, RunFolder


@pytest.fixture
def plan(tiny_plan):
    return tiny_plan


def test_a_new_folder_is_marked_with_its_format(tmp_path, plan):
    RunFolder(tmp_path / "run").create(plan)
    assert json.loads((tmp_path / "run" / MARK).read_text())["format"] == 1
    assert RunFolder(tmp_path / "run").holds_run()


@pytest.mark.parametrize("name", ["plan.yaml", "notes.txt", "labels.csv"])
def test_a_users_folder_is_refused_and_stays_as_it_is(tmp_path, plan, name):
    folder = tmp_path / "study"
    (folder / "data").mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(OutputError, match="is not a run folder"):
        RunFolder(folder).create(plan)
    assert not RunFolder(folder).holds_run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["data", name])


def test_an_earlier_run_is_kept_under_another_name(tmp_path, plan):
    for _ in range(3):
        RunFolder(tmp_path / "run").create(plan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.1", "run.2"]


def test_a_run_of_mamfed_0_1_0_is_known_by_its_checkpoints(tmp_path, plan):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "plan.yaml").write_text(plan.to_yaml())
    RunFolder(tmp_path / "run").create(plan)
    assert (tmp_path / "run.1" / "plan.yaml").is_file()


@pytest.mark.parametrize("mark", ['{"format": 2}', "", "[]"])
def test_a_run_of_another_format_is_refused_by_name(tmp_path, plan, mark):
    RunFolder(tmp_path / "run").create(plan)
    (tmp_path / "run" / MARK).write_text(mark)
    with pytest.raises(OutputError, match=f"{MARK}: found format"):
        RunFolder(tmp_path / "run").create(plan)


def test_what_a_kill_has_left_of_making_a_folder_is_no_obstacle(tmp_path, plan):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / MARK).write_text('{"format": 1}')
    (tmp_path / "run" / ".plan.yaml.x.draft").touch()
    RunFolder(tmp_path / "run").create(plan)
    assert RunFolder(tmp_path / "run").holds_run()


def test_the_folder_that_somebody_is_in_is_not_renamed(tmp_path, plan, monkeypatch):
    RunFolder(tmp_path / "run").create(plan)
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(OutputError, match="is your current folder"):
        RunFolder(tmp_path / "run").create(plan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_an_empty_folder_may_be_given_as_a_dot(tmp_path, plan, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RunFolder(tmp_path.__class__(".")).create(plan)
    assert (tmp_path / "plan.yaml").is_file()


def test_two_runs_never_work_in_one_folder(tmp_path):
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "other" / ".." / "run")
    with (
        first.alone(),
        pytest.raises(
            SetupError, match=r"another run is already running here \(process \d+, since"
        ),
        second.alone(),
    ):
        pytest.fail("two at once")
    with second.alone():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_others_gets_no_lock_beside_it(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").touch()
    with (
        pytest.raises(OutputError, match="is not a run folder"),
        RunFolder(tmp_path / "study").alone(),
    ):
        pytest.fail("locked somebody's folder")
    assert [path.name for path in tmp_path.iterdir()] == ["study"]
