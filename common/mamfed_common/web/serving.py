"""Serve a role's pages with uvicorn: on loopback behind a token, elsewhere by TLS and password."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn
from cryptography import x509
from starlette.routing import BaseRoute

from mamfed_common.errors import LinkError, SetupError
from mamfed_common.runtime.bounded import KEY_BYTES, read_bytes
from mamfed_common.runtime.files import reason
from mamfed_common.web.application import Door, make_app
from mamfed_common.web.guard import Rules
from mamfed_common.web.pages import Pages
from mamfed_common.web.passwords import check_file
from mamfed_common.web.sessions import OneTimeAddress

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
ADDRESS_FILE = "dashboard.url"
"""File in a home (0600) with the address that opens the page once."""
MOST_CONNECTIONS = 128
LAST_SECONDS = 2
"""How long open streams may take to end."""


class Listen(NamedTuple):
    """Where to serve, and for whom.

    Attributes:
        host: An IP address of this machine.
        port: A port; 0 takes a free one.
        password_file: Who may sign in, by name and password; None: by the one-time address.
        certificate: TLS certificate with its chain, PEM; None: without TLS.
        key: Its private key, PEM.
    """

    host: str = "127.0.0.1"
    port: int = 0
    password_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def check_listen(listen: Listen) -> None:
    """Check where to serve: any address but loopback needs TLS and a password file.

    Raises:
        SetupError: Something is missing or cannot be read; the message says what to give.
    """
    try:
        is_loopback = ipaddress.ip_address(listen.host).is_loopback
    except ValueError:
        raise SetupError(f"--host: found {listen.host!r}, expected an IP address") from None
    if (listen.certificate is None) != (listen.key is None):
        raise SetupError("found one of --cert and --key, expected both or none")
    if not is_loopback:
        needed = {"--cert": listen.certificate, "--key": listen.key}
        needed["--password-file"] = listen.password_file
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise SetupError(
                f"--host {listen.host}: other machines could open the page; give "
                f"{', '.join(missing)} too, or leave --host out and use ssh -L from elsewhere"
            )
    if listen.password_file:
        check_file(listen.password_file)
    if listen.certificate and listen.key:
        names_in_certificate(listen.certificate)
        _read(listen.key)


def names_in_certificate(path: Path) -> list[str]:
    """Return the names and addresses of a certificate, which browsers may use.

    Raises:
        SetupError: It cannot be read, or names nothing.
    """
    try:
        certificate = x509.load_pem_x509_certificate(_read(path))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        raise SetupError(
            f"{path}: expected a certificate in PEM that names its hosts (subjectAltName)"
        ) from None
    addresses = [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    return [*(name.lower() for name in names.get_values_for_type(x509.DNSName)), *addresses]


class Prepared(NamedTuple):
    """A server that can take requests as soon as it runs.

    Attributes:
        server: uvicorn's server; its ``should_exit`` ends it.
        listener: The bound socket, which it takes connections from.
        door: How one signs in.
        address: What to open in a browser.
    """

    server: uvicorn.Server
    listener: socket.socket
    door: Door
    address: str

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C, or until ``server.should_exit`` is set."""
        self.server.run(sockets=[self.listener])


def serve(
    pages: Pages,
    routes: Sequence[BaseRoute],
    listen: Listen,
    home: Path,
    on_ready: Callable[[str], None],
) -> None:
    """Serve pages until SIGTERM or Ctrl-C.

    Args:
        pages: The role's pages.
        routes: Its addresses.
        listen: Where and for whom.
        home: Holds the file with the one-time address.
        on_ready: Called with the address to open, once it can be opened.

    Raises:
        SetupError: ``listen`` cannot be used.
        LinkError: The address cannot be bound.
    """
    with prepare(pages, routes, listen, home) as prepared:
        on_ready(prepared.address)
        prepared.run()


@contextmanager
def prepare(
    pages: Pages, routes: Sequence[BaseRoute], listen: Listen, home: Path
) -> Iterator[Prepared]:
    """Bind an address and yield a server for it; arguments and errors as in :func:`serve`."""
    check_listen(listen)
    with _bound(listen) as listener:
        port = listener.getsockname()[1]
        scheme = "https" if listen.certificate else "http"
        names = names_in_certificate(listen.certificate) if listen.certificate else []
        rules = Rules(
            hosts={*LOOPBACK_NAMES, *names},
            scheme=scheme,
            cookie=f"{'__Host-' if listen.certificate else ''}mamfed-{pages.look.role}-{port}",
        )
        base = f"{scheme}://{_authority(names[0] if names else listen.host, port)}"
        door = _door(listen, home, base)
        try:
            server = uvicorn.Server(_config(make_app(pages, routes, rules, door), listen))
            yield Prepared(server, listener, door, door.address.current if door.address else base)
        finally:
            if door.address:
                door.address.remove()


def _door(listen: Listen, home: Path, base: str) -> Door:
    if listen.password_file:
        return Door(password_file=listen.password_file)
    return Door(address=OneTimeAddress(home / ADDRESS_FILE, base))


def _config(app: object, listen: Listen) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http="h11", ws="none", lifespan="off", loop="asyncio",
        log_config=None, access_log=False, proxy_headers=False, server_header=False,
        limit_concurrency=MOST_CONNECTIONS, timeout_keep_alive=30,
        timeout_graceful_shutdown=LAST_SECONDS, h11_max_incomplete_event_size=2**15,
        ssl_certfile=listen.certificate and str(listen.certificate),
        ssl_keyfile=listen.key and str(listen.key),
    )  # fmt: skip


def _bound(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        return socket.create_server((listen.host, listen.port), family=family)
    except OSError as error:
        raise LinkError(
            f"cannot listen on {_authority(listen.host, listen.port)}: "
            f"{os.strerror(error.errno or 0)}; choose another --port"
        ) from None


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, KEY_BYTES * 4)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {reason(path, error)}") from None
