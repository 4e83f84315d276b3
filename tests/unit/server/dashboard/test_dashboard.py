"""What the coordinator's page says of a home, and what can be done on it."""

import json
import os
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from tests.unit.common.web.served import Served, served
from tests.unit.server.homes import new_coordinator, new_site, request_of
from tests.unit.server.run.test_state import worked_on
from tests.unit.server.sites import Sites, run

from mamfed_common.plan import Stage
from mamfed_common.security.enrolment import write_document
from mamfed_common.web.pages import Look, Pages
from mamfed_server.admission.approval import approve
from mamfed_server.admission.registry import load_sites
from mamfed_server.dashboard import application, event_view
from mamfed_server.dashboard.application import RunPage
from mamfed_server.dashboard.decisions import REQUESTS, decisions, keep_request
from mamfed_server.dashboard.run_view import dice_curves, loss_curves, run_view
from mamfed_server.dashboard.site_states import LEVELS, site_views
from mamfed_server.run_folder.event_log import EventLog
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.service.status import read_status


@pytest.fixture
def home(tmp_path, tiny_plan):
    """A home with a run that ada, bea and cleo have begun."""
    made = new_coordinator(tmp_path / "home")
    folder = run(Sites(), tiny_plan, made.runs / "first")
    (folder.path / "summary.json").unlink()
    folder.keep_rounds(folder.rounds()[:2])
    note(made, "started", stage="finetuning", server_round=1)
    for site in ("ada", "bea", "cleo"):
        note(made, "came", site=site)
    record = folder.rounds()[-1]
    where = {"stage": str(record.stage), "server_round": record.server_round + 1}
    note(made, "round", **where, sites=["ada", "bea", "cleo"], absent={})
    return made


def note(home, kind, **facts):
    log = EventLog()
    log.open(home.runs / "first")
    log.write(kind, **facts)


def contacts(home, now, **ages):
    """Write when each site contacted the server, in seconds ago, as its process does."""
    times = {n: (now - timedelta(seconds=age)).isoformat() for n, age in ages.items()}
    content = {"time": now.isoformat(), "run": "first", "last_contact": times}
    (home.path / "status.json").write_text(json.dumps(content))


def seen(home, now):
    """Return the run and the sites on the page while a process works on the run."""
    with worked_on(home.runs / "first"):
        status = read_status(home)
        sites = site_views(home, status, {}, now)
        return run_view(status, sites, now), sites


def test_a_site_is_silent_after_ten_seconds_and_comes_first(home):
    now = datetime.now(UTC)
    contacts(home, now, ada=1, bea=11, cleo=9)
    view, sites = seen(home, now)
    assert [site.site for site in sites] == ["bea", "ada", "cleo"]
    assert sites[0].state == "Silent"
    assert {site.state for site in sites[1:]} == {"Training"}
    assert view.level == "warning"
    note(home, "went", site="cleo")
    _, sites = seen(home, now)
    assert {site.site: site.state for site in sites}["cleo"] == "Not connected"


def test_a_server_that_writes_nothing_is_what_is_silent(home):
    now = datetime.now(UTC)
    contacts(home, now, ada=1, bea=1, cleo=1)
    view, sites = seen(home, now + timedelta(seconds=40))
    assert view.headline == "The server does not say what it does"
    assert "Silent" not in {site.state for site in sites}


def test_an_update_on_disk_means_that_a_site_is_done(home):
    now = datetime.now(UTC)
    contacts(home, now, ada=1, bea=1, cleo=1)
    updates = home.runs / "first" / "updates"
    updates.mkdir(exist_ok=True)
    for site, age in (("ada", -2), ("bea", 3600)):
        path = updates / f"{site}.update"
        path.write_bytes(b"")
        os.utime(path, (now.timestamp() - age, now.timestamp() - age))
    _, sites = seen(home, now)
    states = {site.site: site.state for site in sites}
    assert states == {"ada": "Done", "bea": "Training", "cleo": "Training"}


def test_a_site_that_takes_far_longer_than_usual_is_late(home):
    now = datetime.now(UTC)
    contacts(home, now, ada=1, bea=1, cleo=1)
    _, sites = seen(home, now)
    assert all(site.level in LEVELS for site in sites)
    later = now + timedelta(hours=2)
    contacts(home, later, ada=1, bea=1, cleo=1)
    _, sites = seen(home, later)
    assert {site.state for site in sites} == {"Late"}


