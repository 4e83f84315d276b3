"""What a report reads: a run folder in any state, with or without notes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mamfed_common.errors import DataError, OutputError, RunError
from mamfed_common.plan import Stage
from mamfed_server.cli.main import app
from mamfed_server.report.data import CaseNote, Interval, RunNotes, read_run, write_notes
from mamfed_server.report.page import report_run
from mamfed_server.report.participation import RoundMark, mark_of, participation
from mamfed_server.run_folder.attendance import attendance
from mamfed_server.run_folder.folder import RunFolder

from .test_page import PLAN, Page, figure2, make_report, record


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of a real federation: no notes, no images."""
    report, folder = make_report(), RunFolder(tmp_path / "run")
    folder.create(PLAN)
    for one in report.rounds:
        folder.append_round(one)
    summary = report.summary
    del summary["arms"]["local"], summary["arms"]["centralised"]
    folder.write_summary(summary)
    return folder.path


def command(*words: Any) -> Any:
    return CliRunner().invoke(app, ["report", *(str(word) for word in words)])


def test_a_federations_page_has_results_and_no_images(run: Path) -> None:
    result = command(run, "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"report": str(run / "report.html")}
    assert "rejected: missing mask" in result.stderr
    page = Page(run / "report.html")
    assert page.rows_starting("alpha")[0] == ["alpha", "12", "0.62"]
    assert "Held-out images" not in page.text
    assert "There are no intervals, because sites send means" in page.text


def test_the_page_can_go_elsewhere(run: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in run.iterdir())
    assert command(run, "--out", tmp_path / "page.html").exit_code == 0
    assert Page(tmp_path / "page.html").rows_starting("alpha")
    assert sorted(path.name for path in run.iterdir()) == before
    result = command(run, "--out", tmp_path / "nowhere" / "page.html")
    assert isinstance(result.exception, OutputError)


def test_a_run_that_has_not_ended_says_so_and_shows_its_rounds(run: Path) -> None:
    (run / "summary.json").unlink()
    page = Page(report_run(run))
    assert 'class="status warning"' in page.html, "to go on is no failure"
    assert "The run was interrupted: its process is gone." in page.text
    assert "8 of 8 updates accepted" in page.text
    assert page.rows_starting("All")[-1][1] == "4"


def test_a_run_that_has_not_ended_makes_nothing_up(run: Path) -> None:
    (run / "summary.json").unlink()
    page = Page(report_run(run))
    assert "There are no results: the run was interrupted, and the test comes" in page.text
    assert "Overlap of marked and malignant pixels" not in page.text
    assert "0 rows in the tables" not in page.text
    assert "The sites' data are listed once the run has ended." in page.text
    assert "The chosen round is finetuning round 3; its checkpoint is not in the" in page.text


def test_an_approved_site_that_never_came_is_named_with_the_reason(run: Path) -> None:
    waiting = {"event": "waiting", "missing": {"alpha": "x", "gamma": "is not connected"}}
    later = {"event": "waiting", "missing": {"gamma": "calls itself by another name", "delta": "y"}}
    lines = [waiting, later, {"event": "described", "site": "delta"}]
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = Page(report_run(run))
    assert "gamma is approved but was never asked: calls itself by another name." in page.text
    assert page.text.count("was never asked") == 1, "alpha took part, delta came"


def test_a_run_without_notes_goes_by_its_name(run: Path) -> None:
    assert "<title>Run run</title>" in Page(report_run(run)).html


def test_rows_that_a_federations_sites_could_not_read_are_not_denied(run: Path) -> None:
    page = Page(report_run(run))
    assert "4 rejected" in page.text
    assert "Every row could be read" not in page.text
    assert "0 rejected rows" not in page.text


def test_a_run_without_a_round_has_a_page(run: Path) -> None:
    (run / "summary.json").unlink()
    (run / "rounds.jsonl").unlink()
    assert "No round has been completed." in Page(report_run(run)).text


def test_notes_bring_images_intervals_and_the_environment(run: Path) -> None:
    case = CaseNote(site="alpha", image="a-1.dcm", vendor="V", dice=0.04)
    notes = RunNotes(
        cases=(case,),
        cases_chosen_by="a rule",
        worst=(case, case.model_copy(update={"image": "a-2.dcm", "dice": 0.31})),
        intervals={"alpha": Interval(low=0.4, high=0.81, patients=7)},
        environment={"torch": "2.13.0"},
    )
    write_notes(run, notes, figure2())
    page = Page(report_run(run))
    assert ["alpha", "a-1.dcm", "V", "0.04", "0.62"] in page.rows
    assert ["alpha", "a-2.dcm", "V", "0.31", "0.62"] in page.rows
    assert ["alpha", "0.62", "0.40 to 0.81* (7 patients)"] in page.rows
    assert "Cases: a rule." in page.text
    assert "2.13.0" in page.text
    assert (run / "report.json").stat().st_mode & 0o777 == 0o600


def test_one_patient_has_no_interval(run: Path) -> None:
    write_notes(run, RunNotes(intervals={"alpha": Interval(low=None, high=None, patients=1)}))
    assert ["alpha", "0.62", "no interval (1 patient)"] in Page(report_run(run)).rows


def test_the_same_folder_gives_the_same_page(run: Path) -> None:
    write_notes(run, make_report().notes, figure2())
    first = report_run(run).read_bytes()
    assert report_run(run).read_bytes() == first


def test_other_arms_are_read_local_ones_first(run: Path) -> None:
    for name in ("centralised", "local-beta", "local-alpha"):
        arm = RunFolder(run / "arms" / name)
        arm.create(PLAN)
        arm.append_round(record(Stage.FINETUNING, 1, 0.3))
    assert list(read_run(run).other_rounds) == ["local-alpha", "local-beta", "centralised"]


def test_what_happened_is_counted(run: Path) -> None:
    lines = [{"event": "resumed"}, {"event": "resumed"}, {"event": "round"}, {"event": "stopped"}]
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "cut{")
    page = Page(report_run(run))
    assert "The server was restarted and resumed the run (2 times)." in page.text
    assert "The server was stopped by the coordinator (1 time)." in page.text


