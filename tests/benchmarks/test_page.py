"""The benchmarks page shows the recorded results and which targets they miss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.lib import harness, page

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if "__main__" in path.read_text()
)


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "results.json"

    def record(name, ours, peer, peer_name="stock Flower"):
        return harness.record(name, ours, peer, peer_name=peer_name, unit="s", path=path)

    record("a round of training", [9.0], [9.0])
    record("a round of training", [1.0, 3.0, 2.0], [10.0, 10.0, 20.0])
    record("a round of training and validation", [5.0], [10.0])
    record("something else", [4.0], [2.0], peer_name="a peer")
    return harness.read_results(path)


def test_a_result_has_the_documented_keys_and_medians(recorded):
    assert recorded[1] == {
        "name": "a round of training",
        "ours": 2.0,
        "peer": 10.0,
        "peer_name": "stock Flower",
        "unit": "s",
        "ratio": 0.2,
        "runs": [[1.0, 10.0], [3.0, 10.0], [2.0, 20.0]],
    }


def test_the_newest_result_is_shown_and_a_missed_target_is_marked(recorded):
    rows = list(page.table(recorded))[2:]
    assert len(rows) == 3
    assert rows[0].endswith("| 2 s | stock Flower | 10 s | **0.2** | 0.1-0.3 | 3 | 0.333 | yes |")
    assert rows[1].endswith(
        "| 5 s | stock Flower | 10 s | **0.5** | one run | 1 | 0.333 | **no** |"
    )
    assert rows[2].endswith("| 4 s | a peer | 2 s | **2** | one run | 1 |  |  |")


def test_only_the_part_between_the_markers_is_replaced():
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    new = page.replaced(text, "new")
    assert new == f"before\n{page.BEGIN}\n\nnew\n\n{page.END}\nafter\n"
    with pytest.raises(ValueError, match="unpack"):
        page.replaced("no marks", "new")


def test_calls_are_timed_in_turns_without_their_warm_up():
    order, now = [], iter(range(100))

    def call(name):
        return lambda: order.append(name)

    seconds = harness.take_turns(
        {"a": call("a"), "b": call("b")},
        runs=2,
        before={"b": call("ready")},
        clock=lambda: float(next(now)),
    )
    assert order == ["a", "ready", "b"] * 3
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


@pytest.mark.parametrize("module", SCRIPTS)
def test_every_benchmark_says_what_it_does(module):
    run = [sys.executable, "-m", module, "--help"]
    text = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "Usage:" in text