def test_a_refused_site_says_why(home):
    folder = RunFolder(home.runs / "first")
    first, last = folder.rounds()
    accepted = {site: update for site, update in last.accepted.items() if site != "bea"}
    refused = {"accepted": accepted, "refused": {"bea": "weights are not finite"}}
    folder.keep_rounds([first, last.model_copy(update=refused)])
    note(home, "waiting", stage="finetuning", need=3, ready=[], missing={})
    now = datetime.now(UTC)
    contacts(home, now, ada=1, bea=1, cleo=1)
    view, sites = seen(home, now)
    assert (sites[0].site, sites[0].state) == ("bea", "Refused")
    assert "weights are not finite" in sites[0].detail
    assert view.headline == "Waiting for sites"
    why = "the site's policy does not allow this plan"
    note(home, "waiting", stage="finetuning", need=3, ready=[], missing={"cleo": why})
    _, sites = seen(home, now)
    assert {(site.site, site.state, site.detail) for site in sites} >= {
        ("cleo", "Cannot take part", why)
    }


def test_curves_hold_each_site_and_all_of_them(home):
    status = read_status(home)
    losses = [loss_curves(status.run.rounds, stage) for stage in Stage]
    shown = next(each for each in losses if each["x"])
    assert shown["series"][0]["label"] == "all sites"
    assert {each["label"] for each in shown["series"][1:]} <= {"ada", "bea", "cleo"}
    assert all(len(each["values"]) == len(shown["x"]) for each in shown["series"])
    assert dice_curves([])["x"] == []


def test_an_interrupted_run_and_a_request_wait_for_a_person(home, tmp_path):
    folder = home.path / REQUESTS
    folder.mkdir()
    write_document(folder / "north.json", request_of(new_site(tmp_path / "north"), "north"))
    (folder / "bad.json").write_text("{")
    now = datetime.now(UTC)
    status = read_status(home)
    view = run_view(status, [], now)
    found = decisions(home, status, view, load_sites(home), now)
    texts = [decision.text for decision in found]
    assert [decision.button for decision in found] == ["Resume", "", "Look at it"]
    assert "interrupted" in texts[0]
    assert "bad.json" in texts[1]
    later = decisions(home, status, view, {}, now + timedelta(days=380))
    assert any("certificate ends in" in decision.text for decision in later)


def test_a_silent_site_waits_for_a_person_who_is_told_whom_to_phone(home, tmp_path):
    now = datetime.now(UTC)
    approve(home, request_of(new_site(tmp_path / "bea"), "bea", "Dr Bea, 12"), replace=False)
    for contact in ("Phone it: Dr Bea, 12.", "Phone it; its request named no contact."):
        contacts(home, now, ada=1, bea=11, cleo=1)
        with worked_on(home.runs / "first"):
            status, entries = read_status(home), load_sites(home)
            sites = site_views(home, status, entries, now)
            view = run_view(status, sites, now)
            found = decisions(home, status, view, entries, now, sites)
        assert [decision.button for decision in found] == ["What happened"]
        assert found[0].text.startswith("bea: silent, since ")
        assert found[0].text.endswith(contact)
        assert found[0].address == "/log?site=bea"
        assert view.explanation == "Not well: bea (Silent)."
        (home.path / "sites" / "bea.json").unlink(missing_ok=True)


def test_a_log_goes_on_where_a_page_was_and_starts_anew_with_another_run(home):
    status = read_status(home)
    last = event_view.position(status.run)
    assert event_view.known_of(last, status.run) == len(status.run.events)
    assert event_view.known_of("other:1", status.run) is None
    assert event_view.known_of("first:999999", status.run) == len(status.run.events)
    lines = event_view.event_lines(status.run.events, {"kind": "came", "site": "bea"})
    assert [line.text for line in lines] == ["bea has connected"]


@pytest.fixture
def site(home, monkeypatch):
    """The whole page of a home, behind a real server."""
    running = []

    def serve(pages, routes, listen, path, on_ready):
        running.append((pages, routes, path))

    monkeypatch.setattr(application, "serve", serve)
    application.serve_dashboard(home, None, 0.05, print)
    pages, routes, path = running[0]
    with served(routes, path, pages=pages) as server:
        yield server


