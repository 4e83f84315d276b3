import json
import stat

import pytest

from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.preparation.journal import Journal
from mamfed_client.preparation.row_result import RowResult

GOOD = RowResult(digest="d" * 64, laterality="L").to_json()
BAD = RowResult.rejected(FileRejected(Reason.TRUNCATED, "half of it")).to_json()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "journal.jsonl"


def test_an_outcome_is_found_again_by_another_process(path):
    Journal(path).add("a", [10, 1], GOOD)
    assert Journal(path).find("a", [10, 1]) == GOOD
    assert RowResult.from_json(Journal(path).find("a", [10, 1])).laterality == "L"


def test_a_refusal_is_remembered_too(path):
    Journal(path).add("a", [10, 1], BAD)
    assert RowResult.from_json(Journal(path).find("a", [10, 1])).reason is Reason.TRUNCATED


def test_a_file_of_another_size_or_time_is_unknown(path):
    Journal(path).add("a", [10, 1], GOOD)
    assert Journal(path).find("a", [10, 2]) is None
    assert Journal(path).find("b", [10, 1]) is None


def test_the_last_outcome_of_a_file_counts(path):
    journal = Journal(path)
    journal.add("a", [10, 1], BAD)
    journal.add("a", [10, 2], GOOD)
    assert Journal(path).find("a", [10, 2]) == GOOD


@pytest.mark.parametrize("left", [1, 20, 100])
def test_a_line_that_a_kill_cut_off_costs_that_line(path, left):
    journal = Journal(path)
    journal.add("a", [10, 1], GOOD)
    journal.add("b", [10, 1], GOOD)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + left])
    Journal(path).add("c", [10, 1], GOOD)
    again = Journal(path)
    assert again.find("a", [10, 1]) == again.find("c", [10, 1]) == GOOD
    assert again.find("b", [10, 1]) is None


def test_the_finished_journal_does_not_depend_on_the_order_of_work(path, tmp_path):
    one, two = Journal(path), Journal(tmp_path / "two.jsonl")
    for key in ("a", "b", "c"):
        one.add(key, [10, 1], GOOD)
    for key in ("c", "gone", "b", "a"):
        two.add(key, [10, 1], GOOD)
    for journal in (one, two):
        journal.finish(["a", "b", "c"])
    assert one.path.read_bytes() == two.path.read_bytes()
    assert [json.loads(line)["key"] for line in path.read_bytes().splitlines()] == ["a", "b", "c"]


def test_what_a_better_day_may_change_is_not_remembered(path):
    journal = Journal(path)
    for key, reason in (("a", Reason.TOO_SLOW), ("b", Reason.UNSUPPORTED_SYNTAX)):
        journal.add(key, [10, 1], RowResult.rejected(FileRejected(reason)).to_json())
    journal.finish(["a", "b"])
    assert Journal(path).find("a", [10, 1]) is None
    assert Journal(path).find("b", [10, 1]) is None


def test_the_journal_is_for_its_owner_only(path):
    journal = Journal(path)
    journal.add("a", [10, 1], GOOD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    journal.finish(["a"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
