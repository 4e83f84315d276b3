"""One truth of how a run stands, at every transition of its life; every command says the same."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from tests.unit.server.sites import NODES, Scripted, Sites, run
from typer.testing import CliRunner

from mamfed_common.errors import DataError, RunError
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_server.cli.main import app
from mamfed_server.report.data import read_run
from mamfed_server.report.page import lines_of, report_run
from mamfed_server.run.requests import StopRequested
from mamfed_server.run.state import GONE, RunState, latest_run, run_status_of
from mamfed_server.run_folder.event_log import EventLog
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.service import supervisor
from mamfed_server.service.status_file import STATUS
from mamfed_server.settings import ServerHome

EXAMPLES = Path(__file__).parents[4] / "deploy" / "examples"
HOLD = """
import sys, time
from pathlib import Path
from mamfed_common.runtime.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "a run", leaves_file=False):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(tmp_path):
    shutil.copy(EXAMPLES / "server.yaml", tmp_path)
    return ServerHome(tmp_path)


@pytest.fixture
def folder(home):
    return home.runs / "first"


@contextmanager
def worked_on(folder):
    """Have another process work in a run's folder, as ``mamfed-server start`` does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.parent / f".{folder.name}.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, lock], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def said(home, *words):
    result = CliRunner().invoke(app, [*words, "--home", str(home.path)])
    assert result.exit_code == 0, result.output
    return result.stdout


def everything(home, run="first"):
    """Return what every command says, after checking that no two of them contradict each other."""
    shown = json.loads(said(home, "status", "--format", "json"))
    (row,) = [r for r in json.loads(said(home, "runs", "--format", "json")) if r["run"] == run]
    report = read_run(home.runs / run)
    text = said(home, "status")
    assert shown["run"] == run
    assert shown["state"] == row["status"] == run_status_of(home.runs / run).state
    assert (shown["rounds"], shown["rounds_planned"]) == (row["rounds"], row["rounds_planned"])
    assert f"{row['rounds']} of {row['rounds_planned']} rounds" in said(home, "runs")
    assert f"{row['rounds']} of {row['rounds_planned']} rounds done" in text
    assert shown["checkpoint"] == row["checkpoint"]
    if row["checkpoint"] is None:
        assert report.kept is None
        assert "checkpoint: none" in text
        assert "checkpoint: none" in said(home, "show", run)
    else:
        assert row["checkpoint"] == str(report.kept.path)
        assert f"checkpoint: {report.kept.words()}" in text
        assert f"({report.kept.words()})" in said(home, "show", run)
    return shown["state"], shown["doing"], lines_of(home.runs / run)[0]


def test_before_any_run_every_command_says_so_in_words(home):
    assert said(home, "status").startswith("no run yet: start one with mamfed-server start")
    assert "no site is approved yet" in said(home, "status")
    assert said(home, "runs").startswith("no run yet")


def test_a_run_that_has_just_been_started_runs_although_no_round_is_done(home, folder, tiny_plan):
    """``status.json`` is still of the run before: it must not count."""
    (home.path / STATUS).write_text(json.dumps({"run": "old", "last_event": {"event": "finished"}}))
    RunFolder(folder).create(tiny_plan)
    with worked_on(folder):
        state, doing, headline = everything(home)
    assert (state, doing) == ("running", "starting")
    assert headline == "The run is running."


def test_the_run_that_is_worked_on_is_shown_although_another_is_newer(home, folder, tiny_plan):
    RunFolder(folder).create(tiny_plan)
    run(Sites(), tiny_plan, home.runs / "old")
    with worked_on(folder):
        assert everything(home)[0] == "running"
        assert run_status_of(home.runs / "old").state is RunState.FINISHED


def test_while_it_runs_the_round_of_all_and_its_checkpoint_are_told(home, folder, tiny_plan):
    found = []

    def on_round(record):
        found.append((everything(home), run_status_of(folder).kept))

    with worked_on(folder):
        run(Sites(), tiny_plan, folder, on_round=on_round)
    assert [state for (state, _, _), _ in found] == ["running"] * 3
    assert [(k.path.stem, k.stage, k.server_round) for _, k in found] == [
        ("latest", "pretraining", 1),
        ("best", "finetuning", 1),
        ("best", "finetuning", 2),
    ]


def test_under_way_it_says_which_round_of_how_many(home, folder, tiny_plan):
    told = []

    class Asked(Sites):
        def train(self, message, context):
            told.append(everything(home))
            return super().train(message, context)

    with worked_on(folder):
        run(Asked(), tiny_plan, folder)
    assert {doing for _, doing, _ in told} == {
        "pretraining round 1 of 1",
        "finetuning round 1 of 2",
        "finetuning round 2 of 2",
    }


def test_a_killed_run_is_interrupted_and_keeps_its_checkpoint(home, folder, tiny_plan):
    with worked_on(folder) as process:
        run(Sites(), tiny_plan, folder)
        (folder / "summary.json").unlink()
        assert everything(home)[0] == "running"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    state, doing, headline = everything(home)
    assert (state, doing) == ("interrupted", f"interrupted: {GONE}")
    assert headline == f"The run was interrupted: {GONE}."
    assert "to resume it: mamfed-server resume first" in said(home, "status")


def test_stopped_then_resumed_then_ended(home, folder, tiny_plan):
    sites = Sites()
    with pytest.raises(StopRequested):
        run(sites, tiny_plan, folder, stopping=lambda: len(sites.trained) >= 3)
    assert everything(home) == ("stopped", "stopped", "The run was stopped.")
    RunFolder(folder).reopen()  # what start and resume do first
    with worked_on(folder):
        state, _, headline = everything(home)
        assert (state, headline) == ("running", "The run is running.")
        run(Sites(), tiny_plan, folder, resume=True)
        assert everything(home)[0] == "finished", "before its process is gone"
    state, doing, headline = everything(home)
    assert (state, doing) == ("finished", "finished")
    assert headline == "The run finished and is complete."
    assert "none yet" not in said(home, "status"), "nothing more is to come"


def test_a_failed_run_says_why(home, folder, tiny_plan):
    transport = Scripted(Sites())
    for node in NODES.values():
        transport.errors[node].append(2)
    with pytest.raises(RunError):
        run(Sites(), tiny_plan, folder, transport)
    state, doing, headline = everything(home)
    assert state == "failed"
    assert "quorum" in doing
    assert headline.startswith("The run failed: ")


def test_a_checkpoint_that_is_gone_is_not_told_of(home, folder, tiny_plan):
    run(Sites(), tiny_plan, folder)
    (folder / "summary.json").unlink()
    page = report_run(folder).read_text()
    assert "best checkpoint so far is from finetuning\nround 2" in page
    assert f"{folder}/checkpoints/best.safetensors" in page
    shutil.rmtree(folder / "checkpoints")
    everything(home)
    page = report_run(folder).read_text()
    assert "none in the run folder" in page
    assert "best checkpoint so far" not in page
    assert "its checkpoint is not in the run folder" in page


def test_stopped_before_its_server_process_began(home, folder, tiny_plan):
    RunFolder(folder).create(tiny_plan)
    supervisor._log_end(RunFolder(folder), 0, gave_up=False)
    assert everything(home)[0] == "stopped"


@pytest.mark.parametrize(
    ("gave_up", "words"), [(False, "ended with code 9"), (True, "crashed 10 times in a row")]
)
def test_a_server_process_that_died_for_good_is_the_reason(home, folder, tiny_plan, gave_up, words):
    RunFolder(folder).create(tiny_plan)
    supervisor._log_end(RunFolder(folder), 7 if gave_up else 9, gave_up=gave_up)
    state, doing, _ = everything(home)
    assert state == "interrupted"
    assert words in doing
    log = EventLog()
    log.open(folder)
    log.write("resumed", stage="pretraining", server_round=1)
    assert run_status_of(folder).reason == GONE, "an older death is no reason"


def test_start_takes_the_folder_and_forgets_how_the_run_ended(home, folder, tiny_plan, monkeypatch):
    sites, seen = Sites(), []
    with pytest.raises(StopRequested):
        run(sites, tiny_plan, folder, stopping=lambda: len(sites.trained) >= 3)

    def supervise(*_, **__):
        probe = [sys.executable, "-c", PROBE, str(home.path)]
        seen.append(subprocess.run(probe, check=True, capture_output=True, text=True).stdout)
        return 0

    monkeypatch.setattr(supervisor, "supervise", supervise)
    monkeypatch.setattr(supervisor, "_check_address", lambda settings: None)
    supervisor.run_server(home, tiny_plan, "first", Console(quiet=True))
    assert json.loads(seen[0])["state"] == "running"
    assert json.loads((home.path / STATUS).read_text())["run"] == "first"


PROBE = """
import sys
from mamfed_server.cli.main import app
app(["status", "--home", sys.argv[1], "--format", "json"])
"""


def test_the_expected_end_counts_the_rounds_that_are_left(home, folder, tiny_plan):
    plan = tiny_plan.changed(pretraining={**tiny_plan.pretraining.model_dump(), "rounds": 4})
    run(Sites(), plan, folder)
    (folder / "summary.json").unlink()
    kept = RunFolder(folder)
    records = [r.model_copy(update={"seconds": 600.0}) for r in kept.rounds()]
    now = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
    with worked_on(folder):
        kept.keep_rounds([records[0], records[-1]])
        assert (run_status_of(folder).ends_at(now) - now).total_seconds() == (3 + 1) * 600
        kept.keep_rounds(records[:1])
        assert run_status_of(folder).ends_at(now) is None, "how long stage 2 takes is not known"
    assert run_status_of(folder).ends_at(now) is None, "it does not run"


def test_who_is_connected_and_who_is_missing_since_when(home, folder, tiny_plan):
    run(Sites(), tiny_plan, folder)
    (folder / "summary.json").unlink()
    log = EventLog()
    log.open(folder)
    log.write("started", stage="pretraining", server_round=1)
    for kind, site in (("came", "ada"), ("came", "bea"), ("went", "bea")):
        log.write(kind, site=site)
    with worked_on(folder):
        shown = json.loads(said(home, "status", "--format", "json"))["sites"]
        assert [(s["site"], s["connected"], bool(s["since"])) for s in shown] == [
            ("bea", False, True),
            ("cleo", False, False),
            ("ada", True, True),
        ]
        text = said(home, "status")
    assert re.search(r"bea +missing since \d", text)
    assert re.search(r"cleo +missing since the start", text)
    assert re.search(r"ada +connected", text)


def test_a_damaged_summary_is_named_and_costs_the_other_runs_nothing(home, folder, tiny_plan):
    run(Sites(), tiny_plan, folder)
    run(Sites(), tiny_plan, home.runs / "other")
    (folder / "summary.json").write_text("{")
    with pytest.raises(DataError, match=r"summary\.json: damaged"):
        run_status_of(folder)
    text = said(home, "runs")
    assert "first: damaged" in text
    assert "other: finished" in text


def test_a_run_in_this_very_process_is_not_taken_for_another(folder, tiny_plan):
    """A simulation draws its page while it holds its folder."""
    RunFolder(folder).create(tiny_plan)
    with RunFolder(folder).alone():
        assert run_status_of(folder).state is RunState.INTERRUPTED


def test_the_latest_run_is_the_one_that_was_last_written_to(home, tiny_plan):
    for number, name in enumerate(("b", "a")):
        RunFolder(home.runs / name).create(tiny_plan)
        os.utime(home.runs / name / "plan.yaml", ns=(number, number))
    assert latest_run(home.runs) == home.runs / "a"
    with exclusive_lock(home.lock, "a server"):
        assert latest_run(home.runs) == home.runs / "a"
