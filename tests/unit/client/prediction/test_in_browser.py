"""A study's page and the list of studies as a browser shows them."""

import pytest

from chromium import PROGRAM, Chromium

pytestmark = pytest.mark.skipif(not PROGRAM, reason="no Chromium: apt-get install chromium")


def test_pages_load_alone_without_complaint_and_fit(write_phantom, predicted, tmp_path):
    for side in "LR":
        for view in ("CC", "MLO"):
            write_phantom("aurora", side, view)
    predicted(tmp_path / "in")
    pages = sorted((tmp_path / "out").rglob("*.html"))
    assert len(pages) == 2
    with Chromium(tmp_path / "profile") as browser:
        for page in pages:
            for width in (390, 1280):
                seen = browser.look(page, width=width, scheme="dark")
                assert (seen.complaints, seen.requests) == ([], [])
                assert seen.overflow <= 0, (page, width)
                assert browser.cut() == [], (page, width)
                assert "Research use only" in seen.text
