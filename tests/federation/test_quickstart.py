"""The quick starts of docs/coordinator.md and docs/site.md, typed as they stand, by four people.

Each person has a home folder and a terminal, in which a page's blocks are run as bash. Changed is
what a reader changes: the site's name, the folder of mammograms, the host and the plan.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.plan import FederationPlan, FinetuningPlan, StagePlan, TrainingPlan
from mamfed_common.unet import NetworkConfig
from mamfed_simulations.vendors import VENDORS, write_cohort

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
BLOCK = re.compile(r"(?:<!-- quickstart: ([a-z ]+) -->\n)?^```\n(.*?)^```$", re.M | re.S)
QUICK_START = re.compile(r"^## Quick start\n(.*?)(?=^## )", re.M | re.S)
PATIENCE_SECONDS = 240


def blocks_of(page):
    """Return the blocks of a page's quick start: (what the comment before it says, its text)."""
    (section,) = QUICK_START.findall((ROOT / "docs" / page).read_text())
    return BLOCK.findall(section)


BLOCKS = dict(block for page in ("coordinator.md", "site.md") for block in blocks_of(page))


def short_plan():
    stage = {"rounds": 1, "learning_rate": 5e-3, "quorum": 3}
    return TrainingPlan(
        image_size=64,
        network=NetworkConfig(channels=(8, 16), first_skip_level=1, stem=1),
        pretraining=StagePlan(**stage),
        finetuning=FinetuningPlan(**stage),
        federation=FederationPlan(join_seconds=0),
    )


class Terminal:
    """A person at a machine: a home folder, a folder they are in, and what they would replace."""

    def __init__(self, home, start, **replaced):
        home.mkdir(parents=True)
        self.home, self.folder = home, start
        self.replaced = replaced
        self.background = None
        self.typed = set()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MAMFED_")}
        self.environment = {**kept, "HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}

    def text(self, name):
        self.typed.add(name)
        text = BLOCKS[name]
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        return text

    def type(self, name):
        """Run a block to its end, answering yes to what it asks; return what it printed."""
        remember = f"trap 'pwd > {self.home}/.folder' EXIT\n"
        done = subprocess.run(
            ["bash", "-e", "-c", remember + self.text(name)],
            cwd=self.folder,
            env=self.environment,
            input="y\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        said = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, f"{name}: {done.returncode}\n{said}"
        self.folder = Path((self.home / ".folder").read_text().strip())
        return said

    def leave_running(self, name):
        """Run a block whose only command goes on until it is stopped."""
        with (self.home / "screen").open("wb") as screen:
            self.background = subprocess.Popen(
                ["bash", "-c", f"exec {self.text(name)}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=subprocess.STDOUT,
            )

    def screen(self):
        return (self.home / "screen").read_text(errors="replace")

    def stop(self):
        if self.background is not None and self.background.poll() is None:
            self.background.send_signal(signal.SIGINT)  # Ctrl-C
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.background.wait(40)
            self.background.kill()


@pytest.fixture
def coordinator(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = f"--host 127.0.0.1 --bind 127.0.0.1 --port {port}"
    person = Terminal(tmp_path / "coordinator", ROOT, **{"--host mamfed.example.org": here})
    yield person
    person.stop()


@pytest.fixture
def sites(tmp_path):
    people = {}
    for name, look in VENDORS.items():
        mammograms = tmp_path / "exports" / name
        write_cohort(mammograms, look, benign=5, malignant=6, seed=0)
        replaced = {"/data/exports": str(mammograms), "north": name}
        replaced["5d2f09c1a4b7"] = short_plan().sha256()[:12]
        people[name] = Terminal(tmp_path / name, tmp_path, **replaced)
    yield people
    for person in people.values():
        person.stop()


def wait_until(done, person):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, person.screen()
        assert person.background.poll() is None, person.screen()
        time.sleep(0.2)


def test_every_command_of_a_quick_start_is_marked_for_this_test():
    for page in ("coordinator.md", "site.md"):
        unmarked = [text for name, text in blocks_of(page) if not name]
        assert len(unmarked) == 1
        assert re.fullmatch(r"pip install \S+\n", unmarked[0])


def test_a_coordinator_and_three_hospitals_follow_their_quick_starts_to_a_trained_model(
    coordinator, sites
):
    coordinator.type("coordinator")
    home = coordinator.folder
    (home / "plan.yaml").write_text(short_plan().to_yaml())

    asked = at_once(sites, lambda person: person.type("site"))
    for name, person in sites.items():
        shutil.copy(person.folder / "request.json", home / f"{name}.request.json")
        coordinator.replaced["north"] = name
        assert fingerprint(asked[name]) == fingerprint(coordinator.type("coordinator approves"))
        for file in (f"{name}.welcome.json", "plan.yaml"):
            shutil.copy(home / file, person.folder)
    assert f"approved sites: {', '.join(sites)}" in coordinator.type("coordinator checks")

    coordinator.leave_running("coordinator starts")
    wait_until((home / "status.json").exists, coordinator)
    joined = at_once(sites, join)
    assert all("pass  server" in said for said in joined.values())
    assert "first: running" in coordinator.type("coordinator looks")
    at_once(sites, approve)

    assert coordinator.background.wait(PATIENCE_SECONDS) == 0, coordinator.screen()
    assert "3 of 3 sites" in coordinator.type("coordinator ends")
    summary = json.loads((coordinator.home / "first" / "summary.json").read_text())
    assert summary["complete"] is True
    assert summary["stages"] == {stage: sorted(sites) for stage in ("pretraining", "finetuning")}
    load_checkpoint(coordinator.home / "first" / "model.safetensors")
    assert "Run first" in (home / "runs" / "first" / "report.html").read_text()
    for report in at_once(sites, lambda person: person.type("site looks back")).values():
        assert "whole: " in report
        assert "Trained in finetuning: 1 round, number 1" in report

    typed = coordinator.typed.union(*(person.typed for person in sites.values()))
    assert typed == BLOCKS.keys() - {""}


def join(person):
    said = person.type("site joins")
    person.leave_running("site starts")
    return said


def approve(person):
    plan = person.folder / "plans" / f"{short_plan().sha256()}.yaml"
    wait_until(plan.exists, person)
    assert "approved by" in person.type("site approves")


def at_once(sites, act):
    """Let all hospitals do the same at the same time; return what each saw."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(sites, pool.map(act, sites.values()), strict=True))


def fingerprint(text):
    return re.search(r"fingerprint: (.+)", text)[1]
