"""A run that dies anywhere goes on, and ends with the same bits."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load
from tests.unit.server.sites import NAMES, NODES, Scripted, Sites, final, run, with_stages

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import OutputError, PlanError, RunError
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.protocol.messages import ARRAYS, WEIGHTS
from mamfed_server.run.requests import StopRequested
from mamfed_server.run.resume import load_last_good
from mamfed_server.run_folder.event_log import read_events
from mamfed_server.run_folder.folder import RunFolder

DICE = {"ada": [0.3, 0.8, 0.0], "bea": [0.3, 0.7, 0.0], "cleo": [0.3, 0.9, 0.0]}
"""Smoothed .3, .55, .37 on three images, whose error is .14."""
A_ROUND = (20**0.5 + 2 * 30**0.5) / (10**0.5 + 20**0.5 + 30**0.5)
"""By how much a round moves every weight: sites weigh the roots of their images."""
CHECKPOINTS = ("latest", "previous", "pretrained", "best", "final")


class Died(BaseException):
    """The process is gone: nothing that runs afterwards was run by it."""


class Scored(Sites):
    """Sites whose validation depends on the weights only: the second round is the best."""

    def evaluate(self, message, context):
        offset = load(message.content[ARRAYS][WEIGHTS].data)["subtraction.offset"].item()
        rounds_done = round((offset - 0.1) / A_ROUND)
        self.val_dice = {site: [dice[max(rounds_done - 3, 0) % 3]] for site, dice in DICE.items()}
        return super().evaluate(message, context)


@pytest.fixture
def plan(tiny_plan):
    return tiny_plan.changed(
        pretraining={**tiny_plan.pretraining.model_dump(), "rounds": 2},
        finetuning={**tiny_plan.finetuning.model_dump(), "rounds": 3},
        # The updates of these sites are drawn, not trained: some are over twice the median.
        federation={**tiny_plan.federation.model_dump(), "clip_update_norm_ratio": 10},
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the undisturbed run of a plan, made once."""
    made = {}

    def of(plan):
        if plan.sha256() not in made:
            made[plan.sha256()] = run(Scored(), plan, tmp_path_factory.mktemp("whole") / "run")
        return made[plan.sha256()]

    return of


def result(folder):
    """Return all that must not depend on whether the run was interrupted."""
    summary = folder.read_summary()
    keys = (
        "status",
        "complete",
        "arms",
        "checkpoint_chosen_by",
        "mean_validation_dice",
        "threshold",
        "rounds",
    )
    return (
        {name: final(folder, name) for name in CHECKPOINTS},
        {name: painter_of(folder, name) for name in CHECKPOINTS},
        {key: summary[key] for key in keys},
        [(str(r.stage), r.server_round, r.accepted, r.validation) for r in folder.rounds()],
    )


def painter_of(folder, name):
    return load_checkpoint(folder.checkpoint_path(name)).facts.painter_sha256


def resume(plan, path, sites=None):
    return run(sites or Scored(), plan, path, resume=True)


def kinds(folder):
    return [event["event"] for event in read_events(folder.path)]


def last(folder, kind):
    return [event for event in read_events(folder.path) if event["event"] == kind][-1]


def test_the_scored_sites_choose_the_middle_round(plan, whole):
    assert load_checkpoint(whole(plan).checkpoint_path("best")).facts.server_round == 2


def test_best_and_final_hold_the_weights_at_the_end_of_stage_1_as_their_painter(plan, whole):
    at_the_end = final(whole(plan), "pretrained")
    painters = {name: painter_of(whole(plan), name) for name in CHECKPOINTS}
    assert painters == {
        "latest": "",
        "previous": "",
        "pretrained": "",
        "best": at_the_end,
        "final": at_the_end,
    }
    facts = load_checkpoint(whole(plan).checkpoint_path("pretrained")).facts
    assert (facts.stage, facts.server_round) == ("pretraining", 2)


