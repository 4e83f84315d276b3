"""A command whose terminal, reader or letters are missing."""

import os
import subprocess
import sys

import pytest

TALK = """
import sys, time
from mamfed_common.runtime.streams import tolerate_closed_streams
tolerate_closed_streams()
for n in range(200):
    print("a line of some length", n, file=sys.stderr, flush=True)
    print("a result of some length", n, flush=True)
    if n == 0:
        time.sleep(0.3)
open(sys.argv[1], "w").write("done")
"""


def talk(done, **streams):
    return subprocess.Popen([sys.executable, "-c", TALK, str(done)], **streams)


def test_a_process_outlives_its_terminal(tmp_path):
    main, terminal = os.openpty()
    process = talk(tmp_path / "done", stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    os.read(main, 1000)
    os.close(main)
    assert process.wait(30) == 0
    assert (tmp_path / "done").read_text() == "done"


def test_a_process_outlives_who_reads_it(tmp_path):
    process = talk(tmp_path / "done", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(30) == 0
    assert (tmp_path / "done").exists()


def test_a_process_without_streams_opens_none_of_its_files_in_their_place(tmp_path):
    command = f'exec "{sys.executable}" -c "$0" "$1" >&- 2>&-'
    done = tmp_path / "done"
    assert subprocess.run(["sh", "-c", command, TALK, str(done)], timeout=30).returncode == 0
    assert done.read_text() == "done"


def test_a_full_disk_is_still_an_error(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        process = talk(tmp_path / "done", stdout=full, stderr=subprocess.DEVNULL)
        assert process.wait(30) != 0
    assert not (tmp_path / "done").exists()


def test_letters_that_a_console_does_not_have_are_escaped():
    code = (
        "from mamfed_common.runtime.streams import tolerate_closed_streams\n"
        "tolerate_closed_streams(); print('Łódź', flush=True)"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout == b"\\u0141\\xf3d\\u017a\n"
