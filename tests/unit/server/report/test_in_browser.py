"""The report as a browser shows it: nothing asked of the network, nothing too wide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chromium import PROGRAM, Chromium
from mamfed_common.plan import Stage
from mamfed_server.report.page import write_report

from .test_page import make_report, record

pytestmark = pytest.mark.skipif(not PROGRAM, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred rounds of twenty sites with long names."""
    sites = tuple(f"hospital-with-a-long-name-{number}" for number in range(20))
    one = record(Stage.FINETUNING, 1, 0.4)
    rounds = [
        one.model_copy(
            update={
                "server_round": number,
                "expected": sites,
                "answered": sites,
                "accepted": dict.fromkeys(sites, one.accepted["alpha"]),
            }
        )
        for number in range(1, 101)
    ]
    report = replace(make_report(), rounds=rounds, other_rounds={})
    return write_report(tmp_path_factory.mktemp("page") / "run", report)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_loads_alone_without_complaint_and_fits(
    browser: Chromium, page: Path, width: int, scheme: str
) -> None:
    seen = browser.look(page, width=width, scheme=scheme)
    assert seen.complaints == []
    assert seen.requests == []
    assert seen.overflow <= 0
    assert "Results on held-out images" in seen.text


def test_dark_is_dark_and_print_is_light(browser: Chromium, page: Path) -> None:
    def brightness(**how: str) -> float:
        colour = browser.look(page, **how).background  # type: ignore[arg-type]
        return sum(int(level) for level in colour[4:-1].split(",")) / 3

    assert brightness(scheme="light") > 200
    assert brightness(scheme="dark") < 60
    assert brightness(scheme="dark", media="print") > 250


BROKEN = {
    "a script that fails": ("</main>", "<script>throw new Error('x')</script></main>"),
    "a picture from elsewhere": ("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'),
    "a box too wide": ("</main>", '<div style="width: 3000px">x</div></main>'),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_page_would_be_noticed(
    browser: Chromium, page: Path, tmp_path: Path, what: str
) -> None:
    html = page.read_text()
    broken = tmp_path / "broken.html"
    start = html.index('<meta http-equiv="Content-Security-Policy"')
    without_policy = html[:start] + html[html.index(">", start) + 1 :]
    broken.write_text(without_policy.replace(*BROKEN[what]))
    seen = browser.look(broken, width=390)
    assert bool(seen.complaints or seen.requests or seen.overflow > 0)
    with_policy = tmp_path / "policy.html"
    with_policy.write_text(html.replace(*BROKEN[what]))
    again = browser.look(with_policy, width=390)
    assert again.complaints or again.overflow > 0, "the page's own policy blocks it, and says so"
