"""``init --guided``: a few questions at a terminal, each checked as the settings are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import typer

from mamfed_common.errors import MamfedError, SetupError
from mamfed_common.runtime.terminal import console

MOST_TRIES = 5
Answer = TypeVar("Answer")


def check_somebody_answers() -> None:
    """Refuse to ask where nobody can answer.

    Raises:
        SetupError: Standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise SetupError(
            "--guided asks questions, but there is no terminal to answer; leave it out and give "
            "the options that --help lists"
        )


def ask(question: str, default: str, checked: Callable[[str], Answer]) -> Answer:
    """Ask until an answer is valid.

    Args:
        question: The question.
        default: The answer to an empty line; empty: there is none.
        checked: Turns the answer into a value, or raises MamfedError.

    Raises:
        SetupError: Five answers were not valid.
    """
    for _ in range(MOST_TRIES):
        text = str(typer.prompt(question, default=default, show_default=bool(default), err=True))
        try:
            return checked(text.strip())
        except MamfedError as error:
            console().print(f"  {error}")
    raise SetupError(f"no valid answer to {question!r}, so nothing was created")


def ask_yes(question: str, *, default: bool) -> bool:
    """Ask a question that yes or no answers."""
    return typer.confirm(question, default=default, err=True)
