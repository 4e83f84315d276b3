"""What the runbook quotes is what the programs say."""

import ast
import re
import socket
from pathlib import Path

import pytest

from mamfed_client.disclosure.audit_log import AuditLog
from mamfed_client.disclosure.audit_report import verify
from mamfed_client.node.connection_errors import explain
from mamfed_common.errors import MamfedError
from mamfed_common.plan import TrainingPlan
from mamfed_common.protocol.tasks import REFUSAL_CODES
from mamfed_common.runtime.files import write_atomic
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_server.cli.init import init
from mamfed_server.run.resume import check_same_plan
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.service.supervisor import check_start
from mamfed_server.settings import ServerHome

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "deploy/RUNBOOK.md"
ROW = re.compile(r"^\| (`.*?) \| (.+?) \| (.+?) \|$", re.M)
ROWS = ROW.findall(RUNBOOK.read_text())


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
    sources = [*ROOT.glob("*/mamfed_c*/**/*.py"), *ROOT.glob("server/mamfed_server/**/*.py")]
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
    assert is_said("nothing answers at ...: the run may have ended or not begun...", texts)
    assert not is_said("nothing answers at ...: the run may have ended or not started", texts)
    assert not is_said("given up after ... crashes without two rounds in between", texts)


def test_every_code_that_a_site_can_send_has_a_row():
    quoted = {quote for row in ROWS for quote in re.findall(r"`([^`]+)`", row[0])}
    missing = [text for text in REFUSAL_CODES.values() if text not in quoted]
    # That one is a bundle or a message that this mamfed does not know; versions have their row.
    assert missing == ["the site runs another version of mamfed or Flower"]


# Provoked: what is really said, of each kind that costs next to nothing to bring about.


@pytest.fixture
def home(tmp_path):
    init(tmp_path / "server", "Test", ["127.0.0.1"])
    return ServerHome(tmp_path / "server")


def said_by(act):
    with pytest.raises(MamfedError) as caught:
        act()
    return str(caught.value)


def has_a_row(said):
    """Tell whether a row quotes what was said."""
    quotes = [quote for row in ROWS for quote in re.findall(r"`([^`]+)`", row[0])]
    patterns = (re.escape(quote).replace(re.escape("..."), ".+") for quote in quotes)
    return any(re.search(pattern, said) for pattern in patterns)


def test_what_nobody_says_has_no_row():
    assert not has_a_row("127.0.0.1:9443: the coordinator is on holiday")


def test_a_start_that_cannot_be_is_in_the_runbook(home):
    def start():
        return list(check_start(home, TrainingPlan(), "first"))

    assert has_a_row(said := said_by(start)), said  # no site is approved
    assert "sites are approved" in said
    home.plan_key.chmod(0o644)
    assert has_a_row(said := said_by(start)), said
    assert "chmod 600" in said


def test_a_lost_plan_key_is_in_the_runbook(home):
    home.plan_key.unlink()
    assert has_a_row(said := said_by(lambda: init(home.path, "Test", ["127.0.0.1"]))), said


def test_another_plan_under_a_run_s_name_is_in_the_runbook(home):
    folder = RunFolder(home.runs / "first")
    folder.create(TrainingPlan())
    assert has_a_row(said := said_by(lambda: check_same_plan(folder, TrainingPlan(seed=1)))), said


@pytest.mark.parametrize("what", ["a server", "this site"])
def test_a_second_one_is_in_the_runbook(tmp_path, what):
    with exclusive_lock(tmp_path / "lock", what):
        assert has_a_row(said := said_by(exclusive_lock(tmp_path / "lock", what).__enter__)), said


def test_a_changed_audit_log_is_in_the_runbook(tmp_path):
    path = tmp_path / "audit.jsonl"
    for fault in (2, 101):
        AuditLog(path).append("fault", to="Test", values={"fault": fault})
    write_atomic(path, path.read_text().replace("101", "102"))
    assert has_a_row(said := said_by(lambda: verify(path))), said


def test_a_server_that_is_not_there_is_in_the_runbook():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    with pytest.raises(ConnectionRefusedError) as refused:
        socket.create_connection(address)
    with pytest.raises(socket.gaierror) as unknown:
        socket.getaddrinfo("mamfed.invalid", 9443)
    for error in (refused.value, unknown.value, TimeoutError()):
        said = explain(error, "mamfed.invalid:9443")
        assert has_a_row(said), said
