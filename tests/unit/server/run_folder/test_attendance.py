"""Absent sites count: in the summary, the report, ``show`` and the last line of ``start``."""

import pytest
from tests.unit.server.sites import NODES, Scripted, Sites, description, run, with_federation
from typer.testing import CliRunner

from mamfed_common.plan import Stage
from mamfed_server.cli.main import app
from mamfed_server.report.page import lines_of, report_run
from mamfed_server.run import requests
from mamfed_server.run_folder.attendance import (
    NOT_THERE,
    Attendance,
    attendance,
    due,
    updates_in_words,
)
from mamfed_server.run_folder.round_record import Contribution, RoundRecord
from mamfed_server.service import supervisor

AWAY = "not connected"


def record(number, accepted, *, refused=None, absent=None, stage=Stage.FINETUNING):
    refused = refused or {}
    took = {s: Contribution(num_examples={"malignant": 1}, share=1, loss=None) for s in accepted}
    asked = tuple(sorted({*took, *refused}))
    return RoundRecord(
        stage=stage,
        server_round=number,
        expected=asked,
        answered=tuple(took),
        accepted=took,
        refused=refused,
        absent=absent or {},
    )


@pytest.fixture
def late(tmp_path, tiny_plan, monkeypatch):
    """A run of three sites, of which cleo comes to the third round only."""
    monkeypatch.setattr(requests, "LONGEST_PAUSE", 0.01)
    plan = with_federation(tiny_plan, join_seconds=0, offline_seconds=0.3, min_sites=2)
    sites = Sites()
    transport = Scripted(sites)
    transport.away.add(NODES["cleo"])

    def on_round(done):
        if done.server_round == 1 and done.stage is Stage.FINETUNING:
            transport.away.clear()

    options = {"names": lambda: NODES, "min_sites": 2, "resume": True, "on_round": on_round}
    return run(sites, plan, tmp_path / "late", transport, **options)


def test_a_site_that_came_late_is_missing_from_the_result(late):
    assert [r.absent for r in late.rounds()] == [{"cleo": AWAY}, {"cleo": AWAY}, {}]
    assert late.read_summary()["complete"] is False
    said = lines_of(late.path)
    assert said[0] == "The run finished, but something is missing from it."
    assert said[1] == "7 of 9 updates accepted (3 rounds)."
    assert f"cleo: update in 0 of 1 round of pretraining (1 x {AWAY})." in said
    assert f"cleo: update in 1 of 2 rounds of finetuning (1 x {AWAY})." in said
    shown = CliRunner().invoke(app, ["show", str(late.path)]).stdout
    assert "3 of 3 rounds done, 7 of 9 updates accepted" in shown
    assert "pretraining 1: 2 of 3 sites" in shown
    assert f"cleo: update in 1 of 2 rounds of finetuning (1 x {AWAY})" in shown
    ending = supervisor._final_line(late, 0)
    assert ending.startswith("finished; checkpoint: ")
    assert "cleo: update in 0 of 1 round of pretraining" in ending


def test_the_page_counts_it_too(late):
    page = report_run(late.path).read_text()
    assert "<td>0 of 1</td>" in page
    assert "<td>2 of 3</td>" in page
    assert f"cleo: {AWAY}" in page


def test_all_sites_in_all_rounds_are_complete(tmp_path, tiny_plan):
    folder = run(Sites(), tiny_plan, tmp_path / "run")
    assert folder.read_summary()["complete"] is True
    assert supervisor._final_line(folder, 0).endswith("best.safetensors")


def test_a_site_without_cases_of_a_stage_is_not_missing_from_it(tmp_path, tiny_plan):
    sites = Sites()
    sites.descriptions["cleo"] = description("cleo", malignant=0)
    folder = run(sites, tiny_plan, tmp_path / "run")
    assert folder.read_summary()["complete"] is True
    assert lines_of(folder.path)[1] == "7 of 7 updates accepted (3 rounds)."


def test_a_described_site_without_cases_is_not_due_though_it_was_away():
    rounds = [record(1, ["ada"], absent={"bea": AWAY})]
    assert [line.site for line in attendance(rounds, {}, ["bea"])] == ["ada"]
    assert [line.site for line in attendance(rounds, {}, [])] == ["ada", "bea"]
    members = {Stage.FINETUNING: ["ada", "bea"]}
    assert [line.site for line in attendance(rounds, members, ["bea"])] == ["ada", "bea"]


def test_reasons_are_counted_and_add_up():
    rounds = [
        record(1, ["ada"], refused={"bea": "late"}),
        record(2, ["ada"], refused={"bea": "late"}),
        record(3, ["ada", "bea"]),
        record(4, ["ada"], absent={"bea": AWAY}),
        record(5, ["ada"]),
    ]
    ada, bea = attendance(rounds)
    assert ada == Attendance("ada", Stage.FINETUNING, 5, 5, {})
    assert bea.reasons == {"late": 2, AWAY: 1, NOT_THERE: 1}
    assert bea.missed == sum(bea.reasons.values()) == 4
    assert updates_in_words([ada, bea]) == "6 of 10 updates accepted"
    assert due(rounds[4], [ada, bea]) == 2
