"""The page of ``mamfed-server start --dashboard`` in a real browser, when things go wrong.

One run for all: connections break, the server dies, a person has no mouse, a run is stopped and
goes on, and everything is downloaded in the end.
"""

import hashlib
import json
import os
import re
import signal
import time
from functools import partial

import pytest
from tests.processes.bad_line import Line as SlowLine
from tests.processes.bad_line import send_over
from tests.processes.browser import CHROMIUM, Line, check_pages, focus, opened, signed_in
from tests.processes.deployment import Deployment, free_port
from tests.processes.deployment import wait_until as wait_until_briefly
from tests.processes.phantoms import small_plan

from mamfed_server.dashboard.event_view import event_lines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
]
wait_until = partial(wait_until_briefly, seconds=900)
ROUNDS = 20
BYTES_A_SECOND = 15_000
"""The run must outlast what is done to its pages, on a fast machine too: one site's slow line takes
2 s for the small model, each way."""
OFFLINE_SECONDS = 10
BROKEN = re.compile(r"net::ERR_|^htmx: htmx:sse:error: ")
"""What a browser's console says about a broken connection."""
JOURNAL = """() => [...document.querySelectorAll("#journal li")].map(
  line => [line.querySelector("time").dateTime, line.querySelector("span").innerText])"""
CURVES = (
    """() => JSON.parse(document.getElementById("stage2-data")?.dataset.series || '{"x": []}')"""
)


@pytest.fixture(scope="module")
def federation(tmp_path_factory, phantoms):
    """A coordinator that was started with a page, its three sites, and a fourth that asks."""
    folder, names = tmp_path_factory.mktemp("hardships"), sorted(phantoms)
    with Deployment(folder, phantoms) as running:
        running.change_policy(names[-1], plans={"approval": "manual"})
        running.make_site("delta", phantoms[names[0]])
        running.command("mamfed-client", "enroll", "--home", running.site_home("delta"))
        plan = running.server_home / "plan.yaml"
        plan.write_text(small_plan(pretraining=1, finetuning=ROUNDS, join_seconds=1).to_yaml())
        running.slow = SlowLine(running.port, bytes_per_second=BYTES_A_SECOND)
        send_over(running, names[0], f"127.0.0.1:{running.slow.port}")
        port = free_port()
        running.start(
            "server", "mamfed-server", "start", "--plan", plan, "--run", "run",
            "--home", running.server_home, "--dashboard", "--dashboard-port", port,
        )  # fmt: skip
        address = running.server_home / "dashboard.url"
        wait_until(address.exists, "the page can be opened")
        running.line, running.last = Line(port), names[-1]
        running.address = address.read_text().strip().replace(f":{port}/", f":{running.line.port}/")
        yield running
        for line in (running.line, running.slow):
            line.close()
        running.command("mamfed-server", "stop", "--home", running.server_home)


@pytest.fixture(scope="module")
def page(federation, browser):
    with signed_in(browser, federation.address) as tab:
        yield tab


@pytest.fixture(scope="module")
def site_page(federation, browser):
    """The page of the site that decides on each plan."""
    home = federation.site_home(federation.last)
    federation.start(
        "site page", "mamfed-client", "dashboard", "--home", home, "--port", free_port()
    )
    wait_until((home / "dashboard.url").exists, "the site's page can be opened")
    with signed_in(browser, (home / "dashboard.url").read_text().strip()) as tab:
        yield tab


@pytest.fixture(scope="module")
def later_page(federation, browser):
    """The page of ``mamfed-server dashboard``, once that of the start has ended."""
    address = federation.server_home / "dashboard.url"
    federation.start(
        "page", "mamfed-server", "dashboard", "--home", federation.server_home,
        "--port", free_port(), "--every", "0.5",
    )  # fmt: skip
    wait_until(address.exists, "the page can be opened again")
    with signed_in(browser, address.read_text().strip()) as tab:
        yield tab