@pytest.mark.parametrize("name", ["summary.json", "report.json"])
def test_a_damaged_file_is_named(run: Path, name: str) -> None:
    (run / name).write_text("{")
    result = command(run)
    assert isinstance(result.exception, DataError)
    assert name in str(result.exception)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    result = command(tmp_path)
    assert isinstance(result.exception, RunError)
    assert "no run folder" in str(result.exception)


def test_marks_tell_refused_silent_and_not_asked_apart() -> None:
    asked = record(Stage.FINETUNING, 1, 0.4, {"beta": "late"})
    assert mark_of(asked, "alpha") is RoundMark.ACCEPTED
    assert mark_of(asked, "beta") is RoundMark.REFUSED
    silent = asked.model_copy(update={"answered": ("alpha",)})
    assert mark_of(silent, "beta") is RoundMark.SILENT
    assert mark_of(asked, "gamma") is RoundMark.NOT_ASKED
    assert len({mark.sign for mark in RoundMark}) == len(RoundMark), (
        "signs, not colours, tell them apart"
    )


def test_every_site_has_a_line_and_every_round_a_column() -> None:
    rounds = [record(Stage.PRETRAINING, 1, None)]
    rounds += [record(Stage.FINETUNING, n, 0.4) for n in range(1, 101)]
    rounds[-1] = record(Stage.FINETUNING, 100, 0.4, {"alpha": "late"})
    first, second = participation(rounds, attendance(rounds))
    assert (len(first.heads), len(second.heads)) == (1, 100)
    assert [head for head in second.heads if head][:3] == ["1", "5", "10"]
    assert [(line.site, line.accepted, line.rounds) for line in second.lines] == [
        ("alpha", 99, 100),
        ("beta", 100, 100),
    ]
    assert second.lines[0].marks[-1] is RoundMark.REFUSED


def test_the_page_shows_who_took_part(run: Path) -> None:
    page = Page(report_run(run))
    assert ["alpha", "3 of 3", "●", "●", "●"] in page.rows
    assert ["beta", "1 of 1", "●"] in page.rows


def test_a_moved_run_folder_gives_its_page(run: Path, tmp_path: Path) -> None:
    shutil.move(run, tmp_path / "elsewhere")
    assert Page(report_run(tmp_path / "elsewhere")).rows_starting("alpha")
