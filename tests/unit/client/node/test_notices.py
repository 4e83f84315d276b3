"""What a site's people are told, and what Prometheus reads, from its home."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.client.homes import new_site, run_client

from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.node.metrics import metrics
from mamfed_client.node.notices import notices
from mamfed_client.site.status import RunEnding, Status
from mamfed_common.notify.settings import Notify
from mamfed_common.runtime.files import write_atomic

QUIET = Notify(disk_free_gib=0)


@pytest.fixture
def home(tmp_path):
    return new_site(tmp_path / "home")


def told(home):
    return {n.event: n for n in notices(home, QUIET)}


def state(home, **facts):
    write_atomic(home.status, Status(**facts).model_dump_json())


def test_a_plan_that_waits_is_told(home, tiny_plan):
    assert not told(home)
    PlanStore(home.plans).remember(tiny_plan)
    found = told(home)
    sha256 = tiny_plan.sha256()[:12]
    [notice] = found.values()
    assert notice.subject.startswith(f"plan {sha256} ")


def test_an_ended_run_is_told_without_the_path_of_its_model(home):
    state(home, ended=RunEnding(run="first", how="finished", model="/home/x/models/secret"))
    notice = told(home)["run ended"]
    assert notice.subject == "run first has finished"
    assert "secret" not in notice.subject + notice.text


def test_a_server_gone_is_told_after_the_stated_time_only(home, monkeypatch):
    monkeypatch.setattr("mamfed_client.node.overview.holder", lambda _: object())
    error = "/data/patient-7.dcm: no"
    for minutes, is_told in ((29, False), (31, True)):
        since = datetime.now(UTC) - timedelta(minutes=minutes)
        state(home, state="unreachable", since=since, error=error)
        assert ("server gone" in told(home)) == is_told
    assert "patient-7" not in "".join(told(home)["server gone"])


def test_the_metrics_of_a_site(home, tiny_plan):
    PlanStore(home.plans).remember(tiny_plan)
    found = {
        (s.name, *s.labels.values()): s.value for metric in metrics(home) for s in metric.samples
    }
    assert found["mamfed_site_state", "stopped"] == 1
    assert found["mamfed_plans_waiting",] + found["mamfed_plans_blocked",] == 1
    assert found["mamfed_audit_lines",] == 0
    assert found["mamfed_unreadable_parts",] == 0


def test_the_trial_of_a_site_without_a_channel_is_refused(home):
    done = run_client("notify", "test", "--home", home.path)
    assert "notify sets no channel" in str(done.exception)
