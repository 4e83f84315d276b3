"""Every command that writes, in every situation outside the lab (``docs/outside-the-lab.md``)."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from shutil import which

import pytest
import typer

import mamfed_client.cli.main
import mamfed_server.cli.main
import mamfed_simulations.cli.main

from .recipes import RECIPES, TESTED_ELSEWHERE, WRITES_NOTHING
from .situations import SITUATIONS, Cell, content
from .table import ASCII, NO_HOME, NO_TMPDIR, PAGE, ROOT, USER, Outcome, expected, page
from .zygote import PROGRAMS, TEMPORARY, Order

NEED_ROOT = (NO_HOME, ROOT, USER)
MODULES = (mamfed_client.cli.main, mamfed_server.cli.main, mamfed_simulations.cli.main)


def _commands(group, name):
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}"


def test_every_command_is_in_the_table_or_writes_nothing():
    found = {
        command
        for program, module in zip(PROGRAMS, MODULES, strict=True)
        for command in _commands(typer.main.get_command(module.app), program)
    }
    writing = {recipe.command for recipe in RECIPES}
    listed = [*writing, *WRITES_NOTHING, *TESTED_ELSEWHERE]
    assert sorted(listed) == sorted(found)
    assert WRITES_NOTHING.keys() == READ.keys()


@pytest.mark.parametrize("command", TESTED_ELSEWHERE)
def test_a_command_that_is_tested_elsewhere_is(command):
    text = (PAGE.parents[1] / TESTED_ELSEWHERE[command]).read_text()
    assert all(word in text for word in command.split()[1:])


def test_the_page_is_that_of_the_table():
    assert PAGE.read_text() == page(), "run python -m tests.outside.table"


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.title)
def test_it_works_or_is_refused_by_name(material, folder, recipe, situation):
    if situation in NEED_ROOT and os.geteuid():
        pytest.skip("only the superuser can become another user")
    if situation == NO_TMPDIR and not _may_mount():
        pytest.skip("only the superuser can mount, and not in every container")
    if situation == NO_TMPDIR and any(
        Path(folder) in Path(sys.prefix).parents for folder in TEMPORARY
    ):
        pytest.skip("this interpreter lies in the folder that would be taken away")
    if situation == NO_HOME and recipe.kind == "service" and not _is_for_all(sys.executable):
        pytest.skip("this interpreter lies in somebody's own folder")
    name = f"Größe [b]{Path(recipe.name).suffix}" if situation == ASCII else ""
    outcome = expected(recipe, situation)
    found = SITUATIONS[situation](Cell(material, recipe, folder, name))
    assert "Traceback" not in found.said
    assert found.code == outcome.code, found.said
    if outcome.code:
        _check_line(found.said, outcome)


@cache
def _may_mount():
    argv = ("unshare", "--mount", "true")
    return bool(which(argv[0])) and not subprocess.run(argv, capture_output=True).returncode


def _is_for_all(path):
    return all(folder.stat().st_mode & 1 for folder in Path(path).resolve().parents)


def _check_line(said, outcome: Outcome):
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said
    assert outcome.words in lines[0], said


READ = {
    "mamfed-client audit report": ("--home", "{site}"),
    "mamfed-client audit verify": ("--home", "{site}"),
    "mamfed-client models list": ("--home", "{site}"),
    "mamfed-client plan list": ("--home", "{site}"),
    "mamfed-client plan show": ("--home", "{site}"),
    "mamfed-client preflight": ("--home", "{site}", "--skip-training"),
    "mamfed-client status": ("--home", "{site}"),
    "mamfed-server check": ("{plan}",),
    "mamfed-server runs": ("--home", "{server}"),
    "mamfed-server show": ("{run}",),
    "mamfed-server sites list": ("--home", "{server}"),
    "mamfed-server status": ("--home", "{server}"),
    "mamfed-server stop": ("--home", "{server}"),
    "mamfed-simulate plan": (),
}


@pytest.mark.parametrize("command", WRITES_NOTHING)
def test_what_is_said_to_write_nothing_does(material, folder, command):
    places = {
        "site": material.path / "homes/aurora",
        "server": material.path / "server",
        "plan": material.plan,
        "run": material.run,
    }
    folder.mkdir(parents=True)
    (folder / "here").mkdir()
    words = [word.format(**places) for word in READ[command]]
    before = [content(place) for place in places.values() if place.is_dir()]
    order = Order(
        [*command.split(), *words],
        str(folder / "here"), str(folder / "out"), str(folder / "err"), material.env(),
    )  # fmt: skip
    code = material.zygote.wait(material.zygote.start(order))
    said = (folder / "out").read_text() + (folder / "err").read_text()
    assert "Traceback" not in said
    assert code in (0, 9), said  # preflight finds no server, and no audit was begun
    after = [content(place) for place in places.values() if place.is_dir()]
    if command == "mamfed-client preflight":
        after[0].pop("data.json", None)
        before[0].pop("data.json", None)
    assert after == before
    assert list((folder / "here").iterdir()) == []
