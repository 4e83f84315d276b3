"""What is printed for people: texts as they are, one line an event."""

import io

import pytest
from rich.table import Table

from mamfed_common.terminal import Screen


@pytest.fixture
def screen():
    return Screen(file=io.StringIO(), width=40, highlight=False)


def test_a_text_is_shown_as_it_is(screen):
    text = "/studies [old]/[red]run[/]/:warning: checkpoint"
    screen.print(text)
    assert screen.file.getvalue() == text + "\n"


def test_a_long_line_stays_one_line(screen):
    screen.print("word " * 40)
    assert screen.file.getvalue().count("\n") == 1


def test_a_table_keeps_to_the_width(screen):
    table = Table("column")
    table.add_row("word " * 40)
    screen.print(table)
    assert max(map(len, screen.file.getvalue().splitlines())) <= 40
