"""The quick starts of docs/coordinator.md and docs/site.md, typed as they stand, by four people.

The programs are those of a wheel that was just built and installed into a new virtual environment.
Each person has a home folder and a terminal, in which a page's blocks are run as bash. Changed is
what a reader changes: the site's name, the folder of mammograms, the host and the plan.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.model.config import NetworkConfig
from mamfed_common.plan import FederationPlan, FinetuningPlan, StagePlan, TrainingPlan
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("wheel", ROOT / "deploy" / "wheel.py")
wheel = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(wheel)
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

    def __init__(self, programs, home, start, **replaced):
        home.mkdir(parents=True)
        self.home, self.folder = home, start
        self.replaced = replaced
        self.background = None
        self.typed = set()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MAMFED_")}
        self.environment = {**kept, "HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}

    def text(self, name):
        self.typed.add(name)
        text = BLOCKS[name]
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        return text

    def type(self, name, code=0):
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
        assert done.returncode == code, f"{name}: {done.returncode}\n{said}"
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


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Build the wheel and install it; return the folder of its three programs."""
    built = wheel.build(tmp_path_factory.mktemp("dist"))
    environment = tmp_path_factory.mktemp("environment")
    wheel.install(built, environment)
    return environment / "bin"


@pytest.fixture
def coordinator(tmp_path, programs):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = f"--host 127.0.0.1 --bind 127.0.0.1 --port {port}"
    person = Terminal(
        programs,
        tmp_path / "coordinator",
        ROOT,
        **{"breast-federation": f"breast-federation {here}"},
    )
    yield person
    person.stop()


@pytest.fixture
def sites(tmp_path, programs):
    people = {}
    for name, look in VENDORS.items():
        mammograms = tmp_path / "exports" / name
        write_cohort(mammograms, look, benign=5, malignant=6, seed=0)
        replaced = {"/data/exports": str(mammograms), "north": name}
        people[name] = Terminal(programs, tmp_path / name, tmp_path, **replaced)
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
        assert re.fullmatch(
            r"pip install --require-hashes --no-deps -r (\S+) && pip install \S+\n", unmarked[0]
        )


def test_the_pages_of_the_wheel_find_their_assets_without_leaving_this_machine(programs):
    lines = wheel.check_pages(programs.parent)
    assert [line.partition(":")[0] for line in lines] == [
        "mamfed-server dashboard", "mamfed-client dashboard",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "until", "sites"),
    [("site.md", "site starts", 1), ("coordinator.md", "coordinator starts", 3)],
)
def test_a_quick_start_counts_its_commands_right(page, until, sites):
    counted = 0
    for name, text in blocks_of(page):
        commands = re.findall(r"^(?:mamfed-|pip )\S.*", text, re.M)
        counted += sum(sites if "sites approve" in command else 1 for command in commands)
        if name == until:
            break
    (section,) = QUICK_START.findall((ROOT / "docs" / page).read_text())
    assert f" {counted} commands until " in section


@pytest.mark.parametrize(("page", "most"), [("site.md", 7), ("coordinator.md", 6)])
def test_a_quick_start_counts_its_decisions_right(page, most):
    (section,) = QUICK_START.findall((ROOT / "docs" / page).read_text())
    number, listed = re.search(r"make\s+(\d+) decisions: (.*?)\.\s", section, re.S).groups()
    decisions = re.split(r",\s+(?:and\s+)?", listed)
    assert sum(3 if each.startswith("three ") else 1 for each in decisions) == int(number) <= most


def test_a_coordinator_and_three_hospitals_follow_their_quick_starts_to_a_trained_model(
    coordinator, sites
):
    coordinator.type("coordinator")
    home = coordinator.folder
    (home / "plan.yaml").write_text(short_plan().to_yaml())

    asked = at_once(sites, lambda person: person.type("site"))
    at_once(sites, lambda person: change(person, "min_patients_a_round: 1"))  # they have few
    for name, person in sites.items():
        shutil.copy(person.folder / "request.json", home / f"{name}.request.json")
        coordinator.replaced["north"] = name
        assert fingerprint(asked[name]) == fingerprint(coordinator.type("coordinator approves"))
        for file in (f"{name}.welcome.json", "plan.yaml"):
            shutil.copy(home / file, person.folder)
    assert f"3 sites are approved ({', '.join(sites)})" in coordinator.type("coordinator checks")

    careful = next(iter(sites))
    bound(sites[careful], 4)
    at_once(sites, lambda person: join(person, code=9 if person is sites[careful] else 0))
    coordinator.leave_running("coordinator starts")
    wait_until((home / "status.json").exists, coordinator)
    assert "first: running" in coordinator.type("coordinator looks")
    wait_until(lambda: f"refused, because {NOT_ALLOWED}" in sites[careful].screen(), coordinator)
    assert f"is blocked: {BOUND}" in sites[careful].type("site looks")
    bound(sites[careful], 3)  # what the line says, and nothing else

    assert coordinator.background.wait(PATIENCE_SECONDS) == 0, coordinator.screen()
    assert "3 of 3 sites" in coordinator.type("coordinator ends")
    summary = json.loads((coordinator.home / "first" / "summary.json").read_text())
    assert summary["complete"] is True
    assert summary["stages"] == {stage: sorted(sites) for stage in ("pretraining", "finetuning")}
    final = load_checkpoint(coordinator.home / "first" / "model.safetensors")
    assert "Run first" in (home / "runs" / "first" / "report.html").read_text()
    for person in sites.values():
        wait_until(lambda p=person: "run first has finished; its final" in p.screen(), person)
        (model,) = person.folder.glob("models/first-*/shared.safetensors")
        assert load_checkpoint(model).facts.weights_sha256 == final.facts.weights_sha256
        card = (model.parent / "card.md").read_text()
        assert "The final model of run first" in card
        assert final.facts.weights_sha256 in card
    for report in at_once(sites, lambda person: person.type("site looks back")).values():
        assert "run first has finished; its final model is " in report
        assert "nothing answers at " in report
        assert re.search(r"^first +[0-9a-f]{12} ", report, re.M)
        assert "The audit log is intact: " in report
        assert "Trained in finetuning: 1 round, number 1" in report

    typed = coordinator.typed.union(*(person.typed for person in sites.values()))
    assert typed == BLOCKS.keys() - {""}


BOUND = "min_sites is 3, policy.bounds.min_min_sites allows at least 4"
NOT_ALLOWED = f"this site's policy does not allow this plan: {BOUND}"


def join(person, code):
    """Join, check and approve before the coordinator starts; code 9: a bound is in the way."""
    said = person.type("site joins", code)
    assert "warn  server: nothing answers at 127.0.0.1:" in said
    assert (f"fail  bounds: {BOUND}" in said) == bool(code)
    said = person.type("site approves")
    assert "approved by" in said
    assert (f"that is not enough: the plan is still outside bounds: {BOUND}" in said) == bool(code)
    person.leave_running("site starts")


def bound(person, min_sites):
    """Change a bound in ``site.yaml``."""
    change(person, f"min_min_sites: {min_sites}")


def change(person, line):
    """Change one line of ``site.yaml``."""
    path = person.folder / "site.yaml"
    text, count = re.subn(rf"{line.split(':')[0]}: \d+", line, path.read_text())
    assert count == 1
    path.write_text(text)


def at_once(sites, act):
    """Let all hospitals do the same at the same time; return what each saw."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(sites, pool.map(act, sites.values()), strict=True))


def fingerprint(text):
    return re.search(r"fingerprint: (.+)", text)[1]
