"""What the runbook quotes is what the programs say."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mamfed_common.weights import FAULTS

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RUNBOOK = ROOT / "deploy/RUNBOOK.md"
ROW = re.compile(r"^\| (`.*?) \| (.+?) \| (.+?) \|$", re.M)
ROWS = ROW.findall(RUNBOOK.read_text())
OPTION_OR_FILE = re.compile(r"\.?[a-z_.]+: [a-z]+")


def texts_of(source):
    """Return every text in a module; what is filled in when it runs reads ``...``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "..." for p in node.values)
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[sdg]", "...", node.value)


@pytest.fixture(scope="module")
def texts():
    sources = [*ROOT.glob("*/mamfed_c*/**/*.py"), *ROOT.glob("server/mamfed_server/*.py")]
    return {text for source in sources for text in texts_of(source.read_text())}


def is_said(quote, texts):
    """Tell whether a program says so; a quote that ends in ``...`` may stop early."""
    pattern = re.escape(quote.removesuffix("...")).replace(re.escape("..."), ".+?")
    return any(re.search(pattern, text) for text in texts)


def test_the_rows_are_read():
    assert len(ROWS) == RUNBOOK.read_text().count("\n| `") > 40


@pytest.mark.parametrize("symptom", [row[0] for row in ROWS])
def test_a_symptom_is_quoted_as_a_program_says_it(symptom, texts):
    for quote in re.findall(r"`([^`]+)`", symptom):
        assert is_said(quote, texts), quote


def test_a_text_that_no_program_says_would_be_noticed(texts):
    assert is_said("connection refused: no server there, or a firewall", texts)
    assert not is_said("connection refused: no server here, or a firewall", texts)
    assert not is_said("given up after ... deaths without two rounds in between", texts)


def test_every_code_that_a_site_can_send_has_a_row():
    quoted = {quote for row in ROWS for quote in re.findall(r"`([^`]+)`", row[0])}
    missing = [text for text in FAULTS.values() if text not in quoted]
    # That one is a bundle or a message that this mamfed does not know; versions have their row.
    assert missing == ["the site runs another version of mamfed or Flower"]
