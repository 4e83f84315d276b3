"""The help of every command wraps at the terminal's width, not where the source breaks a line."""

import itertools
import re

import click
import pytest

import mamfed_client.cli.main
import mamfed_server.cli.main
import mamfed_simulations.cli.main
from mamfed_common.runtime.commands import click_command, joined_paragraphs

PROGRAMS = {
    "mamfed-client": mamfed_client.cli.main.app,
    "mamfed-server": mamfed_server.cli.main.app,
    "mamfed-simulate": mamfed_simulations.cli.main.app,
}
INDENT = 6
"""Maximum spaces before the name of an argument, option or command."""


def _contexts(command, name, parent=None):
    context = click.Context(command, info_name=name, parent=parent)
    yield context
    for subname, subcommand in getattr(command, "commands", {}).items():
        yield from _contexts(subcommand, subname, context)


CONTEXTS = {
    context.command_path: context
    for name, app in PROGRAMS.items()
    for context in _contexts(click_command(app), name)
}


def _shown(context, width, monkeypatch, capsys):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", width)
    context.command.get_help(context)
    return capsys.readouterr().out


def _early_breaks(lines, width):
    """Return the lines that end although the next one's first word would fit in ``width``."""
    return [
        line
        for line, following in itertools.pairwise(lines)
        if line and following and not following.startswith((" ", "["))
        if len(line) + 1 + len(following.split()[0]) <= width
    ]


def _last_cells(panel):
    """Return the lines of each row's last cell, and the width of that column."""
    lines = [line.strip().strip("│") for line in panel.splitlines()]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    start = max(indents)  # that of lines that continue a cell
    if start <= INDENT:
        return [], 0
    cells = []
    for line, indent in zip(lines, indents, strict=True):
        if indent < start:
            cells.append([])
        cells[-1].append(line[start:].rstrip())
    return cells, len(lines[0]) - start - 1


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("path", CONTEXTS)
def test_no_line_of_a_description_breaks_before_a_word_that_fits(path, width, monkeypatch, capsys):
    shown = _shown(CONTEXTS[path], width, monkeypatch, capsys)
    description = shown.partition("Usage:")[2].partition("╭")[0].splitlines()[1:]
    lines = [line.removeprefix(" ").rstrip() for line in description]
    assert any(lines)
    assert not _early_breaks(lines, width - 2)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("path", CONTEXTS)
def test_no_line_about_an_option_breaks_before_a_word_that_fits(path, width, monkeypatch, capsys):
    shown = _shown(CONTEXTS[path], width, monkeypatch, capsys)
    panels = re.findall(r"╭─ [A-Z].*?╮\n(.*?)╰", shown, re.S)
    assert panels
    for cells, column in map(_last_cells, panels):
        assert not [early for cell in cells if (early := _early_breaks(cell, column))]


def test_a_default_in_words_has_brackets_only(monkeypatch, capsys):
    shown = _shown(CONTEXTS["mamfed-simulate run"], 120, monkeypatch, capsys)
    assert "[default: all cores]" in shown
    assert "default: (" not in "".join(
        _shown(context, 120, monkeypatch, capsys) for context in CONTEXTS.values()
    )


def test_lines_of_a_paragraph_are_joined_and_examples_stay():
    text = """One
    sentence.

    Two lines
    of it:
        an example
        and another
    """
    joined = "One sentence.\n\nTwo lines of it:\n    an example\n    and another"
    assert joined_paragraphs(text) == joined
