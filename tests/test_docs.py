"""What the documentation promises exists, and what exists is documented."""

import inspect
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import typer

import mamfed_client.cli.main
import mamfed_server.cli.main
import mamfed_simulations.cli.main
from mamfed_client.datasets import LAYOUTS
from mamfed_client.datasets.plain import COLUMNS
from mamfed_client.imaging.rejections import Reason
from mamfed_client.site.policy import MetricName
from mamfed_client.site.settings import SiteSettings
from mamfed_common import errors
from mamfed_common.config import Config
from mamfed_common.plan import FederationPlan, StagePlan, TrainingPlan
from mamfed_common.protocol.tasks import REFUSAL_CODES
from mamfed_common.runtime.documents import yaml_value
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_server.settings import ServerSettings

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "deploy/README.md",
    ROOT / "deploy/RUNBOOK.md",
]
TEXT = "\n".join(page.read_text() for page in PAGES)


def _names(group):
    """Name a program's commands; those of a group follow its name."""
    for name, command in group.commands.items():
        subcommands = getattr(command, "commands", None)
        yield from (f"{name} {sub}" for sub in subcommands) if subcommands else [name]


COMMANDS = {
    f"{program} {name}"
    for program, module in (
        ("mamfed-client", mamfed_client.cli.main),
        ("mamfed-server", mamfed_server.cli.main),
        ("mamfed-simulate", mamfed_simulations.cli.main),
    )
    for name in _names(typer.main.get_command(module.app))
}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_documented(command):
    assert command in TEXT


def test_no_page_names_a_command_that_does_not_exist():
    groups = {command.rpartition(" ")[0] for command in COMMANDS if command.count(" ") == 2}
    words = "|".join(group.split()[1] for group in groups)
    command = rf"mamfed-(?:client|server|simulate) (?:(?:{words}) [a-z0-9]+|[a-z]+)"
    assert set(re.findall(command, TEXT)) <= COMMANDS | groups


@pytest.mark.parametrize("page", ["docs/researcher.md", "deploy/README.md"])
def test_every_exit_code_is_documented(page):
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.MamfedError)}
    found = re.findall(r"^\| (\d+) \|", (ROOT / page).read_text(), re.M)
    assert {int(code) for code in found} == codes | {0, 2, 130}


def test_every_column_reason_and_plan_key_is_documented():
    data, plan = (ROOT / "docs" / name for name in ("data.md", "researcher.md"))
    assert not [name for name in COLUMNS if f"`{name}`" not in data.read_text()]
    assert not [name for name in LAYOUTS if f"`{name}`" not in data.read_text()]
    assert not [reason for reason in Reason if f"`{reason}`" not in data.read_text()]
    assert not [key for key in TrainingPlan.model_fields if f"`{key}`" not in plan.read_text()]


def _settings(model, prefix=""):
    """Yield each key of a YAML file, dots between levels, with its default as YAML."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if inspect.isclass(kind) and issubclass(kind, Config):
            yield from _settings(kind, f"{prefix}{name}.")
        else:
            default = "" if field.is_required() else _as_yaml(field.default)
            yield f"{prefix}{name}", default


def _as_yaml(value):
    return f"`{yaml_value(list(value) if isinstance(value, tuple) else value)}`"


@pytest.mark.parametrize(
    ("page", "heading", "model", "prefix"),
    [
        ("site.md", "site.yaml", SiteSettings, ""),
        ("coordinator.md", "server.yaml", ServerSettings, ""),
        ("coordinator.md", "Deadlines and quorum", FederationPlan, "federation."),
    ],
)
def test_a_table_holds_every_key_with_its_default(page, heading, model, prefix):
    found = {key: default for key, default in _rows(page, heading) if key.startswith(prefix)}
    assert found == dict(_settings(model, prefix))


def test_the_plan_s_deadlines_and_quorum_have_their_defaults():
    found = dict(_rows("coordinator.md", "Deadlines and quorum"))
    for key in ("quorum", "deadline_seconds", "min_deadline_seconds"):
        names = f"pretraining.{key}`, `finetuning.{key}"
        assert found[names] == _as_yaml(StagePlan.model_fields[key].default)


def _section(page, heading):
    text = (ROOT / "docs" / page).read_text()
    return re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]


def _rows(page, heading):
    """Return the first two cells of each row that begins with code."""
    return re.findall(r"^\| `(.+?)` \| ?(.*?) ?\|", _section(page, heading), re.M)


def test_every_code_that_a_site_sends_is_documented_in_its_own_words():
    text = _section("site.md", "What leaves your site")
    assert {
        int(code): words for code, words in re.findall(r"^\| (\d+) \| (.+) \|$", text, re.M)
    } == {int(code): words for code, words in REFUSAL_CODES.items()}


def test_every_value_that_may_leave_is_documented():
    text = _section("site.md", "What leaves your site")
    assert not [name for name in (*get_args(MetricName), "arrays") if f"`{name}`" not in text]


def test_every_key_of_a_round_and_every_event_is_documented():
    text = _section("coordinator.md", "What a run folder says")
    assert not [key for key in RoundRecord.model_fields if f"`{key}`" not in text]
    source = "".join(path.read_text() for path in (ROOT / "server/mamfed_server").rglob("*.py"))
    written = set(
        re.findall(r"""log\.write\(\s*"([a-z ]+)"(?: if \w+ else "([a-z ]+)")?""", source)
    )
    events = {name for pair in written for name in pair if name} | {"started", "resumed"}
    table = text.split("| event | meaning |")[1].split("\n\n")[0]
    first_cells = "".join(re.findall(r"^\| (`.+?) \|", table, re.M))
    assert set(re.findall(r"`([a-z ]+)`", first_cells)) == events


def test_every_decision_is_in_the_index():
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text()
    assert not [
        path for path in folder.glob("0*.md") if f"[{path.name[:4]}]({path.name})" not in index
    ]


def test_every_link_to_a_file_leads_somewhere():
    broken = [
        (page.name, link)
        for page in PAGES
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not broken


ARCHITECTURE = ROOT / "docs/architecture.md"
PACKAGES = {
    package: ROOT / package / f"mamfed_{package}" for package in ("common", "client", "server")
} | {"simulations": ROOT / "simulations/mamfed_simulations"}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tree_shows_every_room(package):
    tree = ARCHITECTURE.read_text().split("```")[1]
    block = tree.split(f"{package}/mamfed_{package}")[1].split("\n\n")[0]
    shown = {
        name.strip().rstrip("/").removesuffix(".py")
        for line in re.findall(r"^    (\S.*?)(?:  |$)", block, re.M)
        for name in line.split(",")
    }
    rooms = {
        path.stem
        for path in PACKAGES[package].iterdir()
        if (path / "__init__.py").exists() or path.suffix == ".py"
    }
    assert shown == rooms - {"__init__", "__main__"}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_layers_are_those_of_the_contract(package):
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [
        contract["layers"]
        for contract in contracts["contracts"]
        if contract.get("containers") == [f"mamfed_{package}"]
    ]
    (row,) = re.findall(rf"^\| {package} \| (.*) \|$", ARCHITECTURE.read_text(), re.M)
    shown = [set(layer.split(", ")) for layer in row.split("; ")]
    assert shown == [set(layer.split(" | ")) for layer in layers]


def test_where_is_names_files_that_exist():
    section = ARCHITECTURE.read_text().split("## Where is ...?")[1]
    paths = re.findall(r"`((?:common|client|server|simulations)/[\w/]+\.py)`", section)
    assert len(paths) > 10
    assert not [path for path in paths if not (ROOT / path).exists()]
