"""The record of what left: it holds together, and nothing can be taken out of it unseen."""

import fcntl
import hashlib
import json
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_client.disclosure.audit_log import AuditLog, head_path_of, read_head, read_record
from mamfed_client.disclosure.audit_report import NOT_IN_THE_FORMAT, verify
from mamfed_common.errors import AuditError

FACTS = {"to": "fed", "policy_sha256": "b" * 64, "plan_sha256": "a" * 64}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def five(path):
    """A record of five lines."""
    log = AuditLog(path)
    log.append("describe", **FACTS, bytes=100, values={"rows": 7})
    for number in (1, 2, 2):
        weights = [{"name": "a", "sha256": "c" * 64, "bytes": 8}]
        values = {"num_examples": {"benign": 4}, "loss": 0.1 + number}
        facts = {"stage": "pretraining", "round": number, "weights": weights, "bytes": 10**6}
        log.append("train", **FACTS, **facts, values=values)
    log.append("fault", **FACTS, values={"fault": 104})
    return path


def edit(path, change):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


def test_lines_are_numbered_chained_and_for_their_owner_only(five):
    previous = "0" * 64
    for number, line in enumerate(five.read_text().splitlines(), 1):
        entry = json.loads(line)
        assert entry["n"] == number
        assert entry["previous"] == previous
        # By hand: SHA-256 of the line without its own hash, keys sorted, no spaces.
        previous = entry.pop("sha256")
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == previous
    assert json.loads(head_path_of(five).read_text())["sha256"] == previous
    assert five.stat().st_mode & 0o777 == 0o600
    assert head_path_of(five).stat().st_mode & 0o777 == 0o600


def test_a_site_from_which_nothing_left_has_nothing_to_verify(path):
    assert verify(path).lines == 0
    path.touch()
    assert verify(path).lines == 0


def test_what_left_is_counted(five):
    summary = verify(five)
    assert summary.lines == 5
    assert {kind: traffic.messages for kind, traffic in summary.kinds.items()} == {
        "describe": 1,
        "train": 3,
        "fault": 1,
    }
    assert summary.bytes == 3_000_100
    assert summary.rounds == {"pretraining": (1, 2)}
    assert summary.plans == {"a" * 64: 5}
    assert summary.faults == {104: 1}
    assert summary.kinds["train"].values == ("loss", "num_examples")
    assert summary.last_sha256 == read_head(five).sha256


TAMPERING = {
    "a value changed": (lambda s: [s[0], s[1].replace(b"1.1", b"1.2"), *s[2:]], "line 2"),
    "a space added": (lambda s: [s[0].replace(b":", b": ", 1), *s[1:]], "line 1"),
    "a key added": (lambda s: [s[0].replace(b"{", b'{"x":1,', 1), *s[1:]], "line 1"),
    "the last hash changed": (lambda s: [*s[:4], s[4].replace(b'"sha256":"', b'"sha256":"0')], "5"),
    "a line removed": (lambda s: [*s[:2], *s[3:]], "line 3"),
    "the first line removed": (lambda s: s[1:], "line 1"),
    "a line twice": (lambda s: [*s[:3], s[2], *s[3:]], "line 4"),
    "two lines swapped": (lambda s: [s[0], s[2], s[1], *s[3:]], "line 2"),
    "the end cut": (lambda s: s[:4], "its head names line 5"),
    "all cut": (lambda s: [], "its head names line 5"),
    "a line of nonsense": (lambda s: [*s, b"nonsense\n"], "line 6"),
    "an empty line": (lambda s: [s[0], b"\n", *s[1:]], "line 2"),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_named_by_its_line(five, name):
    change, place = TAMPERING[name]
    edit(five, change)
    with pytest.raises(AuditError, match=place):
        verify(five)


@pytest.mark.parametrize("name", ["the end cut", "all cut", "a line of nonsense", "a line twice"])
def test_nothing_is_added_to_a_record_whose_end_was_changed(five, name):
    edit(five, TAMPERING[name][0])
    before = five.read_bytes()
    with pytest.raises(AuditError):
        AuditLog(five).append("fault")
    assert five.read_bytes() == before


def test_a_rewritten_record_differs_from_its_head(five, tmp_path):
    other = AuditLog(tmp_path / "other.jsonl")
    for _ in range(5):
        other.append("fault", values={"fault": 2})
    five.write_bytes(other.path.read_bytes())
    with pytest.raises(AuditError, match="line 5 is not the one named by its head"):
        verify(five)
    with pytest.raises(AuditError, match="does not end with line 5"):
        AuditLog(five).append("fault")


@pytest.mark.parametrize("content", [None, b"", b'{"count": -1}'])
def test_a_missing_or_damaged_head_is_noticed(five, content):
    head = head_path_of(five)
    head.unlink() if content is None else head.write_bytes(content)
    for look in (lambda: verify(five), lambda: AuditLog(five).append("fault")):
        with pytest.raises(AuditError, match=r"audit\.head: (missing|damaged)"):
            look()


def test_a_removed_record_is_noticed_by_its_head(five):
    five.unlink()
    with pytest.raises(AuditError):
        verify(five)
    with pytest.raises(AuditError):
        AuditLog(five).append("fault")


@pytest.mark.parametrize("keep", [1, 40, -1])
def test_a_line_that_a_power_cut_tore_is_named_and_not_dropped(five, keep):
    """``keep``: bytes of the last line that reached the disk; -1: all but its newline."""
    head = head_path_of(five).read_bytes()
    AuditLog(five).append("evaluate", **FACTS, values={"dice": 0.5})
    lines = five.read_bytes().splitlines(keepends=True)
    torn = lines[-1][:keep]
    five.write_bytes(b"".join(lines[:-1]) + torn)
    head_path_of(five).write_bytes(head)
    assert verify(five).unfinished_bytes == len(torn)
    AuditLog(five).append("fault", **FACTS, values={"fault": 2})
    entries = read_record(five).entries
    assert [entry.kind for entry in entries[-2:]] == ["torn", "fault"]
    assert entries[-2].values == {"torn_bytes": len(torn), "torn_text": torn.decode()}
    assert verify(five).torn == 1
    assert verify(five).unfinished_bytes == 0


def test_a_whole_line_that_its_head_does_not_know_yet_stays(five):
    head = head_path_of(five).read_bytes()
    AuditLog(five).append("evaluate", **FACTS, values={"dice": 0.5})
    head_path_of(five).write_bytes(head)
    assert verify(five).lines == 6
    AuditLog(five).append("fault", **FACTS, values={"fault": 2})
    assert [entry.kind for entry in read_record(five).entries[-2:]] == ["evaluate", "fault"]


def test_a_record_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(AuditError, match="cannot be written"):
        AuditLog(tmp_path / "missing" / "audit.jsonl").append("fault")


def test_two_processes_write_one_chain(path):
    program = (
        "import sys; from pathlib import Path\n"
        "from mamfed_client.disclosure.audit_log import AuditLog\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for n in range(40): log.append('fault', to=sys.argv[2], values={'fault': 2})"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(path), name], **pipes)
        for name in ("a", "b")
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:  # both begin at once
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(60) for process in processes] == [0, 0]
    assert sorted(entry.to for entry in read_record(path).entries) == ["a"] * 40 + ["b"] * 40


