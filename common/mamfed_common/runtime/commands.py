"""The click commands that Typer builds for a program, with help that wraps at any width."""

from __future__ import annotations

import inspect
import re

import click
import typer

_DIM = ("[dim]\\", "[/dim]")
_LINE_BREAK = re.compile(r"(?<=\S)\n(?=\S)")


def click_command(app: typer.Typer) -> click.Command:
    """Return a program's command, with its subcommands."""
    command = typer.main.get_command(app)
    _prepare(command)
    return command


def _prepare(command: click.Command) -> None:
    command.help = command.help and joined_paragraphs(command.help)
    for parameter in command.params:
        _accept_unreadable_path(parameter)
        _show_default_without_parentheses(parameter)
    for subcommand in getattr(command, "commands", {}).values():
        _prepare(subcommand)


def joined_paragraphs(text: str) -> str:
    """Return a help text with one line per paragraph, for the terminal to wrap.

    Typer keeps the line breaks of the source in all paragraphs but the first. Indented lines, such
    as examples, stay lines of their own.
    """
    return _LINE_BREAK.sub(" ", inspect.cleandoc(text))


def _accept_unreadable_path(parameter: click.Parameter) -> None:
    """Let an unreadable path pass click, whose own message does not name the owner."""
    if isinstance(parameter.type, click.Path):
        parameter.type.readable = False


def _show_default_without_parentheses(parameter: click.Parameter) -> None:
    """Show a default in words as ``[default: all cores]``; Typer would add parentheses."""
    default = getattr(parameter, "show_default", None)
    if isinstance(parameter, click.Option) and isinstance(default, str):
        parameter.help = f"{parameter.help}\n\n{_DIM[0]}[default: {default}]{_DIM[1]}"
        parameter.show_default = False


def without_markup(text: str) -> str:
    """Return the help of a parameter as plain text."""
    for markup in _DIM:
        text = text.replace(markup, "")
    return text
