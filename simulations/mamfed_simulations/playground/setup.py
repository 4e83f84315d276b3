"""Set a playground up by the commands that a coordinator and three hospitals would type."""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mamfed_common.errors import SetupError
from mamfed_common.model.config import NetworkConfig
from mamfed_common.plan import (
    EvaluationPlan,
    FederationPlan,
    FinetuningPlan,
    PersonalPlan,
    StagePlan,
    TrainingPlan,
)
from mamfed_common.runtime.commands import click_command
from mamfed_common.runtime.files import (
    cannot_write,
    give_all_to_owner,
    private_directory,
    write_atomic,
)
from mamfed_common.runtime.text import read_text
from mamfed_common.transforms.config import AugmentationConfig
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort
from mamfed_simulations.playground.child import MODULES
from mamfed_simulations.playground.layout import SITES, Layout, Remembered, run_name

BENIGN_IMAGES, MALIGNANT_IMAGES = 12, 16
CONTACT = "playground"
CHANGES = {"min_patients_a_round: 10": "min_patients_a_round: 1",
           "min_patients_to_report: 10": "min_patients_to_report: 1",
           "threads: null": "threads: 1"}  # fmt: skip
"""Phantoms are nobody and few, and three sites share this machine."""

Say = Callable[[str], None]


def small_plan(rounds: int, seed: int) -> TrainingPlan:
    """Return a plan whose rounds take seconds, with some rounds of stage 1 before."""
    first = StagePlan(
        rounds=2,
        local_steps=6,
        batch_size=2,
        learning_rate=5e-3,
        deadline_seconds=600,
        min_deadline_seconds=120,
    )
    second = FinetuningPlan(
        rounds=rounds, local_steps=8, batch_size=2, learning_rate=5e-3, deadline_seconds=600,
        min_deadline_seconds=120, optimizer_state="kept",
    )  # fmt: skip
    return TrainingPlan(
        image_size=96,
        seed=seed,
        network=NetworkConfig(channels=(8, 16, 32, 32), first_skip_level=1, stem=1, smoothing=1),
        pretraining=first,
        finetuning=second,
        evaluation=EvaluationPlan(validation_fraction=0.2, test_fraction=0.25, every=1),
        augmentation=AugmentationConfig(max_rotation_degrees=0, max_log_scale=0),
        federation=FederationPlan(join_seconds=30),
        personal=PersonalPlan(steps=12),
    )


class Setup:
    """Sets one playground up.

    Attributes:
        typed: The commands that ran, as a person would type them.
    """

    def __init__(self, layout: Layout, say: Say) -> None:
        """Work in this folder, and report each step."""
        self._layout, self._say = layout, say
        self.typed: list[str] = []

    def homes(self) -> Remembered:
        """Draw phantoms, make the homes, enrol the sites; return what to remember.

        Raises:
            SetupError: A command failed; its output is in ``logs/setup.log``.
            OutputError: The folder cannot be written.
        """
        layout = self._layout
        remembered = layout.remembered()
        if remembered.ready:
            return remembered
        remembered = Remembered(port=remembered.port or free_port())
        private_directory(layout.path)
        layout.remember(remembered)
        self._say(
            f"drawing {BENIGN_IMAGES + MALIGNANT_IMAGES} phantoms for each of three hospitals"
        )
        self._draw()
        self._say("making the coordinator's home")
        self.run(
            "mamfed-server", "init", layout.server, "--name", "Playground", "--host", "127.0.0.1",
            "--bind", "127.0.0.1", "--port", remembered.port, "--contact", CONTACT,
        )  # fmt: skip
        for name in SITES:
            self._say(f"enrolling {name}")
            self._enrol(name)
        give_all_to_owner(layout.path, layout.path.parent)
        remembered = remembered.model_copy(update={"ready": True})
        layout.remember(remembered)
        return remembered

    def plan(self, remembered: Remembered, rounds: int) -> Remembered:
        """Write the plan of the next run and approve it at each site.

        Raises:
            SetupError: A command failed.
        """
        run = remembered.runs + 1
        path = self._layout.plan(run)
        self._say(f"planning run {run_name(run)} and approving its plan at each site")
        write_atomic(path, small_plan(rounds, seed=run - 1).to_yaml())
        self.run("mamfed-server", "check", path, "--home", self._layout.server)
        for name in SITES:
            home = self._layout.site(name)
            self.run("mamfed-client", "plan", "approve", path, "--home", home, "--yes")
        remembered = remembered.model_copy(update={"runs": run})
        self._layout.remember(remembered)
        return remembered

    def _draw(self) -> None:
        for name, look in VENDORS.items():
            folder = self._layout.phantoms / name
            write_cohort(folder, look, benign=BENIGN_IMAGES, malignant=MALIGNANT_IMAGES, seed=0)

    def _enrol(self, name: str) -> None:
        layout, home = self._layout, self._layout.site(name)
        welcome = layout.path / f"{name}.welcome.json"
        self.run(
            "mamfed-client", "init", home, "--name", name, "--data", layout.phantoms / name,
            "--allow-model", "--allow-metrics", "--contact", CONTACT,
        )  # fmt: skip
        self._change_settings(home / "site.yaml")
        self.run(
            "mamfed-server", "sites", "approve", home / "request.json", "--home", layout.server,
            "--yes", "--out", welcome,
        )  # fmt: skip
        self.run("mamfed-client", "join", welcome, "--home", home, "--yes")

    def _change_settings(self, path: Path) -> None:
        text = read_text(path)
        for before, after in CHANGES.items():
            if text.count(before) != 1 and text.count(after) != 1:
                raise SetupError(f"{path}: expected the line {before!r}; make a new playground")
            text = text.replace(before, after)
        write_atomic(path, text)

    def run(self, program: str, *words: object) -> None:
        """Run one command of mamfed to its end, here.

        Raises:
            SetupError: It failed.
        """
        arguments = [str(word) for word in words]
        typed = shlex.join([program, *arguments])
        self.typed.append(typed)
        log = private_directory(self._layout.logs) / "setup.log"
        try:
            with log.open("a", encoding="utf-8") as file, _environment(self._layout.environment):
                file.write(f"$ {typed}\n")
                file.flush()
                command = click_command(importlib.import_module(MODULES[program]).app)
                with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                    code = command.main(arguments, prog_name=program, standalone_mode=False)
        except OSError as error:
            raise cannot_write(self._layout.path, error) from None
        if code:
            raise SetupError(f"{typed}: ended with code {code}; its output is in {log}")


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
