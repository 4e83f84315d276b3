"""What the documentation promises exists, and what exists is documented."""

import inspect
import re
from pathlib import Path

import pytest
import typer

import mamfed_client.cli
import mamfed_server.cli
import mamfed_simulations.cli
from mamfed_client.datasets import LAYOUTS
from mamfed_client.datasets.plain import COLUMNS
from mamfed_client.rejections import Reason
from mamfed_common import errors
from mamfed_common.plan import TrainingPlan

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "deploy/README.md"]
TEXT = "\n".join(page.read_text() for page in PAGES)


def _names(group):
    """Name a program's commands; those of a group follow its name."""
    for name, command in group.commands.items():
        subcommands = getattr(command, "commands", None)
        yield from (f"{name} {sub}" for sub in subcommands) if subcommands else [name]


COMMANDS = {
    f"{program} {name}"
    for program, module in (
        ("mamfed-client", mamfed_client.cli),
        ("mamfed-server", mamfed_server.cli),
        ("mamfed-simulate", mamfed_simulations.cli),
    )
    for name in _names(typer.main.get_command(module.app))
}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_documented(command):
    assert command in TEXT


def test_no_page_names_a_command_that_does_not_exist():
    named = set(re.findall(r"mamfed-(?:client|server|simulate) (?:data [a-z]+|[a-z]+)", TEXT))
    assert named <= COMMANDS | {"mamfed-client data"}


def test_every_exit_code_is_documented():
    page = (ROOT / "docs/researcher.md").read_text()
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.MamfedError)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)} == codes | {0, 2, 130}


def test_every_column_reason_and_plan_key_is_documented():
    data, plan = (ROOT / "docs" / name for name in ("data.md", "researcher.md"))
    assert not [name for name in COLUMNS if f"`{name}`" not in data.read_text()]
    assert not [name for name in LAYOUTS if f"`{name}`" not in data.read_text()]
    assert not [reason for reason in Reason if f"`{reason}`" not in data.read_text()]
    assert not [key for key in TrainingPlan.model_fields if f"`{key}`" not in plan.read_text()]


def test_every_link_to_a_file_leads_somewhere():
    broken = [
        (page.name, link)
        for page in PAGES
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not broken
