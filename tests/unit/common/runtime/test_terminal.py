"""What is printed for people: texts as they are, one line an event."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from mamfed_common.runtime.terminal import Screen


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


@pytest.mark.parametrize("command", ["mamfed-client", "mamfed-server", "mamfed-simulate"])
def test_a_folder_that_was_removed_is_named(tmp_path, command):
    (tmp_path / "gone").mkdir()
    words = f'rmdir "$PWD" && exec "{Path(sys.executable).with_name(command)}" --version'
    found = subprocess.run(
        ["sh", "-c", words], cwd=tmp_path / "gone", capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 1
    assert found.stderr == "error: the current folder was removed; change to another one\n"
