"""Send one notice by webhook, by e-mail or to a command: once, within a stated time.

What a channel says of a failure names neither the path of a webhook, which often is its password,
nor a password.
"""

from __future__ import annotations

import json
import os
import re
import smtplib
import ssl
import stat
import subprocess
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from urllib.parse import urlsplit

from mamfed_common.errors import LinkError, SetupError
from mamfed_common.notify.notice import LONGEST, Notice, one_line
from mamfed_common.notify.settings import Email, Notify, Webhook
from mamfed_common.runtime.bounded import KEY_BYTES, read_bytes
from mamfed_common.runtime.child_processes import ask_process
from mamfed_common.runtime.files import reason
from mamfed_common.runtime.places import expanded

COMMAND_SECONDS = 30.0
"""Longest time that a command may run."""
SECRET_CHARACTERS = 4096
ERROR_CODE = re.compile(r"^\[[^\]]*\] ")
"""What Python puts before an error's words: ``[Errno 111]``, ``[SSL: ...]``."""


def send(notify: Notify, channel: str, notice: Notice, source: str, home: Path) -> str:
    """Send a notice by one channel, once.

    Args:
        notify: The settings.
        channel: ``webhook``, ``email`` or ``command``.
        notice: The notice.
        source: Who sends it, such as ``coordinator of breast-federation``.
        home: Folder at which relative paths of the settings start.

    Returns:
        What happened, in words.

    Raises:
        LinkError: It was not delivered.
        SetupError: A file that the settings name cannot be used.
    """
    send_by: dict[str, Callable[[Notify, Notice, str, Path], str]] = {
        "webhook": _webhook,
        "email": _email,
        "command": _command,
    }
    return send_by[channel](notify, notice, source, home)


def _webhook(notify: Notify, notice: Notice, source: str, home: Path) -> str:
    import httpx

    hook = notify.webhook
    assert hook is not None
    url = _url(hook, home)
    host = urlsplit(url).hostname or ""
    headers = {}
    if hook.token_file:
        headers["Authorization"] = f"Bearer {_secret(home, hook.token_file)}"
    try:
        with (
            httpx.Client(timeout=hook.timeout_seconds, verify=_trust(home, hook.ca)) as client,
            client.stream("POST", url, json=notice.document(source), headers=headers) as answer,
        ):
            status = answer.status_code  # the answer's body is not read
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LinkError(f"{host}: {_said(error)}") from None
    if not 200 <= status < 300:
        raise LinkError(f"{host}: answered {status}, expected 200")
    return f"{host} answered {status}"


def _url(hook: Webhook, home: Path) -> str:
    if hook.url is not None:
        return hook.url
    assert hook.url_file is not None
    text = _secret(home, hook.url_file)
    try:
        return Webhook(url=text).url or ""
    except ValueError:
        raise SetupError(f"{hook.url_file}: found no https:// address on one line") from None


def _email(notify: Notify, notice: Notice, source: str, home: Path) -> str:
    mail = notify.email
    assert mail is not None
    message = _message(mail, notice, source)
    context = _trust(home, mail.ca)
    try:
        with _connected(mail, context) as server:
            if mail.user and mail.password_file:
                server.login(mail.user, _secret(home, mail.password_file))
            refused = server.send_message(message)
    except smtplib.SMTPResponseException as error:
        kind = "login refused" if isinstance(error, smtplib.SMTPAuthenticationError) else "refused"
        raise LinkError(f"{mail.host}: {kind} ({error.smtp_code})") from None
    except (smtplib.SMTPException, OSError) as error:
        raise LinkError(f"{mail.host}: {_said(error)}") from None
    if refused:
        raise LinkError(f"{mail.host}: refused {len(refused)} of {len(mail.to)} addresses")
    return f"{mail.host} took it for {', '.join(mail.to)}"


def _connected(mail: Email, context: ssl.SSLContext) -> smtplib.SMTP:
    if mail.security == "tls":
        return smtplib.SMTP_SSL(mail.host, mail.port, timeout=mail.timeout_seconds, context=context)
    server = smtplib.SMTP(mail.host, mail.port, timeout=mail.timeout_seconds)
    if mail.security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def _message(mail: Email, notice: Notice, source: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = mail.sender, ", ".join(mail.to)
    message["Subject"] = one_line(f"mamfed, {source}: {notice.subject}")
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="mamfed.invalid")
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation answers
    message.set_content(f"{notice.subject}\n\n{notice.text[:LONGEST]}\n")
    return message


def _command(notify: Notify, notice: Notice, source: str, home: Path) -> str:
    argv = notify.command
    assert argv is not None
    program = Path(argv[0]).name
    document = json.dumps(notice.document(source)) + "\n"
    try:
        done = ask_process(
            argv,
            COMMAND_SECONDS,
            text=document,
            is_heard=False,
            folder=home,
            env=_environment(notice),
        )
    except OSError as error:
        raise LinkError(f"{program}: cannot be started: {reason(Path(argv[0]), error)}") from None
    except subprocess.TimeoutExpired:
        raise LinkError(f"{program}: did not end within {COMMAND_SECONDS:g} s, killed") from None
    if done.returncode:
        raise LinkError(f"{program}: ended with exit code {done.returncode}, expected 0")
    return f"{program} ended with exit code 0"


def _environment(notice: Notice) -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER")
    passed = {name: os.environ[name] for name in kept if name in os.environ}
    return {**passed, "MAMFED_EVENT": notice.event, "MAMFED_SUBJECT": one_line(notice.subject)}


def _trust(home: Path, ca: Path | None) -> ssl.SSLContext:
    """Return a context that verifies the server, with a private authority's certificates."""
    try:
        return ssl.create_default_context(cafile=ca and home / expanded(ca))
    except (OSError, ssl.SSLError):
        raise SetupError(f"{ca}: found no certificates, expected PEM") from None


def _secret(home: Path, named: Path) -> str:
    """Return the secret in a file: one line, which nobody but its owner may read."""
    path = home / expanded(named)
    try:
        text = read_bytes(path, KEY_BYTES).decode().strip()
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {reason(path, error)}") from None
    except UnicodeDecodeError:
        raise SetupError(f"{path}: found bytes that are no text, expected one line") from None
    if mode & 0o077:
        raise SetupError(f"{path}: mode {mode:04o} lets others read it; run chmod 600 on it")
    if not text or len(text) > SECRET_CHARACTERS or not text.isprintable():
        raise SetupError(f"{path}: expected one line of {SECRET_CHARACTERS} characters at most")
    return text


def _said(error: Exception) -> str:
    """Return an error of the network in words that hold no address with a path."""
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "did not answer in time"
    words = ERROR_CODE.sub("", one_line(str(error))).split("http")[0]
    return words or type(error).__name__
