"""How a site reaches its image archive (PACS): the key ``archive`` of ``site.yaml``.

Every connection starts here. Only ``move`` makes this site listen, and only while it pulls.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from mamfed_client.site.hours import Hours
from mamfed_common.config import Config

_TITLE = r"^[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?$"
AeTitle = Annotated[str, StringConstraints(pattern=_TITLE)]
"""An application entity's title: up to 16 printable characters without backslash (PS3.5 6.2)."""
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,253}$")]
Port = Annotated[int, Field(ge=1, le=65535)]


def is_loopback(host: str | None) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def check_pair(certificate: Path | None, key: Path | None) -> None:
    """Refuse a certificate without its key, or a key alone."""
    if (certificate is None) != (key is None):
        raise ValueError("certificate and key: set both or neither")


class DicomWebSettings(Config):
    """An archive's DICOMweb service (PS3.18).

    Attributes:
        url: Its root, e.g. ``https://pacs.example/dicom-web``.
        user: User of HTTP basic authentication, with ``password_file``.
        password_file: File (0600) with the password.
        token_file: File (0600) with a bearer token, instead of a user.
        ca_file: Certificates (PEM) that the service's must descend from; None: those of certifi.
        certificate: This site's certificate (PEM), if the service asks for one.
        key: Its private key (PEM).
        insecure_http: Whether ``http://`` may leave this machine: anyone between could read the
            images and the password.
    """

    url: str = Field(max_length=2048)
    user: str | None = Field(default=None, max_length=256)
    password_file: Path | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure_http: bool = False

    @model_validator(mode="after")
    def _url_is_safe(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError("url: expected https://HOST/PATH")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("url: expected no user, password or query; use user, password_file")
        if parts.scheme == "http" and not (self.insecure_http or is_loopback(parts.hostname)):
            raise ValueError(
                "url: http shows images and passwords to the network; use https, or set "
                "insecure_http: true"
            )
        return self

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file: set both or neither")
        if self.user is not None and self.token_file is not None:
            raise ValueError("set user and password_file, or token_file, not both")
        check_pair(self.certificate, self.key)
        return self


class TlsSettings(Config):
    """TLS of a DICOM association (PS3.15 B).

    Attributes:
        ca_file: Certificates (PEM) that the other side's must descend from.
        certificate: This site's certificate (PEM), if the other side asks for one.
        key: Its private key (PEM).
    """

    ca_file: Path
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        check_pair(self.certificate, self.key)
        return self


class DimseSettings(Config):
    """An archive's DIMSE service (PS3.7): C-ECHO, C-FIND, C-GET, C-STORE.

    Attributes:
        host: Its address.
        port: Its port.
        called: Its AE title.
        calling: This site's AE title, which the archive must know.
        tls: TLS; None: none.
    """

    host: Host
    port: Port = 104
    called: AeTitle
    calling: AeTitle = "MAMFED"
    tls: TlsSettings | None = None


class MoveSettings(Config):
    """The listener to which ``pacs pull --move`` lets the archive send, while it pulls.

    Attributes:
        address: Address of this machine on which it listens.
        port: Its port.
        callers: AE titles that may send; others are refused.
        tls: TLS; None: none. With it, ``certificate`` and ``key`` are needed.
    """

    address: Host = "127.0.0.1"
    port: Port = 11112
    callers: tuple[AeTitle, ...] = Field(min_length=1)
    tls: TlsSettings | None = None

    @model_validator(mode="after")
    def _listener_has_a_certificate(self) -> Self:
        if self.tls is not None and self.tls.certificate is None:
            raise ValueError("tls: a listener needs certificate and key")
        return self


class ArchiveSettings(Config):
    """How this site reaches its archive.

    Attributes:
        dicomweb: Its DICOMweb service.
        dimse: Its DIMSE service.
        move: The listener of ``pacs pull --move``.
        hours: Hours in which images are pulled, local time, e.g. ``20:00-06:00``; None: always.
        max_per_minute: Most images pulled a minute.
        max_megabytes_per_minute: Most megabytes pulled a minute; None: no limit.
        timeout_seconds: Longest wait for an answer.
    """

    dicomweb: DicomWebSettings | None = None
    dimse: DimseSettings | None = None
    move: MoveSettings | None = None
    hours: Hours | None = None
    max_per_minute: int = Field(default=120, ge=1, le=1_000_000)
    max_megabytes_per_minute: float | None = Field(default=None, gt=0)
    timeout_seconds: float = Field(default=30, ge=1, le=600)

    @model_validator(mode="after")
    def _some_way(self) -> Self:
        if self.dicomweb is None and self.dimse is None:
            raise ValueError("expected dicomweb or dimse")
        if self.move is not None and self.dimse is None:
            raise ValueError("move needs dimse, by which the archive is asked")
        return self
