"""``mamfed-simulate playground``: one command for a whole federation, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.processes.deployment import wait_until

PROGRAM = Path(sys.executable).parent / "mamfed-simulate"
PATIENCE_SECONDS = 400


def is_alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


def of_folder(folder):
    """Return the processes whose command line names a folder."""
    return [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and entry.name != str(os.getpid())
        if str(folder).encode() in _command_line(entry)
    ]


def _command_line(entry):
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def start(out, *options):
    command = [PROGRAM, "playground", "--out", out, "--rounds", "1", "--format", "json", *options]
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    assert line, process.communicate(timeout=60)
    return process, json.loads(line)


@pytest.mark.slow
def test_a_run_to_its_end_then_the_next_one_killed_and_no_process_is_left(tmp_path):
    out = tmp_path / "playground"
    process, started = start(out, "--until-end")
    assert started["pages"].keys() == {"coordinator", "aurora", "borealis", "cirrus"}
    with httpx.Client(follow_redirects=True, timeout=60) as browser:
        for address in started["pages"].values():
            assert httpx.get(address.partition("/sign-in")[0] + "/").status_code == 401
            assert "<main" in browser.get(address).text
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said
    assert "3 of 3 rounds" in said or "run play-1 has ended" in said
    assert f"mamfed-client join {out}/aurora.welcome.json" in said
    assert (out / "coordinator/runs/play-1/checkpoints/final.safetensors").exists()
    assert (out / "sites/cirrus/models").is_dir()
    assert json.loads((out / "sites/aurora/data.json").read_text())["data_sets"]
    assert of_folder(out) == []

    process, started = start(out)
    assert started["run"] == "play-2"
    pids = [*started["pids"].values(), *map(int, of_folder(out))]
    assert len(set(pids)) > 8
    process.send_signal(signal.SIGKILL)
    process.wait()
    gone = "a killed playground takes its processes along"
    wait_until(lambda: not of_folder(out) and not any(map(is_alive, pids)), gone)


def test_it_refuses_a_folder_of_somebody_else(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    command = [PROGRAM, "playground", "--out", tmp_path, "--setup-only"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 8
    assert "holds other files and no playground" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
