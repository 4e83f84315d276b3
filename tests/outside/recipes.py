"""Every command that writes: how it is called, what it writes, and what tells that it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mamfed_client.cli.dashboard import LOCK as PAGE_LOCK
from mamfed_client.site.settings import SiteHome
from mamfed_common.runtime.lock import LOCK
from mamfed_common.web.serving import ADDRESS_FILE
from mamfed_server.settings import ServerHome

from .material import SITES, Material, tiny_plan

Kind = Literal["folder", "file", "home", "service"]
Words = Sequence[object]
FIRST = SITES[0]
PLAN_SHA256 = tiny_plan().sha256()


@dataclass(frozen=True)
class Recipe:
    """A command that writes.

    Attributes:
        command: Its name, as it is typed.
        kind: Whether it makes a folder or a file that ``--out`` or the like names, changes a home
            or run folder that is there, or serves one until it is stopped.
        argv: What follows the name, for what it works on and where it writes.
        makes: What must be there, below where it writes, once it has succeeded.
        variant: What tells it from another recipe of the same command.
        name: How the file or folder that it makes is called.
        home: What of the material is copied to where it works; empty: it makes its own.
        lock: The file whose lock keeps a second one out, for where it writes; None: none does.
        serves: Tells that a service has begun its work.
        changed: What follows the name for another question of the same ``out``: other data,
            weights or options; empty: what follows the first time.
    """

    command: str
    kind: Kind
    argv: Callable[[Material, Path], Words]
    makes: tuple[str, ...] = ()
    variant: str = ""
    name: str = "result"
    home: str = ""
    lock: Callable[[Path], Path] | None = None
    serves: Callable[[Path], bool] = lambda home: True
    changed: Callable[[Material, Path], Words] = lambda m, out: ()

    @property
    def title(self) -> str:
        return f"{self.command} {self.variant}".strip()


def _inside(name: str) -> Callable[[Path], Path]:
    return lambda out: out / name


def _beside(out: Path) -> Path:
    return out.parent / f".{out.name}.lock"


def _has(path: Path, key: str) -> bool:
    return path.exists() and bool(json.loads(path.read_bytes()).get(key))


def _phantoms(out: Path) -> Path:
    return out.parent / f".{out.name}-phantoms.lock"


def _sites(m: Material) -> list[str]:
    return [part for name in SITES for part in ("--site", f"{name}={m.path}/data/{name}")]


def _study(kind: str, row: str) -> Recipe:
    return Recipe(
        f"mamfed-simulate experiment {kind}",
        "folder",
        lambda m, out: (
            "--data", m.path / "data/cirrus", "--plan", m.plan, "--epochs", 1,
            "--pretraining-epochs", 1, "--rows", row, "--threads", 1, "--out", out,
        ),
        ("study.json", "plan.yaml", "results.json", "report.html"),
        lock=_inside("study.lock"),
        changed=lambda m, out: (
            "--data", m.path / "data/cirrus", "--plan", m.plan, "--epochs", 2,
            "--pretraining-epochs", 1, "--rows", row, "--threads", 1, "--out", out,
        ),
    )  # fmt: skip


RUN = ("plan.yaml", "summary.json", "report.html", "checkpoints/best.safetensors")

RECIPES = (
    Recipe(
        "mamfed-client data check", "file",
        lambda m, out: (m.path / "data/cirrus", "--html", out),
        variant="--html", name="check.html",
        changed=lambda m, out: (m.path / "study", "--html", out),
    ),
    Recipe(
        "mamfed-client data check", "file",
        lambda m, out: (m.path / "study", "--table", out),
        variant="--table", name="labels.csv",
    ),
    Recipe(
        "mamfed-client data prepare", "folder",
        lambda m, out: (
            m.path / "data/cirrus", "--out", out, "--size", 32, "--accept-doubts"
        ),
        ("manifest.json", "samples"), lock=_inside(LOCK),
        changed=lambda m, out: (m.path / "data/cirrus", "--out", out, "--size", 64),
    ),
    Recipe(
        "mamfed-client data show", "file",
        lambda m, out: (m.path / "prepared", 8, "--out", out), name="row.png",
        changed=lambda m, out: (m.path / "prepared", 9, "--out", out),
    ),
    Recipe(
        "mamfed-client data describe", "home",
        lambda m, home: ("--home", home, "--out", home / "a.survey.json", "--yes"),
        ("a.survey.json", "audit.jsonl"), home=f"homes/{FIRST}",
    ),
    Recipe(
        "mamfed-client init", "home",
        lambda m, home: (home, "--name", FIRST, "--data", m.path / "data" / FIRST),
        ("site.yaml", "keys/node.key", "keys/tls.key"),
        changed=lambda m, home: (home, "--name", FIRST, "--data", m.path / "data/cirrus"),
    ),
    Recipe(
        "mamfed-client enroll", "home", lambda m, home: ("--home", home),
        ("request.json",), home="home-initiated",
        changed=lambda m, home: ("--home", home, "--new-keys"),
    ),
    Recipe(
        "mamfed-client join", "home",
        lambda m, home: (m.path / f"{FIRST}.welcome.json", "--home", home, "--yes"),
        ("welcome.json",), home="home-enrolled",
        changed=lambda m, home: (
            m.path / f"{SITES[1]}.welcome.json", "--home", home, "--yes"
        ),
    ),
    Recipe(
        "mamfed-client start", "service", lambda m, home: ("--home", home),
        ("status.json",), home=f"homes/{FIRST}", lock=lambda home: SiteHome(home).lock,
        serves=lambda home: _has(home / "status.json", "node_pid"),
    ),
    Recipe(
        "mamfed-client dashboard", "service", lambda m, home: ("--home", home, "--port", 0),
        ("site.yaml",), home=f"homes/{FIRST}", lock=lambda home: home / PAGE_LOCK,
        serves=lambda home: (home / ADDRESS_FILE).exists(),
    ),
    Recipe(
        "mamfed-server start", "service",
        lambda m, home: ("--home", home, "--plan", m.plan, "--run", "new"),
        ("runs/new/plan.yaml",), home="server", lock=lambda home: ServerHome(home).lock,
        serves=lambda home: (home / "logs/server.log").exists(),
        changed=lambda m, home: ("--home", home, "--plan", m.other_plan, "--run", "new"),
    ),
    Recipe(
        "mamfed-server resume", "service", lambda m, home: ("begun", "--home", home),
        ("runs/begun/plan.yaml",), home="server", lock=lambda home: ServerHome(home).lock,
        serves=lambda home: (home / "logs/server.log").exists(),
    ),
    Recipe(
        "mamfed-client plan approve", "home",
        lambda m, home: (PLAN_SHA256, "--yes", "--home", home),
        ("plans/decisions.jsonl",), home=f"homes/{FIRST}",
    ),
    Recipe(
        "mamfed-client models add", "home",
        lambda m, home: (m.checkpoint, "--run", "late", "--home", home),
        (f"models/late-{PLAN_SHA256[:12]}/shared.safetensors",), home=f"homes/{FIRST}",
    ),
    Recipe(
        "mamfed-client plan refuse", "home", lambda m, home: (PLAN_SHA256, "--home", home),
        ("plans/decisions.jsonl",), home=f"homes/{FIRST}",
    ),
    Recipe(
        "mamfed-client predict", "folder",
        lambda m, out: (m.path / "study", "--checkpoint", m.checkpoint, "--out", out),
        ("model.json", "predictions.json", "index.html"), lock=_inside(LOCK),
        changed=lambda m, out: (
            m.path / "study", "--checkpoint", m.other_checkpoint, "--out", out
        ),
    ),
    Recipe(
        "mamfed-client evaluate", "file",
        lambda m, out: (
            "--data", m.path / "data/cirrus", "--checkpoint", m.checkpoint, "--out", out
        ),
        name="evaluation.json",
        changed=lambda m, out: (
            "--data", m.path / "data/cirrus", "--checkpoint", m.other_checkpoint, "--out", out
        ),
    ),
    Recipe(
        "mamfed-server init", "home",
        lambda m, home: (home, "--name", "Test", "--host", "127.0.0.1"),
        ("server.yaml", "ca/ca.pem", "ca/ca.key", "plan.key", "plan.pub", "tls/server.pem"),
        changed=lambda m, home: (home, "--name", "Other", "--host", "127.0.0.1"),
    ),
    Recipe(
        "mamfed-server sites approve", "home",
        lambda m, home: (m.path / "request.json", "--home", home, "--yes"),
        (f"sites/{FIRST}.json", f"{FIRST}.welcome.json"), home="server-initiated",
        changed=lambda m, home: (m.path / "newcomer.json", "--home", home, "--yes"),
    ),
    Recipe(
        "mamfed-server sites revoke", "home", lambda m, home: (FIRST, "--yes", "--home", home),
        (f"sites/{FIRST}.json",), home="server",
    ),
    Recipe(
        "mamfed-server sites rotate", "home", lambda m, home: ("--home", home),
        ("tls/server.pem",), home="server",
        changed=lambda m, home: ("--home", home, "--days", 30),
    ),
    Recipe(
        "mamfed-server report", "home", lambda m, run: (run,),
        ("report.html", "curves.png"), variant="of a run", home="run",
    ),
    Recipe(
        "mamfed-server report", "file", lambda m, out: (m.run, "--out", out),
        variant="--out", name="page.html",
    ),
    Recipe(
        "mamfed-server survey", "file",
        lambda m, out: (
            m.path / "survey.json", "--request", m.path / "request.json", "--html", out,
        ),
        name="survey.html",
    ),
    Recipe(
        "mamfed-server export", "folder", lambda m, out: (m.run, "--out", out),
        ("model.safetensors", "plan.yaml", "rounds.jsonl", "summary.json"),
        variant="--to run", lock=_inside(LOCK),
    ),
    Recipe(
        "mamfed-server export", "folder",
        lambda m, out: (m.checkpoint, "--to", "safetensors", "--out", out),
        ("model.safetensors", "network.json", "export.json", "MODEL_CARD.md"),
        variant="to a format", lock=_inside(LOCK),
        changed=lambda m, out: (m.other_checkpoint, "--to", "safetensors", "--out", out),
    ),
    Recipe(
        "mamfed-simulate partition", "folder",
        lambda m, out: ("--data", m.path / "data/cirrus", "--sites", 2, "--out", out),
        ("partition.json", "site-1/labels.csv", "site-2/labels.csv"), lock=_inside(LOCK),
        changed=lambda m, out: (
            "--data", m.path / "data/cirrus", "--sites", 2, "--seed", 1, "--out", out
        ),
    ),
    Recipe(
        "mamfed-simulate compare", "folder",
        lambda m, out: (m.run, m.path / "data/../run", "--out", out),  # one that all may read
        ("results.json", "results.md", "report.html", "curves.png"), lock=_inside(LOCK),
        changed=lambda m, out: (m.path / "server/runs/begun", m.run, "--out", out),
    ),
    Recipe(
        "mamfed-simulate run", "folder",
        lambda m, out: (*_sites(m), "--plan", m.plan, "--threads", 1, "--out", out),
        RUN, lock=_beside,
        changed=lambda m, out: (
            *_sites(m), "--plan", m.plan, "--threads", 1, "--seed", 1, "--out", out
        ),
    ),
    Recipe(
        "mamfed-simulate demo", "folder",
        lambda m, out: ("--threads", 1, "--workers", 1, "--out", out), RUN, lock=_phantoms,
        changed=lambda m, out: ("--threads", 1, "--workers", 1, "--seed", 1, "--out", out),
    ),
    Recipe(
        "mamfed-simulate playground", "folder",
        lambda m, out: ("--setup-only", "--out", out), ("playground.json", "plan-1.yaml"),
        lock=_inside(LOCK),
    ),
    Recipe(
        "mamfed-simulate experiment federation", "folder",
        lambda m, out: (
            *_sites(m), "--plan", m.plan, "--arms", "fedavg", "--threads", 1, "--workers", 1,
            "--out", out,
        ),
        ("arms.json", "results.json", "report.html"), lock=_inside("comparison.lock"),
        changed=lambda m, out: (
            *_sites(m), "--plan", m.plan, "--arms", "fedavg", "--threads", 1, "--workers", 1,
            "--size", 64, "--out", out,
        ),
    ),
    _study("table1", "supervised-scratch"),
    _study("peers", "discriminative-pretrained"),
)  # fmt: skip

TESTED_ELSEWHERE = {
    "mamfed-client job": "tests/unit/client/cluster/test_slurm.py",
    "mamfed-client notify test": "tests/unit/client/node/test_notices.py",
    "mamfed-client pacs check": "tests/processes/test_archive.py",
    "mamfed-client pacs pull": "tests/processes/test_archive.py",
    "mamfed-client pacs send": "tests/processes/test_archive.py",
    "mamfed-client password": "tests/unit/common/web/test_passwords.py",
    "mamfed-server dashboard": "tests/processes/test_dashboard.py",
    "mamfed-server notify test": "tests/unit/server/service/test_notices.py",
    "mamfed-server password": "tests/unit/server/dashboard/test_password.py",
}
"""Commands that need an archive, a person, a node or a receiver, and the tests that have these."""

WRITES_NOTHING = {
    "mamfed-client audit report": "",
    "mamfed-client audit verify": "",
    "mamfed-client models list": "",
    "mamfed-client plan list": "",
    "mamfed-client plan show": "",
    "mamfed-client preflight": "prepared images into the cache, their counts into the home",
    "mamfed-client status": "",
    "mamfed-server check": "",
    "mamfed-server runs": "",
    "mamfed-server show": "",
    "mamfed-server sites list": "",
    "mamfed-server status": "",
    "mamfed-server stop": "",
    "mamfed-simulate plan": "",
}
"""Commands that write nothing, with what they put into the user's own cache all the same."""