def _events(federation):
    lines = (federation.run_folder() / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _trained(federation):
    """Return the overall training loss by round of stage 2, as the run folder has it."""
    found = {}
    for record in federation.rounds():
        if record["stage"] == "finetuning":
            sites = record["accepted"].values()
            total = sum(site["share"] for site in sites)
            loss = sum(site["share"] * site["loss"] for site in sites) / total
            found[record["server_round"]] = pytest.approx(loss, abs=1e-5)
    return found


def _server_pid(federation):
    try:
        return json.loads((federation.server_home / "status.json").read_text()).get("pid")
    except (OSError, ValueError):
        return None


def _go(page, path):
    page.goto("/".join(page.url.split("/")[:3]) + path)


def test_a_site_is_approved_without_a_mouse(page, federation):
    request = federation.site_home("delta") / "request.json"
    focus(page, "Sites")
    page.keyboard.press("Enter")
    page.wait_for_url("**/sites")
    focus(page, "request")
    page.keyboard.insert_text(request.read_text())
    focus(page, "Look at it")
    page.keyboard.press("Enter")
    page.wait_for_url("**/sites/approve?request=*")
    check_pages(page, ["/sites/approve?request=delta.json"])
    focus(page, "checkbox")
    page.keyboard.press("Space")
    focus(page, "Approve")
    page.keyboard.press("Enter")
    page.wait_for_url("**/sites?done=approved*")
    focus(page, "Download the welcome file")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert json.loads(open(download.value.path()).read())["site"] == "delta"
    entry = json.loads((federation.server_home / "sites" / "delta.json").read_text())
    assert entry["status"] == "active"
    assert page.complaints == []


def test_a_plan_is_approved_without_a_mouse(site_page, federation, phantoms):
    for name in phantoms:
        federation.start_site(name)
    _go(site_page, "/plans")
    waits = site_page.locator("text=Waits for you")
    waits.wait_for()  # it comes by the stream
    sha256 = site_page.locator("a.main").first.get_attribute("href").split("/")[2]
    focus(site_page, f"Approve plan {sha256[:12]}")
    site_page.keyboard.press("Enter")
    site_page.wait_for_url("**/approve")
    check_pages(site_page, [f"/plans/{sha256}/{word}" for word in ("refuse", "approve")])
    focus(site_page, "checkbox")
    site_page.keyboard.press("Space")
    focus(site_page, "Approve the plan")
    site_page.keyboard.press("Enter")
    site_page.wait_for_url("**/plans")
    decisions = federation.site_home(federation.last) / "plans" / "decisions.jsonl"
    decision = json.loads(decisions.read_text().splitlines()[0])
    assert (decision["plan_sha256"], decision["decision"]) == (sha256, "approved")
    assert site_page.complaints == []


def _break_offline(page, federation):
    page.context.set_offline(True)
    assert federation.line.cut() >= 2
    time.sleep(OFFLINE_SECONDS)
    page.context.set_offline(False)


def _break_streams(page, federation):
    assert federation.line.cut() >= 2


def _break_server(page, federation):
    pid = _server_pid(federation)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _server_pid(federation) not in (None, pid), "a new server process")


def test_broken_connections_lose_no_point_and_no_event(page, federation):
    _go(page, "/")
    log = opened(page.context, page.url + "log")
    wait_until(lambda: len(_trained(federation)) >= 1, "a round ends")
    for break_it in (_break_offline, _break_streams, _break_server):
        wait_until(lambda: federation.line.count() >= 2, "both pages listen")
        break_it(page, federation)
        goal = len(_trained(federation)) + 1
        wait_until(lambda least=goal: len(_trained(federation)) >= least, "rounds go on")
    known, happened = _trained(federation), _events(federation)
    wait_until(lambda: len(page.evaluate(CURVES)["x"]) >= len(known), "all points are shown")
    wait_until(lambda: len(log.evaluate(JOURNAL)) >= len(happened), "all events are shown")
    curves, lines = page.evaluate(CURVES), log.evaluate(JOURNAL)
    shown = dict(zip(curves["x"], curves["series"][0]["values"], strict=True))
    assert list(shown) == list(range(1, len(shown) + 1))
    now = _trained(federation)
    assert shown == {number: now[number] for number in shown}
    assert page.locator("#stage2-chart .u-legend tr").count() == 5  # round, all, three sites
    told = [[line.stamp, line.text] for line in event_lines(_events(federation), {})]
    assert lines == told[len(told) - len(lines) :]
    assert page.locator("#connection").inner_text() == ""
    for tab in (page, log):
        expected = [said for said in tab.complaints if BROKEN.search(said)]
        assert tab.complaints == expected
        assert expected, "the browser must have noticed"
        tab.complaints.clear()
    log.close()