def post(server: Served, client: httpx.Client, path: str, **fields) -> httpx.Response:
    token = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text).group(1)
    headers = {"origin": server.base}
    return client.post(path, data={"csrf": token, **fields}, headers=headers)


def test_a_request_is_approved_only_as_it_was_compared(site, home, tmp_path):
    asked = request_of(new_site(tmp_path / "north"), "north", "Dr <b>Ada</b>")
    with site.client() as client:
        kept = post(site, client, "/sites/request", request=asked.model_dump_json())
        assert kept.headers["location"] == "/sites/approve?request=north.json"
        page = client.get(kept.headers["location"]).text
        assert asked.fingerprint() in page
        assert "Dr &lt;b&gt;Ada" in page
        fields = {"request": "north.json", "fingerprint": asked.fingerprint()}
        assert post(site, client, "/sites/approve", **fields).status_code == 409
        other = request_of(new_site(tmp_path / "other"), "north")
        write_document(home.path / REQUESTS / "north.json", other)
        changed = post(site, client, "/sites/approve", **fields, confirmed="yes")
        assert "has changed since" in changed.text
        assert load_sites(home) == {}
        write_document(home.path / REQUESTS / "north.json", asked)
        done = post(site, client, "/sites/approve", **fields, confirmed="yes")
        assert done.headers["location"] == "/sites?done=approved&welcome=north"
        assert load_sites(home)["north"].status == "active"
        assert client.get("/sites/welcome?site=north").json()["site"] == "north"
        assert client.get("/sites/welcome?site=../server").status_code == 409
        post(site, client, "/sites/revoke", site="north", confirmed="yes")
    assert load_sites(home)["north"].status == "revoked"
    actions = (home.path / "actions.jsonl").read_text().splitlines()
    kinds = [(json.loads(line)["event"], json.loads(line)["by"]) for line in actions]
    assert kinds == [("site approved", "local"), ("site revoked", "local")]


@pytest.mark.parametrize(
    "path",
    ["/", "/sites", "/plans", "/results", "/results/first", "/log", "/stop", "/resume?run=first"],
)
def test_every_page_can_be_read(site, path):
    with site.client() as client:
        answer = client.get(path)
    assert answer.status_code == 200
    assert "<h1" in answer.text
    assert 'style="' not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/results/%2E%2E", "/results/nothing", "/results/first/file/plan.key",
        "/results/first/file/..%2F..%2Fplan.key", "/results/first/file/%2Fetc%2Fpasswd",
        "/sites/approve?request=../server.yaml", "/sites/revoke?site=nobody",
        "/start?plan=server.yaml", "/start?plan=../x.yaml", "/resume?run=../first",
    ],
)  # fmt: skip
def test_nothing_outside_is_read(site, path):
    with site.client() as client:
        answer = client.get(path)
    assert answer.status_code in (404, 409)
    assert "PRIVATE" not in answer.text


def test_a_checkpoint_and_the_report_are_downloaded_as_they_are(site, home):
    (home.runs / "first" / "report.html").write_text("<p>report</p>")
    with site.client() as client:
        page = client.get("/results/first").text
        name = re.search(r'file/(checkpoints/\w+\.safetensors)"', page).group(1)
        answer = client.get(f"/results/first/file/{name}")
        report = client.get("/results/first/report")
    assert answer.content == (home.runs / "first" / name).read_bytes()
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in report.headers["content-security-policy"]


def test_a_home_without_a_run_has_a_page(tmp_path):
    home = new_coordinator(tmp_path / "empty")
    panels = RunPage(home, Pages("mamfed_server.dashboard", Look("x", "server")), 1).panels()
    assert "No run yet" in panels["run"]
    assert "No site is approved yet" in panels["sites"]


def test_a_pasted_text_that_is_no_request_is_not_kept(tmp_path):
    home = new_coordinator(tmp_path / "empty")
    with pytest.raises(Exception, match="expected"):
        keep_request(home, '{"site": "../../x"}')
    assert list((home.path / REQUESTS).iterdir()) == []
