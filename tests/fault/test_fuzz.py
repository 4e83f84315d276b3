import json
import subprocess
import sys
from pathlib import Path

import fuzz_files
import pytest
from fuzz_files import Case, judge
from fuzz_mutations import mutants

from mamfed_client.imaging.mammogram import Mammogram
from mamfed_client.imaging.rejections import FileRejected, Reason


def test_damaged_and_hostile_files_are_read_or_refused_within_memory_and_time():
    command = [sys.executable, fuzz_files.__file__, "--mutants", "1000", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    summary = json.loads(done.stdout)
    assert summary["violations"] == []
    assert done.returncode == 0
    assert summary["files"] > 1000
    assert 0 < summary["parent_peak_mib"] < 1024
    assert 0 < summary["child_peak_mib"] <= 3 * 1024


def test_a_mutant_is_the_same_in_every_run():
    seeds = {"a": bytes(range(256)) * 4, "b": bytes(2000)}
    some = list(mutants(seeds, 20))
    assert some == list(mutants(seeds, 20))
    assert some[15:] == list(mutants(seeds, 5, first=15))
    assert len({data for _, data in some}) > 10


def raising(error):
    def decode():
        raise error

    return decode


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        (raising(ValueError("boom")), "neither a mammogram nor a refusal"),
        (raising(FileRejected(Reason.UNREADABLE_IMAGE, "of secret^name")), "names the patient"),
        (raising(FileRejected(Reason.TRUNCATED)), "expected TOO_LARGE"),
        (lambda: Mammogram([[1]]), "no mammogram"),
        (lambda: None, "no mammogram"),
    ],
)
def test_what_a_file_must_not_do_is_a_violation(decode, words):
    case = Case("bombs", "one", ".dcm", b"", {"TOO_LARGE"} if "TOO" in words else None)
    assert words in judge(case, decode).violation


def test_an_expected_refusal_is_none():
    case = Case("bombs", "one", ".dcm", b"", {"TOO_LARGE"})
    assert judge(case, raising(FileRejected(Reason.TOO_LARGE))).violation == ""


def test_the_script_says_what_it_does():
    command = [sys.executable, Path(fuzz_files.__file__), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "damaged and hostile files" in done.stdout
