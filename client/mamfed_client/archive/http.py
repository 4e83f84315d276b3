"""HTTP to an archive: answers of bounded size and time, no redirects, no proxies."""

from __future__ import annotations

import logging
import ssl
import stat
from pathlib import Path
from time import monotonic
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth

from mamfed_client.archive.objects import Unreachable
from mamfed_client.archive.tls import show, tls_error, trust, why
from mamfed_client.site.archive_settings import DicomWebSettings
from mamfed_common.errors import LinkError, SetupError
from mamfed_common.runtime.bounded import IMAGE_BYTES, KEY_BYTES, read_bytes
from mamfed_common.runtime.files import reason

CHUNK = 1 << 16
ANSWER_SECONDS = 600
"""Longest time for a whole answer, however steadily it drips."""
MAX_ANSWER = IMAGE_BYTES + (1 << 20)
"""Largest answer in bytes: an image and what surrounds it."""


class TooLargeAnswer(requests.RequestException):
    """An answer is larger than any image, or takes too long."""


class BoundedAdapter(HTTPAdapter):
    """Reads every answer at once, up to ``MAX_ANSWER`` bytes and ``ANSWER_SECONDS`` seconds."""

    def send(self, *arguments: Any, **options: Any) -> requests.Response:
        """Send a request and read its answer.

        Raises:
            TooLargeAnswer: The answer is too large or too slow.
        """
        options["stream"] = True
        response = super().send(*arguments, **options)
        until, content = monotonic() + ANSWER_SECONDS, bytearray()
        for chunk in response.iter_content(CHUNK):
            content += chunk
            if len(content) > MAX_ANSWER or monotonic() > until:
                response.close()
                raise TooLargeAnswer(f"more than {MAX_ANSWER >> 20} MiB or {ANSWER_SECONDS} s")
        response._content = bytes(content)
        return response


class BearerToken(AuthBase):
    """Adds a bearer token (RFC 6750) to each request."""

    def __init__(self, token: str) -> None:
        """Keep the token."""
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def open_session(settings: DicomWebSettings) -> requests.Session:
    """Return a session that knows the credentials and whom to trust.

    Raises:
        SetupError: The password, the token or a certificate cannot be used.
    """
    silence("dicomweb_client", "urllib3")
    session = requests.Session()
    session.trust_env = False  # no proxy, no .netrc, no other CA file than the named one
    session.max_redirects = 0
    for scheme in ("https://", "http://"):
        session.mount(scheme, BoundedAdapter())
    if settings.ca_file is not None:
        trust(ssl.create_default_context(), settings.ca_file)
        session.verify = str(settings.ca_file)
    if settings.certificate is not None and settings.key is not None:
        show(ssl.create_default_context(), settings.certificate, settings.key)
        session.cert = str(settings.certificate), str(settings.key)
    if settings.user is not None and settings.password_file is not None:
        password = read_secret(settings.password_file, "password_file")
        session.auth = HTTPBasicAuth(settings.user.encode(), password.encode())
    elif settings.token_file is not None:
        session.auth = BearerToken(read_secret(settings.token_file, "token_file"))
    return session


def silence(*names: str) -> None:
    """Silence a library's log: it quotes addresses, which hold identifiers of patients."""
    for name in names:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers = [logging.NullHandler()]


def read_secret(path: Path, key: str) -> str:
    """Read a password or token: the first line of a file that only its owner can read.

    Raises:
        SetupError: The file is absent or empty, or others can read it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        lines = read_bytes(path, KEY_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: archive.dicomweb.{key}: {reason(path, error)}") from None
    if mode & 0o077:
        raise SetupError(f"{path}: mode {mode:04o}: other users can read it; run chmod 600")
    secret = lines[0].strip() if lines else ""
    if not secret or not secret.isprintable():
        raise SetupError(f"{path}: expected the password or token on its first line")
    return secret


def status_of(error: requests.RequestException) -> int:
    """Return the HTTP status of a failed request; 0 if there was no answer."""
    return error.response.status_code if error.response is not None else 0


def _refused_by_front(error: requests.RequestException) -> str:
    """Return why a web server before an archive refuses this connection, as nginx says it."""
    said = error.response.content[:2000] if error.response is not None else b""
    if b"SSL certificate" in said:
        return "it does not trust this site; check certificate and key, and what it trusts"
    return "it wants https; correct the url" if b"HTTPS port" in said else ""


def failure(error: requests.RequestException, where: str) -> LinkError:
    """Return the error of a request in words that quote no address: it may name a patient."""
    status = status_of(error)
    if status in (401, 403):
        return LinkError(
            f"{where}: refuses this site (HTTP {status}); check user and password, "
            "or the token, and this user's rights"
        )
    if status == 400 and (refused := _refused_by_front(error)):
        return LinkError(f"{where}: {refused} (HTTP 400)")
    if status and not isinstance(error, requests.exceptions.TooManyRedirects):
        kind = Unreachable if status >= 500 else LinkError
        return kind(f"{where}: answered HTTP {status}; look into the archive's log")
    if (of_tls := tls_error(error)) is not None:
        return LinkError(f"{where}: {why(of_tls)}")
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return LinkError(f"{where}: redirects elsewhere, which is not followed; correct the url")
    if isinstance(error, TooLargeAnswer):
        return LinkError(f"{where}: an answer of {error}")
    if isinstance(error, requests.exceptions.Timeout):
        return Unreachable(f"{where}: no answer in time; is the archive up and the port right?")
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return LinkError(f"{where}: answered no DICOM JSON; is the url that of DICOMweb?")
    return Unreachable(f"{where}: cannot be reached; is the archive up and the port right?")
