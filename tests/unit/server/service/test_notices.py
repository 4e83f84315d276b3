"""What a coordinator's people are told, and what Prometheus reads, from homes in each state."""

import json
import os
import re
import subprocess
import time
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.unit.client.homes import new_site
from tests.unit.common.notify.receivers import free_port, port_of, web_server
from tests.unit.server.homes import new_coordinator
from tests.unit.server.run.test_state import worked_on
from tests.unit.server.sites import Sites, run
from typer.testing import CliRunner

from mamfed_client.node.metrics import metrics as site_metrics
from mamfed_common.notify.settings import Notify
from mamfed_common.runtime.child_processes import module_command
from mamfed_server.cli.main import app
from mamfed_server.run_folder.event_log import EventLog
from mamfed_server.service import notices as notices_module
from mamfed_server.service.metrics import metrics, refusal_kind
from mamfed_server.service.notices import notices
from mamfed_server.service.watchman import __name__ as WATCHMAN

QUIET = {"disk_free_gib": 0, "certificate_days": 1}


@pytest.fixture
def home(tmp_path, tiny_plan):
    home = new_coordinator(tmp_path / "home")
    run(Sites(), tiny_plan, home.runs / "first")
    return home


@pytest.fixture
def running(home):
    """The run without its end, as another process works on it, and a way to log events."""
    (home.runs / "first" / "summary.json").unlink()
    log = EventLog()
    log.open(home.runs / "first")
    with worked_on(home.runs / "first") as process:
        yield log
        process.kill()


def told(home, **settings):
    return {n.event: n for n in notices(home, Notify(**{**QUIET, **settings}))}


def test_a_run_that_ended_is_told_with_how(home):
    [(event, notice)] = told(home).items()
    assert event == "run ended"
    assert notice.subject == "run first has finished, 3 of 3 rounds done"


def test_a_round_with_too_few_updates_and_a_pause_are_told(home, running):
    running.write("started", stage="finetuning", server_round=3)
    assert not told(home)
    running.write("below the floor", stage="finetuning", server_round=9, warning="1 of 3 updates")
    failed = told(home)["round failed"]
    assert "1 of 3 updates" in failed.text
    facts = {"stage": "finetuning", "need": 2, "ready": ["ada"], "missing": {"bea": "x"}}
    running.write("paused", since="2026-11-30T03:00:00+00:00", **facts)
    found = told(home)
    assert set(found) == {"round failed", "run paused"}
    assert "bea (x)" in found["run paused"].text
    running.write("round", stage="finetuning", server_round=9)
    assert set(told(home)) == {"round failed"}


def test_a_site_is_gone_after_the_stated_time(home, running, monkeypatch):
    running.write("started", stage="finetuning", server_round=3)
    running.write("came", site="ada")
    for site in ("bea", "cleo"):
        running.write("came", site=site)
    running.write("went", site="bea")
    assert "site gone" not in told(home, gone_minutes=30)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(minutes=31)

    monkeypatch.setattr(notices_module, "datetime", Later)
    found = [n for n in notices(home, Notify(**QUIET, gone_minutes=30)) if n.event == "site gone"]
    assert [n.subject for n in found] == ["site bea has been missing for 31 minutes"]


def test_a_certificate_near_its_end_and_a_full_disk_are_told(home):
    found = told(home, certificate_days=3650, disk_free_gib=100_000)
    assert "expires in" in found["certificate ends"].subject
    assert "sites rotate" in found["certificate ends"].text
    assert "GiB are free" in found["disk nearly full"].subject


def values(home):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics(home)
        for sample in metric.samples
    }


def test_the_metrics_are_those_of_the_rounds(home):
    records = [json.loads(line) for line in (home.runs / "first/rounds.jsonl").open()]
    found = values(home)
    assert found["mamfed_run_state", "finished"] == 1
    assert found["mamfed_run_state", "running"] == 0
    assert found["mamfed_rounds_done",] == found["mamfed_rounds_planned",] == len(records)
    assert found["mamfed_site_updates_accepted_total", "ada"] == 3
    assert found["mamfed_round_seconds",] == records[-1]["seconds"]
    assert found["mamfed_pooled_validation_dice",] == records[-1]["pooled_validation_dice"]
    assert 390 < found["mamfed_certificate_days",] < 400
    assert found["mamfed_unreadable_parts",] == 0


def test_a_part_that_cannot_be_read_is_counted(home):
    home.server_certificate.write_text("x")
    found = values(home)
    assert found["mamfed_unreadable_parts",] == 1
    assert ("mamfed_disk_free_bytes",) in found


def test_refusals_have_a_bounded_number_of_kinds():
    assert refusal_kind("the site has not approved this plan yet") == "plan_not_approved"
    assert refusal_kind("no answer within 4 minutes") == "late"
    assert refusal_kind("block3.weight is not finite") == "unusable"


DASHBOARD = Path(__file__).parents[4] / "deploy" / "grafana" / "mamfed.json"


def test_the_dashboard_asks_for_metrics_that_exist(home, running, tmp_path):
    running.write("started", stage="finetuning", server_round=3)
    running.write("round", stage="finetuning", server_round=9)
    families = [*metrics(home), *site_metrics(new_site(tmp_path / "site"))]
    there = {family.name for family in families}  # a site that is approved has samples
    there |= {sample.name for family in families for sample in family.samples}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"mamfed_\w+", target["expr"])
    }
    assert len(asked) > 15
    assert asked <= there


def set_up(home, **values):
    text = home.settings_path.read_text()
    for key, value in values.items():
        line = next(x for x in text.splitlines() if x.strip().startswith(f"{key}:"))
        text = text.replace(line, f"{line.partition(':')[0]}: {json.dumps(value)}")
    home.settings_path.write_text(text)


def test_the_watchman_serves_metrics_tells_of_the_end_and_ends(home):
    port = free_port()
    with web_server() as server:
        hook = {"url": f"http://127.0.0.1:{port_of(server)}/x"}
        set_up(home, webhook=hook, metrics_port=port, disk_free_gib=0)
        process = subprocess.Popen(
            module_command(WATCHMAN, str(home.path)), env=os.environ, stderr=subprocess.PIPE
        )
        page = ""
        deadline = time.monotonic() + 60
        while not page and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    page = answer.read().decode()
            except OSError:
                time.sleep(0.2)
        process.terminate()
        said = process.communicate(timeout=60)[1]
        assert (process.returncode, said) == (0, b"")
        assert [body["event"] for _, _, body in server.got] == ["run ended"]
    assert "mamfed_rounds_done 3.0" in page


def test_the_trial_says_what_happened_by_its_exit_code(home):
    def trial():
        return CliRunner().invoke(app, ["notify", "test", "--home", str(home.path)])

    assert "notify sets no channel" in str(trial().exception)
    assert trial().exception.exit_code == 9
    with web_server() as server:
        set_up(home, webhook={"url": f"http://127.0.0.1:{port_of(server)}/x"})
        done = trial()
        assert (done.exit_code, done.stdout) == (0, "webhook: sent, 127.0.0.1 answered 200\n")
    failed = trial()
    assert failed.stdout == "webhook: failed, 127.0.0.1: Connection refused\n"
    assert failed.exception.exit_code == 10