def test_a_writer_waits_for_the_one_before_it(five):
    before = five.read_bytes()
    with five.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = threading.Thread(target=AuditLog(five).append, args=["fault"])
        writer.start()
        writer.join(0.3)
        assert five.read_bytes() == before
    writer.join(10)
    assert verify(five).lines == 6


@pytest.fixture
def run(tmp_path):
    (tmp_path / "site.yaml").touch()

    def invoke(*words):
        return CliRunner().invoke(app, ["audit", *words, "--home", str(tmp_path)])

    return invoke


def test_the_report_is_for_a_data_protection_officer(run, five):
    text = run("report").stdout
    assert "5 messages left this site, 3.0 MB in all, to fed" in text
    assert "train: 3 messages, 3.0 MB, with loss, num_examples." in text
    assert "Trained in pretraining: 2 rounds, 1 to 2." in text
    assert "code 104: the site does not train at this hour" in text
    assert NOT_IN_THE_FORMAT in text
    assert json.loads(run("report", "--format", "json").stdout)["bytes"] == 3_000_100


def test_each_fault_is_counted_under_its_own_code_with_its_times(run, path):
    log = AuditLog(path)
    for code in (103, 102, 103, 111):
        log.append("fault", **FACTS, values={"fault": code})
    lines = run("report").stdout.splitlines()
    found = [line.partition(", code ") for line in lines if line.startswith("Instead")]
    assert [(told.split(" (")[0], text[:4]) for told, _, text in found] == [
        ("Instead of an answer, 1 time", "102:"),
        ("Instead of an answer, 2 times", "103:"),
        ("Instead of an answer, 1 time", "111:"),
    ]
    first = verify(path).fault_times[103][0]
    assert f"(from {first} to " in found[1][0] or f"({first})" in found[1][0]


def test_one_of_a_thing_is_not_told_as_several(run, path):
    facts = {"stage": "finetuning", "round": 7, "bytes": 1}
    AuditLog(path).append("train", **FACTS, **facts, values={})
    text = run("report").stdout
    assert "The audit log is intact: 1 line, " in text
    assert " 1 message left this site, 1 byte in all" in text
    assert "train: 1 message, 1 byte." in text
    assert "Trained in finetuning: 1 round, number 7." in text
    assert ": 1 message." in text
    assert run("verify").stdout.startswith("intact: 1 line, ")


def test_the_report_of_nothing_says_so(run):
    assert "Nothing has left this site." in run("report").stdout


def test_verify_ends_with_the_error_of_a_changed_record(run, five):
    assert f"intact: 5 lines, last hash {read_head(five).sha256}" in run("verify").stdout
    assert json.loads(run("verify", "--format", "json").stdout)["lines"] == 5
    edit(five, TAMPERING["a line removed"][0])
    error = run("verify").exception
    assert isinstance(error, AuditError)
    assert error.exit_code == 11
    assert "line 3" in str(error)


def test_a_folder_that_is_no_home_is_named(tmp_path):
    result = CliRunner().invoke(app, ["audit", "verify", "--home", str(tmp_path)])
    assert "site.yaml: not found; create a site" in str(result.exception)
