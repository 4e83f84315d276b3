import os
import subprocess
import sys

import pytest

from mamfed_common.errors import SetupError
from mamfed_common.lock import holder, only_one

HOLD = """
import sys
from pathlib import Path
from mamfed_common.lock import only_one
with only_one(Path(sys.argv[1]), "a server"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_who_runs(tmp_path, other):
    message = f"a server runs here already .process {other.pid}."
    with pytest.raises(SetupError, match=message), only_one(tmp_path / "lock", "a server"):
        pytest.fail("held twice")


def test_a_kill_leaves_no_lock(tmp_path, other):
    other.kill()
    other.wait()
    with only_one(tmp_path / "lock", "a server"):
        assert holder(tmp_path / "lock") == os.getpid()
    assert holder(tmp_path / "lock") is None


def test_who_looks_turns_nobody_away(tmp_path):
    path = tmp_path / "lock"
    look = f"""
from pathlib import Path
from mamfed_common.lock import holder
print("looking", flush=True)
while True:
    holder(Path({str(path)!r}))
"""
    looker = subprocess.Popen([sys.executable, "-c", look], stdout=subprocess.PIPE)
    try:
        looker.stdout.readline()
        for _ in range(200):
            with only_one(path, "a server"):
                pass
    finally:
        looker.kill()
        looker.wait()
        looker.stdout.close()


def test_the_file_is_private_and_names_its_holder(tmp_path):
    with only_one(tmp_path / "lock", "a server"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(SetupError, match="lock: cannot be written"),
        only_one(tmp_path / "missing" / "lock", "a server"),
    ):
        pytest.fail("locked nothing")


def test_no_file_has_no_holder(tmp_path):
    assert holder(tmp_path / "lock") is None