def test_a_run_without_stage_1_has_no_painter(tmp_path, plan):
    bare = plan.changed(pretraining={**plan.pretraining.model_dump(), "rounds": 0})
    folder = run(Scored(), bare, tmp_path / "run")
    assert {painter_of(folder, name) for name in ("best", "final")} == {""}
    assert not folder.checkpoint_path("pretrained").exists()


@pytest.mark.parametrize(("rounds", "lost"), [(3, False), (4, False), (5, True)])
def test_a_damaged_end_of_stage_1_is_told_and_found_elsewhere(tmp_path, plan, whole, rounds, lost):
    """After 3 rounds ``previous`` is the end of stage 1; ``best`` holds the painter from then."""
    dead_after(plan, tmp_path / "run", rounds)
    folder = RunFolder(tmp_path / "run")
    path = folder.checkpoint_path("pretrained")
    path.write_bytes(path.read_bytes()[:-100])
    if lost:
        folder.checkpoint_path("best").unlink()
    resume(plan, tmp_path / "run")
    assert "looking for the painter" in str(read_events(folder.path))
    assert ("no painter" in str(read_events(folder.path))) == lost
    assert (painter_of(folder, "final") == painter_of(whole(plan), "final")) != lost


@pytest.mark.parametrize("number", range(5))
def test_death_after_any_round(tmp_path, plan, whole, number):
    records = []

    def on_round(record):
        records.append(record)
        if len(records) == number + 1:
            raise Died

    with pytest.raises(Died):
        run(Scored(), plan, tmp_path / "run", on_round=on_round)
    assert not (tmp_path / "run" / "summary.json").exists()
    sites = Scored()
    folder = resume(plan, tmp_path / "run", sites)
    assert result(folder) == result(whole(plan))
    assert len(sites.trained) == 3 * (4 - number), "no round was done twice"
    expected = [("pretraining", 2), ("finetuning", 1), ("finetuning", 2), ("finetuning", 3)]
    event = last(folder, "resumed")
    assert (event["stage"], event["server_round"]) == [*expected, (None, None)][number]


def test_death_at_any_file_operation(tmp_path, plan, whole, monkeypatch):
    """Every fsync and every rename in turn is the last thing that the process does."""
    calls, deadly = [0], [None]

    def deadly_version(operation):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == deadly[0]:
                raise Died
            return operation(*args, **kwargs)

        return call

    for name in ("fsync", "replace", "rename", "unlink"):
        monkeypatch.setattr(os, name, deadly_version(getattr(os, name)))
    run(Scored(), plan, tmp_path / "counting")
    total, calls[0] = calls[0], 0
    assert total > 80
    for number in range(1, total + 1, 7):
        path = tmp_path / str(number)
        calls[0], deadly[0] = 0, number
        with pytest.raises(Died):
            run(Scored(), plan, path)
        deadly[0] = None
        assert result(resume(plan, path)) == result(whole(plan)), number
        shutil.rmtree(path)


@pytest.mark.parametrize("number", [0, 1])
def test_two_deaths_of_which_one_while_resuming(tmp_path, plan, whole, number):
    events = []

    def on_event(event):
        events.append(event)
        if len(events) > 3 + number:
            raise Died

    for _ in range(2):
        events.clear()
        with pytest.raises(Died):
            run(Scored(), plan, tmp_path / "run", resume=True, on_event=on_event)
    assert result(resume(plan, tmp_path / "run")) == result(whole(plan))


