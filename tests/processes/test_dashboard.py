"""The coordinator's page in a real browser: a run followed from its first to its last round."""

import json
import os
import re
import signal
import time

import pytest
from tests.processes.browser import CHROMIUM, check_pages, signed_in
from tests.processes.deployment import Deployment, free_port, wait_until
from tests.processes.phantoms import small_plan

from mamfed_common.security.enrolment import EnrolmentRequest

ROWS = """() => [...document.querySelectorAll("#sites tbody tr")].map(
  row => [row.querySelector("th").innerText, row.querySelector(".state").className])"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
]


@pytest.fixture(scope="module")
def federation(tmp_path_factory, phantoms):
    """A coordinator with a page, two approved sites, and one that only asks."""
    folder = tmp_path_factory.mktemp("dashboard")
    last, *first = sorted(phantoms)
    with Deployment(folder, {name: phantoms[name] for name in first}) as running:
        running.make_site(last, phantoms[last])
        running.command("mamfed-client", "enroll", "--home", running.site_home(last))
        plan = small_plan(pretraining=1, finetuning=3)
        (running.server_home / "trial.yaml").write_text(plan.to_yaml())
        port = free_port()
        running.start(
            "page", "mamfed-server", "dashboard", "--home", running.server_home,
            "--port", port, "--every", "0.5",
        )  # fmt: skip
        address = running.server_home / "dashboard.url"
        wait_until(address.exists, "the page can be opened")
        running.last, running.names = last, [*first, last]
        yield running
        running.command("mamfed-server", "stop", "--home", running.server_home)


@pytest.fixture(scope="module")
def page(federation, browser):
    """A signed-in page, which complains about nothing."""
    address = (federation.server_home / "dashboard.url").read_text().strip()
    with signed_in(browser, address) as tab:
        yield tab


def _events(federation):
    (log,) = federation.server_home.glob("runs/*/events.jsonl")
    return [json.loads(line)["event"] for line in log.read_text().splitlines()]


def _row(page, site):
    return page.locator("#sites tr", has=page.locator(f"th:has-text('{site}')"))


def _wait_for(page, selector, fits):
    """Wait for a text; the page's policy forbids Playwright's own way, which evaluates a string."""
    wait_until(lambda: fits(page.inner_text(selector)), f"{selector} changes", pause=0.5)


def _is(page, site, words):
    return bool(re.search(words, _row(page, site).inner_text()))


def test_a_request_is_approved_by_clicking(page, federation):
    assert "token" not in page.url
    page.get_by_role("link", name="Sites", exact=True).click()
    request = federation.site_home(federation.last) / "request.json"
    page.get_by_label("Choose the file").set_input_files(request)
    wait_until(lambda: len(page.get_by_label("or paste").input_value()) > 100, "the file is read")
    page.get_by_role("button", name="Look at it").click()
    asked = json.loads(request.read_text())
    assert (
        EnrolmentRequest.model_validate(asked).fingerprint()
        == page.locator(".compare code").first.inner_text()
    )
    page.get_by_role("button", name="Approve").click()  # the browser asks for the tick first
    assert page.url.endswith(f"request={federation.last}.json")
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Approve").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the welcome file").click()
    welcome = federation.folder / "by-page.welcome.json"
    download.value.save_as(welcome)
    home = federation.site_home(federation.last)
    federation.command("mamfed-client", "join", welcome, "--home", home, "--yes")
    actions = (federation.server_home / "actions.jsonl").read_text()
    assert json.loads(actions)["event"] == "site approved"


def test_a_plan_is_started_and_followed_to_its_last_round(page, federation):
    page.get_by_role("link", name="Start", exact=True).click()
    page.get_by_role("link", name="Check trial.yaml").click()
    assert "What it tolerates" in page.inner_text("main")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/")
    _wait_for(page, "#run", lambda text: "No run yet" not in text)
    for name in federation.names:
        federation.start_site(name)
    _wait_for(page, "#run h1", lambda text: "Training" in text)
    wait_until(lambda: _is(page, federation.names[0], "Training|Done|Connected"), "a site trains")
    lost = federation.names[0]
    process = federation.processes.pop(lost)
    wait_until(lambda: _is(page, lost, "Training|Done|Connected"), "the site is there")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    killed = time.monotonic()
    wait_until(lambda: _is(page, lost, "Silent|Not connected"), "the loss is shown", 60)
    seconds = time.monotonic() - killed
    shown = page.evaluate(ROWS)
    federation.start_site(lost)
    wait_until(lambda: _is(page, lost, "Training|Done|Connected|Late|Preparing"), "it is back")
    _wait_for(page, "#run h1", lambda text: "finished" in text)
    assert seconds < 15
    above = shown[: next(i for i, (site, _) in enumerate(shown) if lost in site) + 1]
    assert {state for _, state in above} == {"state failed"}, "worst first"
    assert "4 of 4 rounds done" in page.inner_text("#run")
    assert page.locator("#stage2-chart .u-legend tr").count() == 5  # round, all, three sites
    assert _events(federation)[0] == "started"
    assert page.complaints == []


def test_no_page_has_a_serious_barrier_or_is_too_wide(page, federation):
    (run,) = [path.name for path in (federation.server_home / "runs").iterdir() if path.is_dir()]
    paths = ["/", "/sites", "/plans", "/start?plan=trial.yaml", "/results", f"/results/{run}"]
    paths += ["/log", "/log?kind=round", f"/sites/revoke?site={federation.last}"]
    check_pages(page, paths)


def test_the_log_is_filtered_and_results_are_downloaded(page, federation):
    base = page.url.split("/")[2]
    page.goto(f"http://{base}/log?kind=came")
    assert page.locator("#journal li").count() >= 1
    texts = page.locator("#journal li").all_inner_texts()
    assert all("has connected" in text for text in texts)
    page.get_by_role("link", name="Results", exact=True).click()
    page.locator("tbody th a").first.click()
    with page.expect_download() as download:
        page.get_by_role("link", name="checkpoints/final.safetensors").click()
    path = federation.folder / "final.safetensors"
    download.value.save_as(path)
    (run,) = [path.name for path in (federation.server_home / "runs").iterdir() if path.is_dir()]
    own = federation.run_folder(run) / "checkpoints" / "final.safetensors"
    assert path.read_bytes() == own.read_bytes()
    assert page.complaints == []


def test_a_site_is_revoked_by_clicking(page, federation):
    page.get_by_role("link", name="Sites", exact=True).click()
    page.get_by_role("link", name=f"Revoke {federation.last}").click()
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Revoke").click()
    assert "revoked" in page.locator("tr", has_text=federation.last).inner_text()
    entry = json.loads((federation.server_home / "sites" / f"{federation.last}.json").read_text())
    assert entry["status"] == "revoked"
