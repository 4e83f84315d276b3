"""Ctrl-C, ``--resume``, ``--dry-run``, ``--set`` and ``compare``, on runs that take a second."""

import json
import shutil
import sys

import pytest
from typer.testing import CliRunner

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import DataError, MamfedError, OutputError, PlanError, SetupError
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import parse_plan, read_plan
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.cli.main import app
from mamfed_simulations.reporting import progress

runner = CliRunner()


class Interrupting(progress.Progress):
    """Ctrl-C after the second round of an arm."""

    def start(self, arm, plan, steps):
        on_step, on_round = super().start(arm, plan, steps)
        seen = []

        def interrupt(record):
            on_round(record)
            seen.append(record)
            if len(seen) == 2:
                raise KeyboardInterrupt

        return on_step, interrupt


@pytest.fixture
def plan(tmp_path, tiny_plan):
    path = tmp_path / "plan.yaml"
    path.write_text(tiny_plan.to_yaml())
    return path


@pytest.fixture
def run(folders, cache, plan):
    def call(out, *more):
        sites = [part for name, f in folders.items() for part in ("--site", f"{name}={f}")]
        options = ["--plan", str(plan), "--threads", "1", "--cache", str(cache), "--out", str(out)]
        return runner.invoke(app, ["run", *sites, *options, *map(str, more)])

    return call


