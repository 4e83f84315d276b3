"""The page beside a run: it starts, says where its address is, and ends with the run."""

import io
import time

import pytest
from tests.unit.server.homes import new_coordinator

from mamfed_common.runtime.terminal import Screen
from mamfed_server.service.page_child import page_beside


@pytest.mark.slow
def test_a_page_beside_a_run_opens_and_ends_with_it(tmp_path):
    home, said = new_coordinator(tmp_path / "home"), io.StringIO()
    file = home.path / "dashboard.url"
    beside = page_beside(home, 0, 1.0, Screen(file=said))
    with beside:
        for _ in range(600):
            if "dashboard:" in said.getvalue():
                break
            time.sleep(0.1)
        assert file.exists()
        assert "its address is in" in said.getvalue()
        assert "token" not in said.getvalue()
        assert "token" not in (home.logs / "dashboard.log").read_text()
    assert not file.exists()
