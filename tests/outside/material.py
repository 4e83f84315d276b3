"""What the commands work on: phantoms, a run, prepared images and homes, made once a session."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.processes.deployment import free_port

from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_common.checkpoint import load_checkpoint, save_checkpoint
from mamfed_common.model.config import NetworkConfig
from mamfed_common.plan import (
    EvaluationPlan,
    FinetuningPlan,
    PersonalPlan,
    StagePlan,
    TrainingPlan,
)
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort

from .zygote import Order, Zygote

SITES = tuple(VENDORS)


def tiny_plan() -> TrainingPlan:
    stage = {"rounds": 1, "local_epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    return TrainingPlan(
        image_size=32,
        network=NetworkConfig(channels=(4, 8), first_skip_level=1, stem=1),
        pretraining=StagePlan(**stage),
        finetuning=FinetuningPlan(**stage),
        personal=PersonalPlan(steps=0),
        evaluation=EvaluationPlan(every=1),
    )


@dataclass(frozen=True)
class Material:
    """Where everything lies; nothing of it is ever changed.

    Attributes:
        path: The folder of it all.
        zygote: What runs commands.
    """

    path: Path
    zygote: Zygote

    @property
    def plan(self) -> Path:
        return self.path / "plan.yaml"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def checkpoint(self) -> Path:
        return self.run / "checkpoints" / "best.safetensors"

    @property
    def other_checkpoint(self) -> Path:
        return self.path / "other.safetensors"

    @property
    def other_plan(self) -> Path:
        return self.path / "other.yaml"

    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path / "user"),
            "MAMFED_CACHE": str(self.path / "cache"),
            "MAMFED_SECRET": str(self.path / "secret"),
            "OMP_NUM_THREADS": "1",
        }

    def call(self, *argv: object) -> None:
        """Run a command that must succeed."""
        out, err = self.path / "out", self.path / "err"
        words = [str(word) for word in argv]
        order = Order(words, str(self.path), str(out), str(err), self.env())
        code = self.zygote.wait(self.zygote.start(order))
        assert code == 0, f"{words}: {code}\n{out.read_text()}\n{err.read_text()}"


def make_material(path: Path, zygote: Zygote) -> Material:
    """Draw phantoms, train, prepare, and enrol three sites, by the commands themselves."""
    path.chmod(0o755)
    material = Material(path, zygote)
    (path / "user").mkdir()
    material.plan.write_text(tiny_plan().to_yaml())
    for name, look in VENDORS.items():
        write_cohort(path / "data" / name, look, benign=5, malignant=8, seed=3, scale=0.06)
    _make_pictures(path)
    sites = [part for name in SITES for part in ("--site", f"{name}={path}/data/{name}")]
    call = material.call
    call("mamfed-simulate", "run", *sites, "--plan", material.plan, "--threads", 1,
         "--out", material.run)  # fmt: skip
    material.other_plan.write_text(tiny_plan().changed(seed=1).to_yaml())
    _change_one_weight(material)
    call("mamfed-client", "data", "prepare", path / "data/cirrus", "--size", 32,
         "--out", path / "prepared", "--accept-doubts")  # fmt: skip
    _make_homes(material)
    for each in (material.run, path / "data", path / "prepared", *path.glob("*.json")):
        _let_all_read(each)
    return material


def _let_all_read(path: Path) -> None:
    for each in (path, *path.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)


def _change_one_weight(material: Material) -> None:
    checkpoint = load_checkpoint(material.checkpoint)
    name = min(checkpoint.state)
    state = dict(checkpoint.state)
    state[name] = state[name].clone()
    state[name].view(-1)[0] += 1
    save_checkpoint(material.other_checkpoint, checkpoint._replace(state=state))
    material.other_checkpoint.chmod(0o644)


def _make_pictures(path: Path) -> None:
    """Put two files of a study into a folder of their own."""
    (path / "study").mkdir()
    for image in sorted((path / "data/cirrus/images").iterdir())[:2]:
        shutil.copy(image, path / "study")


def _make_homes(material: Material) -> None:
    path, call = material.path, material.call
    server = path / "server"
    call("mamfed-server", "init", server, "--name", "Test", "--host", "127.0.0.1",
         "--bind", "127.0.0.1", "--port", free_port())  # fmt: skip
    for name in SITES:
        home = path / "homes" / name
        call("mamfed-client", "init", home, "--name", name, "--data", path / "data" / name)
        if name == SITES[0]:
            shutil.copytree(home, path / "home-initiated")
        call("mamfed-client", "enroll", "--home", home)
        if name == SITES[0]:
            shutil.copytree(home, path / "home-enrolled")
            shutil.copytree(server, path / "server-initiated")
            shutil.copy(home / "request.json", path / "request.json")
        if name == SITES[1]:
            shutil.copy(home / "request.json", path / "newcomer.json")
        welcome = path / f"{name}.welcome.json"
        call("mamfed-server", "sites", "approve", home / "request.json", "--home", server,
             "--yes", "--out", welcome)  # fmt: skip
        call("mamfed-client", "join", welcome, "--home", home, "--yes")
    call("mamfed-client", "data", "describe", "--home", path / "home-enrolled",
         "--out", path / "survey.json", "--yes")  # fmt: skip
    RunFolder(server / "runs/begun").create(tiny_plan())
    PlanStore(path / "homes" / SITES[0] / "plans").remember(tiny_plan())