def test_a_real_sigkill_in_the_middle_of_a_round(tmp_path, plan, whole):
    (tmp_path / "plan.yaml").write_text(plan.to_yaml())
    code = """
import os, sys
from pathlib import Path
from mamfed_common.runtime.terminal import set_environment; set_environment()
import torch; torch.set_num_threads(1)
from tests.unit.server.run.test_resume import Scored, run
from mamfed_common.plan import read_plan
class Killed(Scored):
    def train(self, message, context):
        if len(self.trained) == 7: os.kill(os.getpid(), 9)
        return super().train(message, context)
run(Killed(), read_plan(Path(sys.argv[1])), Path(sys.argv[2]))
"""
    arguments = [sys.executable, "-c", code, tmp_path / "plan.yaml", tmp_path / "run"]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert list((tmp_path / "run" / "updates").iterdir()), "killed in the middle of a round"
    folder = resume(plan, tmp_path / "run")
    assert result(folder) == result(whole(plan))
    event = last(folder, "resumed")
    assert (event["stage"], event["server_round"], event["redone"]) == ("finetuning", 1, [])


def damage(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def dead_after(plan, path, rounds):
    records = []

    def on_round(record):
        records.append(record)
        if len(records) == rounds:
            raise Died

    with pytest.raises(Died):
        run(Scored(), plan, path, on_round=on_round)
    return RunFolder(path)


def test_of_a_damaged_latest_checkpoint_the_one_before_is_used(tmp_path, plan, whole):
    folder = dead_after(plan, tmp_path / "run", 3)
    damage(folder.checkpoint_path("latest"))
    checkpoint, (note,) = load_last_good(folder)
    assert (str(checkpoint.facts.stage), checkpoint.facts.server_round) == ("pretraining", 2)
    assert "latest.safetensors: damaged" in note
    folder = resume(plan, folder.path)
    assert result(folder) == result(whole(plan)) or not folder.read_summary()["complete"]
    assert {n: final(folder, n) for n in CHECKPOINTS} == {
        n: final(whole(plan), n) for n in CHECKPOINTS
    }
    assert last(folder, "resumed")["redone"] == ["finetuning 1"]
    assert any("using the one before it" in w for w in folder.read_summary()["warnings"])
    assert folder.checkpoint_path("damaged").exists()


def test_where_no_checkpoint_is_whole_the_run_starts_again_and_says_so(tmp_path, plan, whole):
    folder = dead_after(plan, tmp_path / "run", 2)
    for name in ("latest", "previous"):
        damage(folder.checkpoint_path(name))
    folder = resume(plan, folder.path)
    assert final(folder) == final(whole(plan))
    assert last(folder, "resumed")["redone"] == ["pretraining 1", "pretraining 2"]
    assert len([w for w in folder.read_summary()["warnings"] if "damaged" in w]) == 2


def test_a_damaged_best_checkpoint_of_the_latest_round_is_written_again(tmp_path, plan, whole):
    folder = dead_after(plan, tmp_path / "run", 4)
    damage(folder.checkpoint_path("best"))
    folder = resume(plan, folder.path)
    assert result(folder) == result(whole(plan))
    assert any("best.safetensors" in w for w in folder.read_summary()["warnings"])


def test_a_best_checkpoint_damaged_before_the_test_is_the_last_round(tmp_path, plan, whole):
    folder = dead_after(plan, tmp_path / "run", 5)
    damage(folder.checkpoint_path("best"))
    folder = resume(plan, folder.path)
    assert final(folder, "best") == final(whole(plan))
    assert folder.read_summary()["checkpoint_chosen_by"] == (
        "the last round: the checkpoint of the chosen one was damaged"
    )


def test_a_torn_line_and_lines_after_the_checkpoint_are_forgotten(tmp_path, plan, whole):
    folder = dead_after(plan, tmp_path / "run", 3)
    with (folder.path / "rounds.jsonl").open("a") as lines:
        extra = folder.rounds()[-1].model_copy(update={"server_round": 2})
        lines.write(extra.model_dump_json() + "\n" + extra.model_dump_json()[:50])
    with (folder.path / "events.jsonl").open("a") as lines:
        lines.write('{"time": "2026-')
    assert len(folder.rounds()) == 4
    folder = resume(plan, folder.path)
    assert result(folder) == result(whole(plan))
    assert last(folder, "resumed")["redone"] == ["finetuning 2"]


def test_a_stopped_run_goes_on(tmp_path, plan, whole):
    sites = Scored()
    with pytest.raises(StopRequested):
        run(sites, plan, tmp_path / "run", stopping=lambda: len(sites.trained) >= 8)
    folder = RunFolder(tmp_path / "run")
    assert folder.read_summary()["status"] == "stopped"
    assert result(resume(plan, folder.path)) == result(whole(plan))
    assert kinds(folder)[-1] == "finished"
    assert "stopped" in kinds(folder)


def test_a_failed_run_goes_on_when_the_sites_are_back(tmp_path, plan, whole):
    strict = with_stages(plan, quorum=3)
    sites = Scored()
    transport = Scripted(sites)
    transport.errors[NODES["bea"]].append(2)
    with pytest.raises(RunError):
        run(sites, strict, tmp_path / "run", transport)
    folder = resume(strict, tmp_path / "run")
    assert final(folder) == final(whole(plan))
    summary = folder.read_summary()
    assert (summary["status"], summary["complete"]) == ("finished", True)
    assert any("bea left out" in warning for warning in summary["warnings"])


def test_warnings_from_before_the_death_are_in_the_summary_once(tmp_path, plan):
    sites, records = Scored(), []
    transport = Scripted(sites)
    transport.errors[NODES["cleo"]].append(104)

    def on_round(record):
        records.append(record)
        if len(records) == 2:
            raise Died

    with pytest.raises(Died):
        run(sites, plan, tmp_path / "run", transport, on_round=on_round)
    summary = resume(plan, tmp_path / "run").read_summary()
    warning = "pretraining round 1: cleo left out: the site does not train at this hour"
    assert summary["warnings"] == [warning]
    assert summary["complete"] is False


def test_a_finished_run_is_not_run_again(tmp_path, plan):
    folder = run(Scored(), plan, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    sites = Scored()
    resume(plan, folder.path, sites)
    assert (sites.trained, sites.asked) == ([], [])
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


def test_another_plan_is_refused_and_both_are_named(tmp_path, plan):
    folder = dead_after(plan, tmp_path / "run", 1)
    other = plan.changed(seed=5)
    with pytest.raises(PlanError) as caught:
        resume(other, folder.path)
    assert plan.sha256() in str(caught.value)
    assert "(seed was 0, is now 5)" in str(caught.value)
    assert other.sha256() in str(caught.value)
    assert len(folder.rounds()) == 1


def test_a_folder_of_something_else_is_never_touched(tmp_path, plan):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="not a run folder"):
        resume(plan, tmp_path / "run")


def test_where_there_is_no_run_one_is_started(tmp_path, plan):
    folder = resume(plan, tmp_path / "run")
    assert kinds(folder)[0] == "started"


def test_a_folder_with_a_plan_alone_is_a_run_that_starts(tmp_path, plan):
    RunFolder(tmp_path / "run").create(plan)
    assert kinds(resume(plan, tmp_path / "run"))[0] == "started"


def test_events_are_told_as_they_happen_and_hold_a_time(tmp_path, plan):
    heard = []
    folder = run(Scored(), plan, tmp_path / "run", on_event=heard.append, flower_run=77)
    assert heard == read_events(folder.path)
    assert heard[0]["flower_run"] == 77
    assert all(event["time"].endswith("+00:00") for event in heard)
    assert kinds(folder) == ["started", *["round"] * 5, "test", "finished"]


def test_checkpoints_hold_no_time_and_no_duration(tmp_path, plan):
    folders = [run(Scored(), plan, tmp_path / name) for name in ("a", "b")]
    for name in CHECKPOINTS:
        first, second = (folder.checkpoint_path(name).read_bytes() for folder in folders)
        assert first == second
    facts = json.loads(folders[0].checkpoint_path("latest").with_suffix(".json").read_text())
    assert facts["weights_sha256"] == state_sha256(
        load_checkpoint(folders[0].checkpoint_path("latest")).state
    )
    assert tuple(facts["accepted"]) == NAMES