def test_a_run_is_stopped_without_a_mouse_and_its_page_says_that_it_ended(page, federation):
    _go(page, "/")
    focus(page, "Stop")
    time.sleep(5)  # the stream renews the panel meanwhile, and must leave the focus where it is
    page.keyboard.press("Enter")
    page.wait_for_url("**/stop")
    check_pages(page, ["/stop"])
    focus(page, "Stop the run")
    page.keyboard.press("Enter")
    assert federation.processes.pop("server").wait(240) == 0
    asked = json.loads((federation.server_home / "actions.jsonl").read_text().splitlines()[-1])
    assert (asked["event"], asked["by"]) == ("stop asked", "local")
    assert not (federation.server_home / "dashboard.url").exists()
    wait_until(
        lambda: "No connection" in page.locator("#connection").inner_text(), "the page says so"
    )
    assert 0 < len(_trained(federation)) < ROUNDS


def test_a_stopped_run_is_resumed_by_clicking_and_ends(later_page, federation):
    page = later_page
    assert "stopped" in page.inner_text("#run h1")
    federation.slow.bytes_per_second = 0  # nobody waits for what comes now
    page.get_by_role("link", name="Resume").click()
    check_pages(page, ["/resume?run=run"])
    page.get_by_role("button", name="Resume").click()
    page.wait_for_url("**/")
    wait_until(lambda: "finished" in page.inner_text("#run h1"), "the run ends", pause=0.5)
    assert f"{ROUNDS + 1} of {ROUNDS + 1} rounds done" in page.inner_text("#run")
    assert list(_trained(federation)) == list(range(1, ROUNDS + 1))
    assert page.evaluate(CURVES)["x"] == list(range(1, ROUNDS + 1))
    assert page.complaints == []


def test_a_network_is_exported_by_clicking_and_every_download_arrives_whole(later_page, federation):
    page = later_page
    _go(page, "/results/run")
    page.get_by_label("Format").select_option("safetensors")
    page.get_by_role("button", name="Export").click()
    page.locator("th a", has_text="export/safetensors/").first.wait_for()
    page.get_by_role("button", name="Write the report now").click()
    page.get_by_role("link", name="Look at the report").wait_for()
    names = page.locator("#files-title ~ table th a").all_inner_texts()
    kinds = {name.split("/")[0] for name in names}
    assert {"checkpoints", "export", "report.html", "plan.yaml", "rounds.jsonl"} <= kinds
    for name in names:
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        copy = federation.folder / "download"
        download.value.save_as(copy)
        digests = [
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (copy, federation.run_folder() / name)
        ]
        assert digests[0] == digests[1], name
    assert page.complaints == []


def test_no_page_of_either_role_has_a_serious_barrier(later_page, site_page, federation):
    check_pages(later_page, ["/", "/log?site=aurora", "/no-such-page"])
    assert all("404" in said for said in later_page.complaints), later_page.complaints
    check_pages(site_page, ["/", "/data", "/plans", "/left", "/predictions", "/models"])
    assert site_page.complaints == []


def test_signing_in_has_no_serious_barrier(later_page, browser):
    base = "/".join(later_page.url.split("/")[:3])
    with signed_in(browser, f"{base}/") as stranger:
        assert stranger.url.endswith("/sign-in")
        check_pages(stranger, ["/sign-in"])
        _go(stranger, "/sign-in?token=old")
        assert "was used before" in stranger.inner_text("main")
