"""Notices reach a real web server, a real mail server and a real program, or one line says why."""

import json
import time
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.unit.common.notify.receivers import free_port, mail_server, port_of, tls_of, web_server
from tests.unit.server.homes import new_coordinator

from mamfed_common.errors import LinkError, SetupError
from mamfed_common.notify import channels
from mamfed_common.notify.notice import Notice, trial
from mamfed_common.notify.settings import Email, Notify, Webhook

NOTICE = Notice("site gone", "k", "site north\nhas been missing", "Ask the site.")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return new_coordinator(tmp_path_factory.mktemp("notify") / "home")


def secret(home, name, text, mode=0o600):
    path = home.path / name
    path.write_text(text)
    path.chmod(mode)
    return name


def send(home, channel, **settings):
    return channels.send(Notify(**settings), channel, NOTICE, "coordinator of North", home.path)


def failure(home, channel, **settings):
    with pytest.raises((LinkError, SetupError)) as failed:
        send(home, channel, **settings)
    return str(failed.value)


def test_a_webhook_over_tls_takes_the_notice_as_json_with_the_token(home):
    secret(home, "token", "s3cret\n")
    with web_server(tls_of(home)) as server:
        hook = {"url": f"https://localhost:{port_of(server)}/hook/abc", "ca": "ca/ca.pem",
                "token_file": "token"}  # fmt: skip
        assert send(home, "webhook", webhook=hook) == "localhost answered 200"
    [(path, headers, body)] = server.got
    assert path == "/hook/abc"
    assert headers["Authorization"] == "Bearer s3cret"
    assert body["event"] == "site gone"
    assert body["subject"] == "site north has been missing"
    assert body["text"].startswith("coordinator of North: site north has been missing")


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_answer_that_is_no_success_is_a_failure_and_no_redirect_is_followed(home, status):
    with web_server(status=status) as server:
        url = f"http://127.0.0.1:{port_of(server)}/very-secret"
        found = failure(home, "webhook", webhook={"url": url})
    assert found == f"127.0.0.1: answered {status}, expected 200"
    assert len(server.got) == 1


def test_a_server_of_an_unknown_authority_gets_nothing(home):
    with web_server(tls_of(home)) as server:
        url = f"https://localhost:{port_of(server)}/very-secret"
        found = failure(home, "webhook", webhook={"url": url})
    assert not server.got
    assert "very-secret" not in found
    assert "certificate" in found.lower()


def test_a_webhook_that_is_slow_or_gone_is_one_line_within_its_time(home):
    with web_server(slow_seconds=1.0) as server:
        url = f"http://127.0.0.1:{port_of(server)}/very-secret"
        began = time.monotonic()
        found = failure(home, "webhook", webhook={"url": url, "timeout_seconds": 0.2})
        assert time.monotonic() - began < 0.9
    assert found == "127.0.0.1: did not answer in time"
    found = failure(home, "webhook", webhook={"url": f"http://127.0.0.1:{free_port()}/very-secret"})
    assert found == "127.0.0.1: Connection refused"


def test_a_message_goes_by_starttls_with_a_login(home):
    secret(home, "password", "secret\n")
    with mail_server(tls_of(home)) as server:
        mail = {"host": "localhost", "port": port_of(server), "sender": "mamfed@example.org",
                "to": ["office@example.org", "nurse@example.org"], "user": "office",
                "password_file": "password", "ca": "ca/ca.pem"}  # fmt: skip
        said = send(home, "email", email=mail)
        assert said == "localhost took it for office@example.org, nurse@example.org"
        server.password = "another"
        assert failure(home, "email", email=mail) == "localhost: login refused (535)"
    [(text, was_secure)] = server.got
    assert was_secure
    assert "Subject: mamfed, coordinator of North: site north has been missing\r\n" in text
    assert "Auto-Submitted: auto-generated" in text


def test_a_mail_server_of_an_unknown_authority_gets_no_password(home):
    secret(home, "password", "secret\n")
    with mail_server(tls_of(home)) as server:
        mail = {"host": "localhost", "port": port_of(server), "sender": "m@example.org",
                "to": ["o@example.org"], "user": "office", "password_file": "password"}  # fmt: skip
        assert "certificate" in failure(home, "email", email=mail).lower()
    assert not server.got


def test_a_secret_that_others_may_read_is_refused(home):
    name = secret(home, "open", "secret", 0o644)
    hook = {"url": "https://localhost:1/", "token_file": name}
    assert "mode 0644 lets others read it" in failure(home, "webhook", webhook=hook)


def test_an_address_can_lie_in_a_file(home):
    with web_server() as server:
        secret(home, "address", f"http://127.0.0.1:{port_of(server)}/x\n")
        assert send(home, "webhook", webhook={"url_file": "address"}) == "127.0.0.1 answered 200"
    secret(home, "address", "ftp://127.0.0.1/x\n")
    assert "found no https:// address" in failure(home, "webhook", webhook={"url_file": "address"})


def program(home, text):
    path = home.path / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return (str(path), "$(touch broken); `touch broken`")


def test_a_command_reads_the_notice_from_stdin_without_a_shell(home, monkeypatch):
    monkeypatch.setenv("MAMFED_SECRET", "no")
    argv = program(home, 'cat > got.json; env > got.env; printf %s "$1" > got.argument')
    assert send(home, "command", command=argv) == "program ended with exit code 0"
    assert json.loads((home.path / "got.json").read_text())["event"] == "site gone"
    environment = (home.path / "got.env").read_text()
    assert "MAMFED_EVENT=site gone" in environment
    assert "MAMFED_SECRET" not in environment
    assert (home.path / "got.argument").read_text() == argv[1]
    assert not (home.path / "broken").exists()


def test_a_command_that_fails_hangs_or_is_missing_is_one_line(home, monkeypatch):
    monkeypatch.setattr(channels, "COMMAND_SECONDS", 0.3)
    found = failure(home, "command", command=program(home, "exit 3"))
    assert found == "program: ended with exit code 3, expected 0"
    argv = program(home, "sleep 60 & echo $! > child; wait")
    assert failure(home, "command", command=argv).endswith("did not end within 0.3 s, killed")
    child = int((home.path / "child").read_text())
    time.sleep(0.2)
    stat = Path(f"/proc/{child}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"
    assert "cannot be started" in failure(home, "command", command=("/does/not/exist",))


@pytest.mark.parametrize(
    ("model", "values", "words"),
    [
        (Webhook, {"url": "http://example.org/x"}, "expected https://"),
        (Webhook, {"url": "https://a:b@example.org/x"}, "found a password in the address"),
        (Webhook, {}, "expected url or url_file"),
        (Email, {"host": "mail.example.org", "sender": "a@b", "to": ["a@b"], "security": "none"},
         "use starttls"),
        (Email, {"host": "localhost", "sender": "a@b\nBcc: c@d", "to": ["a@b"]}, "one address"),
        (Email, {"host": "localhost", "sender": "a@b", "to": ["a@b"], "user": "x"}, "together"),
        (Notify, {"command": ["tell"]}, "full path first"),
    ],
)  # fmt: skip
def test_settings_that_would_be_unsafe_are_refused(model, values, words):
    with pytest.raises(ValidationError) as refused:
        model(**values)
    assert words in str(refused.value)


def test_the_trial_says_that_nothing_has_happened():
    assert "Nothing has happened" in trial("site north").text