def weights(out):
    return state_sha256(load_checkpoint(out / "checkpoints" / "final.safetensors").state)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """One whole run and one that Ctrl-C ended, made by the first test that needs them."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def whole(kept, run):
    if not (kept / "whole").exists():
        assert run(kept / "whole").exit_code == 0
    return kept / "whole"


@pytest.fixture
def ended(kept, run, tmp_path, monkeypatch):
    out = kept / "ended"
    if not out.exists():
        with monkeypatch.context() as patch:
            patch.setattr(progress, "Progress", Interrupting)
            patch.setattr(sys, "argv", ["mamfed-simulate", "run", "--out", str(out)])
            result = run(out)
        assert result.exit_code == 130
        (kept / "said").write_text(result.stderr)
    shutil.copytree(out, tmp_path / "ended")
    return tmp_path / "ended"


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(kept, ended):
    said = (kept / "said").read_text()
    assert f"kept in {kept}/ended: 2 of 3 rounds" in said
    assert f"resume with: mamfed-simulate run --out {kept}/ended --resume" in said
    assert len(RunFolder(ended).rounds()) == 2


def test_a_run_that_goes_on_ends_with_the_same_bits(run, whole, ended):
    result = run(ended, "--resume")
    assert result.exit_code == 0, result.output
    assert "resumes after 2 rounds" in result.stderr
    assert weights(ended) == weights(whole)
    found, expected = (RunFolder(out).read_summary() for out in (ended, whole))
    assert found["arms"] == expected["arms"]
    assert [r.server_round for r in RunFolder(ended).rounds()] == [1, 1, 2]
    again = run(ended, "--resume")
    assert "is finished; only its report is rewritten" in again.stderr
    assert RunFolder(ended).read_summary() == found
    assert not ended.with_name("ended.1").exists()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (["--set", "finetuning.rounds=3"], PlanError, "finetuning: rounds was 2, is now 3"),
        (["--threads", "2"], OutputError, "threads was 1, is now 2"),
        (["without", "cirrus"], OutputError, "is now not there"),
    ],
)
def test_another_question_is_refused_by_name_and_nothing_is_touched(
    run, folders, ended, change, error, words, monkeypatch
):
    before = {p: p.read_bytes() for p in ended.rglob("*") if p.is_file()}
    if change[0] == "without":
        monkeypatch.delitem(folders, change[1])
        change = []
    for more in ([], ["--dry-run"]):
        result = run(ended, "--resume", *change, *more)
        assert isinstance(result.exception, error), result.output
        assert words in str(result.exception)
        assert "mamfed-server" not in str(result.exception)
    assert before == {p: p.read_bytes() for p in ended.rglob("*") if p.is_file()}


def test_without_resume_the_earlier_run_is_moved_aside_and_said(run, ended):
    result = run(ended, "--dry-run")
    assert "becomes" in result.stderr
    assert len(RunFolder(ended).rounds()) == 2, "not yet"


def test_resume_where_there_is_no_run_says_that_one_begins(run, tmp_path):
    result = run(tmp_path / "new", "--resume", "--dry-run")
    assert result.exit_code == 0
    assert f"{tmp_path}/new holds no run yet; starting one" in result.stderr


def test_a_dry_run_counts_trainings_and_steps(run, tmp_path):
    result = run(tmp_path / "x", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "1 training with" in result.stderr
    assert "0 already done" in result.stderr
    assert not (tmp_path / "x").exists()


def test_a_dry_run_refuses_what_the_run_would(run, folders, tmp_path, not_installed):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter").write_text("1")

    def refused(out, *more):
        found = run(out, "--dry-run", *more).exception
        assert isinstance(found, MamfedError), found
        return found

    assert "is not a run folder" in str(refused(thesis))
    assert isinstance(refused(thesis / "chapter" / "x"), OutputError)
    assert "lies in the input folder" in str(refused(folders["aurora"] / "runs"))
    with exclusive_lock(tmp_path / ".busy.lock", "a run"):
        assert isinstance(refused(tmp_path / "busy"), SetupError)
    not_installed("ray")
    missing = refused(tmp_path / "x", "--engine", "ray")
    assert (missing.exit_code, "[ray]'" in str(missing)) == (1, True)
    assert isinstance(refused(tmp_path / "x", "--device", "cudda"), PlanError)


def experiment(kind, folders, cache, plan, out, *more):
    data = [part for name, f in folders.items() for part in ("--site", f"{name}={f}")]
    if kind != "federation":
        data = ["--data", str(folders["aurora"]), "--epochs", "1", "--pretraining-epochs", "1"]
    common = ["--plan", str(plan), "--cache", str(cache), "--threads", "1", "--out", str(out)]
    return runner.invoke(app, ["experiment", kind, *data, *common, *more])


def test_a_dry_comparison_counts_every_training_and_names_those_that_would_fail(
    folders, cache, plan, tmp_path
):
    options = ["--arms", "local,fedavg", "--seeds", "2", "--dry-run"]
    result = experiment("federation", folders, cache, plan, tmp_path / "x", *options)
    assert result.exit_code == 0, result.output
    assert "8 trainings with" in result.stderr, "3 sites alone and one federation, each twice"
    strict = [*options, "--set", "finetuning.quorum=9"]
    result = experiment("federation", folders, cache, plan, tmp_path / "x", *strict)
    assert result.stderr.count("would fail: finetuning: 3 sites") == 2
    assert not (tmp_path / "x").exists()
    inside = experiment("federation", folders, cache, plan, folders["aurora"] / "x", *options)
    assert isinstance(inside.exception, OutputError)


@pytest.mark.parametrize("kind", ["federation", "table1"])
def test_an_experiment_takes_no_run_for_its_own(kind, folders, cache, plan, ended):
    found = experiment(kind, folders, cache, plan, ended, "--dry-run").exception
    assert isinstance(found, OutputError)
    assert "holds other files" in str(found)


@pytest.mark.parametrize("kind", ["federation", "table1"])
def test_a_dry_experiment_refuses_the_folder_of_another_question(
    kind, folders, cache, plan, tmp_path, monkeypatch
):
    out = tmp_path / "x"
    out.mkdir()
    if kind == "table1":
        from mamfed_simulations.cli import study as study_cli
        from mamfed_simulations.study import design

        assert study_cli
        monkeypatch.setattr(design, "_progress", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        only = ["--rows", "supervised-scratch"]
        begun = experiment(kind, folders, cache, plan, out, *only)
        assert begun.exit_code == 130
        assert "kept in" in begun.stderr
        assert "0 of 1 trainings" in begun.stderr
    else:
        only = ["--arms", "fedavg"]
        monkeypatch.setattr(progress, "Progress", Interrupting)
        begun = experiment(kind, folders, cache, plan, out, *only)
        assert begun.exit_code == 130
        assert "0 finished and 1 unfinished trainings, 2 rounds in total" in begun.stderr
    assert "resume with: " in begun.stderr
    assert "--resume" not in begun.stderr.split("resume with: ")[1]
    again = experiment(kind, folders, cache, plan, out, *only, "--dry-run")
    assert again.exit_code == 0, again.output
    changed = ["--set", "finetuning.learning_rate=0.5", "--dry-run"]
    other = experiment(kind, folders, cache, plan, out, *only, *changed)
    assert isinstance(other.exception, MamfedError)
    assert "learning rate was" in str(other.exception)


def test_peers_without_their_package_end_before_any_image_is_read(
    folders, cache, plan, tmp_path, not_installed
):
    not_installed("dynamic_network_architectures")
    more = ["--rows", "plainconvunet", "--dry-run"]
    found = experiment("peers", folders, tmp_path / "no", plan, tmp_path / "x", *more).exception
    assert isinstance(found, MamfedError)
    assert found.exit_code == 1
    assert "[peers]'" in str(found)
    assert not (tmp_path / "no").exists()


def test_set_changes_the_plan_of_each_command(run, folders, cache, plan, tmp_path):
    printed = runner.invoke(app, ["plan", "--set", "finetuning.rounds=20"])
    assert parse_plan(printed.stdout, "p").finetuning.rounds == 20
    demo = runner.invoke(app, ["plan", "--demo", "--set", "personal.steps=1"])
    assert parse_plan(demo.stdout, "p").personal.steps == 1
    wrong = ["--set", "finetuning.round=20"]
    for result in (
        run(tmp_path / "x", *wrong),
        experiment("federation", folders, cache, plan, tmp_path / "x", *wrong),
        experiment("table1", folders, cache, plan, tmp_path / "x", *wrong),
        runner.invoke(app, ["demo", "--out", str(tmp_path / "x"), *wrong]),
        runner.invoke(app, ["plan", *wrong]),
    ):
        assert isinstance(result.exception, PlanError), result.output
        assert "did you mean 'rounds'?" in str(result.exception)


class TestCompare:
    @pytest.fixture
    def other(self, kept, run):
        if not (kept / "other").exists():
            options = ["--set", "finetuning.rounds=1", "--set", "evaluation.split_seed=7"]
            assert run(kept / "other", *options).exit_code == 0
        return kept / "other"

    def test_runs_stand_side_by_side_as_a_page_and_as_json(self, whole, other, ended, tmp_path):
        out = tmp_path / "both"
        command = ["compare", str(whole), str(other), str(ended), "--out", str(out)]
        result = runner.invoke(app, [*command, "--format", "json"])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found == json.loads((out / "results.json").read_text())
        assert list(found["runs"]) == ["whole", "other", "ended"]
        for name, folder in (("whole", whole), ("other", other)):
            summary = RunFolder(folder).read_summary()
            assert found["runs"][name]["arms"] == summary["arms"]
            assert found["runs"][name]["plan_sha256"] == read_plan(folder / "plan.yaml").sha256()
        assert found["plan_differences"]["finetuning.rounds"] == ["2", "1", "2"]
        page, text = (out / "report.html").read_text(), (out / "results.md").read_text()
        for words in ("Differences between the plans", "Held-out Dice (images)", "whole", "Curves"):
            assert words in page
        assert "ended was interrupted" in text
        assert "aurora is split differently in other than in whole" in text
        assert "split differently in ended" not in text
        assert page.count("data:image/png;base64,") == 1
        assert (out / "curves.png").stat().st_size > 5_000
        assert runner.invoke(app, command).exit_code == 0, "the same again, in its own folder"

    def test_one_run_no_run_and_a_folder_of_something_else(self, whole, other, tmp_path):
        assert runner.invoke(app, ["compare", str(whole)]).exit_code == 2
        (tmp_path / "plan.yaml").write_text("seed: 1")
        missing = runner.invoke(app, ["compare", str(whole), str(tmp_path)])
        assert isinstance(missing.exception, DataError)
        both = ["compare", str(whole), str(other), "--out"]
        assert isinstance(runner.invoke(app, [*both, str(tmp_path)]).exception, OutputError)
        inside = runner.invoke(app, [*both, str(whole / "x")])
        assert isinstance(inside.exception, OutputError)
