"""The site's page as a browser and as others see it, from a real server."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.unit.client.dashboard.conftest import STUDY, page_of

from mamfed_client.disclosure.plan_store import Decision, PlanStore

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = ["", "data", "plans", "left", "predictions", "models"]


class Served:
    """``mamfed-client dashboard`` in a process of its own."""

    def __init__(self, home, *options):
        command = [Path(sys.executable).parent / "mamfed-client", "dashboard", "--home", home.path]
        command += ["--port", "0", "--format", "json", *options]
        self.process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        assert line, self.process.wait(10)
        self.address = json.loads(line)["address"]
        self.base = self.address.partition("/sign-in")[0]

    def client(self):
        """Return a client that has opened the address."""
        client = httpx.Client(base_url=self.base, follow_redirects=True, timeout=30)
        assert client.get(self.address).status_code == 200
        return client

    def end(self):
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture
def serve(home):
    started = []

    def start(*options):
        started.append(Served(home, *options))
        return started[-1]

    yield start
    codes = [served.end() for served in started if served.process.poll() is None]
    assert set(codes) <= {0}
    assert not list(home.path.glob("*dashboard*"))


@pytest.fixture
def served(serve, home, arrived, left, account, models, predictions):
    return serve("--predictions", predictions)


def token_of(page):
    return re.search(r'name="csrf" value="([^"]+)"', page)[1]


@pytest.mark.slow
class TestServer:
    def test_pages_behind_one_address_and_what_a_click_does(self, served, home, arrived, tmp_path):
        assert (home.path / "dashboard.url").stat().st_mode & 0o777 == 0o600
        stranger = httpx.Client(base_url=served.base)
        for address in ["/", "/plans", "/live/left", "/left/audit.jsonl", "/predictions"]:
            assert stranger.get(address).status_code == 401
        client = served.client()
        for name in PAGES:
            page = client.get(f"/{name}").text
            assert "Secret" not in page
            assert 'class="band failed"' not in page
        assert "&lt;b&gt;4 patients&lt;/b&gt;" in client.get("/left").text
        assert client.get("/left/audit.jsonl").content == home.audit.read_bytes()
        assert client.get("/left/report.txt").text.startswith("The audit log is intact: 3 lines")

        plan = f"/plans/{arrived.sha256()}/approve"
        asked = client.get(plan).text
        assert "It trains on images of 32 x 32 pixels." in asked
        good = {"csrf": token_of(asked), "confirmed": "yes"}
        origin = {"origin": served.base}
        decisions = PlanStore(home.plans).decisions
        for fields, headers in [
            ({"confirmed": "yes"}, origin),
            (good, {"origin": "http://elsewhere.example"}),
            ({"csrf": good["csrf"]}, origin),
        ]:
            assert client.post(plan, data=fields, headers=headers).status_code in (403, 409)
            assert decisions() == {}
        assert client.post(plan, data=good, headers=origin).url.path == "/plans"
        assert decisions() == {arrived.sha256(): Decision.APPROVED}
        refuse = plan.replace("approve", "refuse")
        client.post(refuse, data={"csrf": good["csrf"]}, headers=origin)
        assert decisions() == {arrived.sha256(): Decision.REFUSED}
        for bad in ["/plans/0/approve", plan.replace("approve", "burn")]:
            assert client.post(bad, data=good, headers=origin).status_code == 409

    def test_pages_of_predict_as_they_are_and_nothing_else_of_the_folder(self, served, predictions):
        client = served.client()
        listed = client.get("/predictions").text
        assert f"/predictions/0/studies/{STUDY}.html" in listed
        found = client.get(f"/predictions/0/studies/{STUDY}.html")
        assert found.text == page_of("Study")
        assert "default-src 'none'" in found.headers["content-security-policy"]
        assert "script" not in found.headers["content-security-policy"]
        for path in [
            "model.json", "predictions.json", "studies/..%2Findex.html",
            "studies/%2e%2e/model.html", f"../1/studies/{STUDY}.html", "images/x/result.json",
        ]:  # fmt: skip
            assert client.get(f"/predictions/0/{path}").status_code == 404

    def test_a_page_of_data_check_is_shown_until_it_is_gone_or_another_s(self, serve, tmp_path):
        checked = tmp_path / "check.html"
        checked.write_text(page_of("Check"))
        client = serve("--check-page", checked).client()
        assert "/checks/0" in client.get("/data").text
        assert client.get("/checks/0").text == page_of("Check")
        assert client.get("/checks/1").status_code == 404
        checked.write_text("<p>not of mamfed</p>")
        assert client.get("/checks/0").status_code == 404

    def test_the_stream_tells_what_changed(self, served, left):
        client = served.client()
        with client.stream("GET", "/live/left") as stream:
            lines = stream.iter_lines()
            first = next(line for line in lines if "hx-partial" in line)
            assert 'hx-target="#left"' in first
            left.append("fault", values={"fault": 112}, bytes=8, to="North")
            assert any("4 messages left" in line for line in lines)

    def test_a_folder_that_predict_did_not_write_is_one_line(self, home, tmp_path):
        command = [Path(sys.executable).parent / "mamfed-client", "dashboard", "--home", home.path]
        command += ["--predictions", tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 9
        assert "expected a folder that mamfed-client predict" in done.stderr
        assert "Traceback" not in done.stderr

    def test_other_machines_need_tls_and_passwords(self, home):
        command = [Path(sys.executable).parent / "mamfed-client", "dashboard", "--home", home.path]
        done = subprocess.run(
            [*command, "--host", "0.0.0.0"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 9
        assert "--cert, --key, --password-file" in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_approves_a_plan_by_clicking_and_finds_nothing_wrong(served, home, arrived):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        said = []
        page.on("console", lambda m: said.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(served.address)
        page.get_by_role("link", name="Read and decide").click()
        page.get_by_role("heading", name="Beside your bounds").wait_for()
        page.get_by_role("button", name="Approve the plan").click()  # the box is not ticked yet
        assert PlanStore(home.plans).decisions() == {}
        page.get_by_role("checkbox").press("Space")
        page.get_by_role("button", name="Approve the plan").press("Enter")
        page.wait_for_url(f"{served.base}/plans")
        assert PlanStore(home.plans).decisions() == {arrived.sha256(): Decision.APPROVED}
        page.get_by_text("Approved", exact=True).wait_for()
        decision = f"plans/{arrived.sha256()}/refuse"
        for width, scheme in [(1440, "light"), (390, "dark")]:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            for name in [*PAGES, decision]:
                page.goto(f"{served.base}/{name}")
                for summary in page.locator("summary").all():
                    summary.click()
                wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, (name, width)
                found = Axe().run(page).response["violations"]
                bad = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
                assert bad == [], (name, width, scheme)
        assert said == []
        browser.close()
