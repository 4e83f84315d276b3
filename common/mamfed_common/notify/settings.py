"""``notify:`` of ``server.yaml`` and ``site.yaml``: who is told, and of what."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from mamfed_common.config import Config


def _check_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port_is_valid = parts.port != 0
    except ValueError:
        raise ValueError("found no valid address, expected https://HOST/PATH") from None
    if not parts.hostname or not port_is_valid or not text.isprintable() or " " in text:
        raise ValueError("found no valid address, expected https://HOST/PATH")
    if parts.username or parts.password:
        raise ValueError("found a password in the address; put it into a file and name token_file")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError(
            f"found {parts.scheme or 'no'}://, expected https:// (http:// to this machine only)"
        )
    return text


def _check_mailbox(text: str) -> str:
    local, at, domain = text.partition("@")
    if not (local and at and domain) or not text.isascii() or any(c in text for c in " \r\n\t,;<>"):
        raise ValueError(f"found {text[:80]!r}, expected one address such as office@example.org")
    if not text.isprintable():
        raise ValueError("contains unprintable characters")
    return text


def _check_program(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not Path(argv[0]).is_absolute():
        raise ValueError(f"found {argv[0][:80]!r}, expected the program's full path first")
    if any("\0" in part for part in argv):
        raise ValueError("contains unprintable characters")
    return argv


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Url = Annotated[str, AfterValidator(_check_url)]
Mailbox = Annotated[str, Field(max_length=254), AfterValidator(_check_mailbox)]
Argv = Annotated[
    tuple[Annotated[str, Field(max_length=4096)], ...],
    Field(min_length=1, max_length=64),
    AfterValidator(_check_program),
]


class Webhook(Config):
    """A web address that takes a notice as JSON, by POST.

    Attributes:
        url: ``https://`` address; ``http://`` only to this machine. Redirects are not followed.
        url_file: File that holds the address instead, where the address itself is a secret.
        token_file: File with a token, sent as ``Authorization: Bearer``.
        ca: Certificates of a private authority, PEM; None: those that the system trusts.
        timeout_seconds: Longest time for one attempt, in seconds.
    """

    url: Url | None = None
    url_file: Path | None = None
    token_file: Path | None = None
    ca: Path | None = None
    timeout_seconds: float = Field(default=10, gt=0, le=60)

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("expected url or url_file, one of the two")
        return self


class Email(Config):
    """A mail server that takes a notice as a message.

    Attributes:
        host: The mail server.
        port: Its port.
        security: ``starttls``, ``tls`` from the first byte, or ``none``, to this machine only.
        sender: Address that the message comes from.
        to: Addresses that it goes to.
        user: User name at the mail server; empty: none.
        password_file: File that holds the password, readable by its owner only.
        ca: Certificates of a private authority, PEM; None: those that the system trusts.
        timeout_seconds: Longest time for one answer of the server, in seconds.
    """

    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:-]+$")
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: Mailbox
    to: tuple[Mailbox, ...] = Field(min_length=1, max_length=20)
    user: str = Field(default="", max_length=254)
    password_file: Path | None = None
    ca: Path | None = None
    timeout_seconds: float = Field(default=10, gt=0, le=60)

    @model_validator(mode="after")
    def _protects_what_it_sends(self) -> Self:
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError("security: none is for a mail server on this machine; use starttls")
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("expected user and password_file together, or neither")
        return self


class Notify(Config):
    """Who is told of what while nobody looks. Paths start at the home.

    Attributes:
        webhook: A web address; None: none.
        email: A mail server; None: none.
        command: A program and its arguments, which reads the notice from stdin; None: none.
        gone_minutes: How long a site (or, at a site, the server) is missing before it is told.
        certificate_days: From how many days before its end a certificate is told of.
        disk_free_gib: Below how much free disk space it is told, in GiB.
    """

    webhook: Webhook | None = None
    email: Email | None = None
    command: Argv | None = None
    gone_minutes: float = Field(default=30, gt=0, le=10080)
    certificate_days: int = Field(default=30, ge=1, le=3650)
    disk_free_gib: float = Field(default=5, ge=0, le=100000)

    @property
    def is_on(self) -> bool:
        """Whether anybody is told."""
        return bool(self.channels())

    def channels(self) -> list[str]:
        """Return the names of the channels that are set."""
        return [name for name in ("webhook", "email", "command") if getattr(self, name) is not None]
