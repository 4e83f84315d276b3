"""``mamfed-server init``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime.terminal import console, contact_of

if TYPE_CHECKING:
    from mamfed_server.settings import ServerHome, ServerSettings


def init(
    folder: Annotated[
        Path, typer.Argument(help="The coordinator's home; created if it does not exist.")
    ],
    name: Annotated[
        str, typer.Option(help="The federation's name; it cannot be changed later.")
    ] = "",
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or address at which sites reach this server; may be repeated.",
            show_default="this machine's full name, where it has one",
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9443,
    bind: Annotated[str, typer.Option(help="Local address to listen on.")] = "0.0.0.0",
    contact: Annotated[
        str, typer.Option(help="Contact for the sites; you are asked if it is omitted.")
    ] = "",
    guided: Annotated[
        bool, typer.Option("--guided", help="Ask six questions instead of reading options.")
    ] = False,
) -> None:
    """Create a coordinator's home: an authority, keys, a certificate, server.yaml, plan.yaml.

    Existing files are kept. Running it again creates only what is missing and never replaces the
    authority. plan.yaml is an example to edit; no run reads it unless start --plan names it.
    """
    from mamfed_common.runtime.documents import validated
    from mamfed_common.runtime.files import private_directory
    from mamfed_common.runtime.lock import home_lock
    from mamfed_server.settings import ServerHome, ServerSettings, load_settings

    if guided:
        from mamfed_server.cli.guided import answers

        name, host, port, bind, contact = answers(name, host or [], port, bind, contact)
    home = ServerHome(folder)
    if not host:
        is_known = home.settings_path.exists()
        host = list(load_settings(home).hosts) if is_known else own_names()
    for option, given in (("--name", name), ("--host", host)):
        if not given:
            raise typer.BadParameter(f"missing option {option}, or --guided", param_hint=option)
    values = {"name": name, "hosts": host, "port": port, "bind": bind, "contact": contact}
    wanted = validated(ServerSettings, values, "mamfed-server init")
    private_directory(folder)
    if not home.settings_path.exists():
        answer = contact_of(contact, "Whom should sites call to compare fingerprints?")
        wanted = validated(ServerSettings, {**values, "contact": answer}, "mamfed-server init")
    with home_lock(folder):
        created = _create_missing(home, wanted)
        for private in (home.sites, home.runs, home.logs):
            private_directory(private)
    _print_result(home, created, load_settings(home), wanted)


def own_names() -> list[str]:
    """Return this machine's full name, by which other machines may reach it; empty: it has none."""
    import socket

    name = socket.getfqdn().rstrip(".").lower()
    is_full = "." in name and not name.startswith("localhost.") and not name[-1].isdigit()
    return [name] if is_full and not name.endswith((".arpa", ".local")) else []


def _create_missing(home: ServerHome, wanted: ServerSettings) -> dict[str, bool]:
    """Create what is missing; return for each part whether it is new."""
    from mamfed_common.runtime.files import write_atomic
    from mamfed_server.admission.certificate_authority import (
        issue_server,
        make_authority,
        make_plan_key,
    )
    from mamfed_server.settings import settings_text

    created = {"authority": make_authority(home, wanted.name), "plan key": make_plan_key(home)}
    created["server.yaml"] = not home.settings_path.exists()
    if created["server.yaml"]:
        write_atomic(home.settings_path, settings_text(wanted))
    has_certificate = home.server_certificate.exists() and home.server_key.exists()
    created["server certificate"] = not has_certificate
    if created["server certificate"]:
        issue_server(home, wanted.hosts, wanted.certificate_days)
    created["plan.yaml"] = _create_plan(home.path / "plan.yaml")
    return created


def _create_plan(path: Path) -> bool:
    import mamfed_server
    from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_bytes
    from mamfed_common.runtime.files import write_atomic

    if path.exists():
        return False
    example = Path(mamfed_server.__file__).with_name("example_plan.yaml")
    write_atomic(path, read_bytes(example, DOCUMENT_BYTES))
    return True


def _print_result(
    home: ServerHome, created: dict[str, bool], kept: ServerSettings, wanted: ServerSettings
) -> None:
    from mamfed_server.admission.approval import own_fingerprint
    from mamfed_server.admission.certificate_authority import (
        load_authority,
        load_server_certificate,
    )

    authority = load_authority(home)
    for part, is_new in created.items():
        typer.echo(f"{part}: {'created' if is_new else 'kept'}")
    typer.echo(f"authority valid until: {authority.not_valid_after_utc:%Y-%m-%d}")
    end = load_server_certificate(home).not_valid_after_utc
    typer.echo(f"server certificate valid until: {end:%Y-%m-%d}")
    typer.echo(f"sites reach this server at: {' or '.join(kept.hosts)}, port {kept.port}")
    typer.echo(f"fingerprint of address, authority and plan key: {own_fingerprint(home)}")
    if kept != wanted:
        console().print(
            f"warning: {home.settings_path} was kept and differs from these options; to change it, "
            "edit the file and run: mamfed-server sites rotate",
            markup=False,
        )
    console().print(
        f"next: back up {home.path / 'ca'} and {home.plan_key} offline; read the fingerprint to "
        "each site by phone; approve each request with: mamfed-server sites approve request.json",
        markup=False,
    )
