"""One file of each bad kind: each is refused for its reason, and nobody in them is named."""

import json
import os
import subprocess
import sys

import pydicom
import pytest

from mamfed_simulations.phantoms.corpus import write_bad_files

PROSE = "Ask the archive"
"""From the file that is a text."""
IDENTIFIERS = ("PatientID", "PatientName", "SOPInstanceUID", "StudyInstanceUID")


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """The folder, each bad file's reason, and what happened to it in two processes."""
    place = tmp_path_factory.mktemp("bad")
    folder = place / "export"
    expected = write_bad_files(folder, seed=5)
    surroundings = os.environ | {
        "MAMFED_CACHE": str(place / "cache"),
        "MAMFED_SECRET": str(place / "cache/secret"),
    }

    def data(*words):
        command = [sys.executable, "-m", "mamfed_client", "data", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=surroundings)

    check = data("check", folder, "--html", place / "check.html")
    prepare = data("prepare", folder, "--out", place / "out", "--size", 64)
    listed = data("check", folder, "--format", "json", "--list")
    return place, expected, check, prepare, listed


def test_every_bad_file_is_refused_for_its_reason(bad):
    _, expected, *processes, listed = bad
    assert [process.returncode for process in (*processes, listed)] == [0, 0, 0]
    document = json.loads(listed.stdout)
    assert (document["layout"], document["files"]) == ("dicom", len(expected) + 1)
    assert document["accepted"] == 1
    found = {item["file"]: item["reason"] for item in document["items"]}
    assert found == {"00-good.dcm": None} | {name: str(reason) for name, reason in expected}


def test_nothing_that_identifies_anyone_is_printed_or_kept(bad):
    place, expected, check, prepare, _ = bad
    identifiers = identifiers_in(place / "export")
    names = [path.name for path in (place / "export").iterdir()]
    assert len(identifiers) > len(expected)
    kept = [path for part in ("cache", "out") for path in (place / part).rglob("*")]
    kept = [path for path in kept if path.is_file()]
    assert {"journal.jsonl", "manifest.json"} < {path.name for path in kept}
    said = {path: path.read_bytes() for path in [*kept, place / "check.html"]}
    said |= {p.args[4]: (p.stdout + p.stderr).encode() for p in (check, prepare)}
    for where, content in said.items():
        text = content + str(where).encode()
        assert not [word for word in identifiers if word.encode() in text], where
        assert not [name for name in names if name.encode() in text], where


def test_a_listing_names_files_but_nobody_in_them(bad):
    place, _, _, _, listed = bad
    said = listed.stdout + listed.stderr
    assert not [word for word in identifiers_in(place / "export") if word in said]


def identifiers_in(folder):
    """Collect what would tell who is shown, or which image of the archive it is."""
    found = {PROSE}
    for path in folder.iterdir():
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:  # broken on purpose
            continue
        found |= {str(header[k].value) for k in IDENTIFIERS if k in header and header[k].value}
    return found
