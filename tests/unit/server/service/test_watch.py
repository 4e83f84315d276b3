"""``status --watch``: a live table in a terminal, a line an event elsewhere."""

import io
import shutil
from pathlib import Path

import pytest
from tests.unit.server.run.test_state import worked_on
from tests.unit.server.sites import Sites, run

from mamfed_common.runtime.terminal import Screen
from mamfed_server.run_folder.event_log import EventLog, as_log_line, in_words
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.service.watch import watch
from mamfed_server.settings import ServerHome

EXAMPLES = Path(__file__).parents[4] / "deploy" / "examples"


@pytest.fixture
def home(tmp_path, tiny_plan):
    """A run of which bea took part in no round but the first."""
    shutil.copy(EXAMPLES / "server.yaml", tmp_path)
    folder = run(Sites(), tiny_plan, tmp_path / "runs" / "first")
    (folder.path / "summary.json").unlink()
    first, *others = folder.rounds()
    lost = [
        r.model_copy(
            update={
                "expected": ("ada", "cleo"),
                "accepted": {s: c for s, c in r.accepted.items() if s != "bea"},
                "absent": {"bea": "not connected"},
            }
        )
        for r in others
    ]
    folder.keep_rounds([first, *lost])
    note(folder, "started", stage="pretraining", server_round=1)
    note(folder, "came", site="ada")
    note(folder, "came", site="cleo")
    return ServerHome(tmp_path)


def note(folder, kind, **facts):
    log = EventLog()
    log.open(folder.path)
    log.write(kind, **facts)


def screen(*, is_terminal):
    return Screen(
        file=io.StringIO(), force_terminal=is_terminal, width=120, height=40, highlight=False
    )


def watched(home, *, is_terminal, then):
    """Watch a run that another process works on; what happens between two looks, then its end."""
    shown, looks = screen(is_terminal=is_terminal), iter(then)
    with worked_on(home.runs / "first") as process:

        def pause(seconds):
            step = next(looks, None)
            if step is not None:
                step()
            else:
                process.kill()
                process.wait()

        watch(home, shown, pause)
    return shown.file.getvalue()


def test_a_terminal_shows_a_table_of_sites_by_rounds_the_worst_first(home):
    text = watched(home, is_terminal=True, then=[])
    first = text[: text.index("not connected, so not asked")]
    assert "3 of 3 rounds done" in first
    rows = [line for line in first.splitlines() if "of 3" in line and "rounds" not in line]
    assert [line.split()[0] for line in rows] == ["bea", "ada", "cleo"]
    assert "missing since the start" in rows[0]
    assert "1 of 3" in rows[0]
    assert "●" in rows[0]
    assert "--" in rows[0].replace("\x1b[0m\x1b[31m", "")
    assert "connected" in rows[1]
    assert "3 of 3" in rows[1]
    assert "interrupted" in text, "the last table says how it ended"


def test_elsewhere_each_event_is_one_line(home):
    folder = RunFolder(home.runs / "first")
    text = watched(
        home, is_terminal=False, then=[lambda: note(folder, "went", site="ada"), lambda: None]
    )
    assert "\x1b" not in text
    (line,) = [line for line in text.splitlines() if "went" in line and "last event:" not in line]
    assert line.endswith("went: site ada")
    assert text.count("sites, worst first:") == 2, "the whole before and after"
    assert text.count("run first: ") == 2


def test_no_run_is_said_in_words_and_not_waited_for(tmp_path):
    shutil.copy(EXAMPLES / "server.yaml", tmp_path)
    shown = screen(is_terminal=False)
    watch(ServerHome(tmp_path), shown, lambda seconds: pytest.fail("nothing to wait for"))
    assert shown.file.getvalue().startswith("no run yet")


def test_interrupted_by_ctrl_c_it_ends_quietly(home):
    def interrupt():
        raise KeyboardInterrupt

    assert "sites, worst first:" in watched(home, is_terminal=False, then=[interrupt])


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "test"}, "test"),
        ({"event": "came", "site": "ada"}, "came: site ada"),
        (
            {"event": "round", "stage": "finetuning", "server_round": 2, "sites": ["ada", "bea"]},
            "round: stage finetuning; server round 2; sites ada, bea",
        ),
        (
            {"event": "waiting", "need": 2, "ready": [], "missing": {"cleo": "not connected"}},
            "waiting: need 2; missing cleo (not connected)",
        ),
    ],
)
def test_an_event_is_told_in_words(event, said):
    assert in_words({"time": "2026-11-29T21:18:11+00:00", **event}) == said


def test_a_journal_has_an_event_in_one_line_of_keys_and_values():
    event = {"time": "2026-11-29T21:18:11+00:00", "event": "waiting", "need": 2, "ready": ["a b"]}
    assert as_log_line(event) == "2026-11-29T21:18:11+00:00 waiting need=2 ready=['a b']"
