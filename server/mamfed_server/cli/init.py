"""``mamfed-server init``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime.terminal import console, contact_of

if TYPE_CHECKING:
    from mamfed_server.settings import ServerHome, ServerSettings


def init(
    folder: Annotated[Path, typer.Argument(help="The coordinator's home, made if absent.")],
    name: Annotated[str, typer.Option(help="The federation's name; it cannot change later.")],
    host: Annotated[
        list[str],
        typer.Option(help="Name or address by which sites reach this server; may be repeated."),
    ],
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9443,
    bind: Annotated[str, typer.Option(help="Address of this machine to listen on.")] = "0.0.0.0",
    contact: Annotated[str, typer.Option(help="Whom sites phone; asked if left out.")] = "",
) -> None:
    """Make a coordinator's home: an authority, keys, a server certificate, server.yaml.

    What is there is kept: run again, it makes what is missing, and never a new authority.
    """
    from mamfed_common.runtime.documents import validated
    from mamfed_common.runtime.files import private_directory
    from mamfed_common.runtime.lock import home_lock
    from mamfed_server.settings import ServerHome, ServerSettings, load_settings

    home = ServerHome(folder)
    values = {"name": name, "hosts": host, "port": port, "bind": bind, "contact": contact}
    wanted = validated(ServerSettings, values, "mamfed-server init")
    private_directory(folder)
    if not home.settings_path.exists():
        asked = contact_of(contact, "Whom do sites phone to compare fingerprints?")
        wanted = validated(ServerSettings, {**values, "contact": asked}, "mamfed-server init")
    with home_lock(folder):
        made = _make(home, wanted)
        for private in (home.sites, home.runs, home.logs):
            private_directory(private)
    _say(home, made, load_settings(home) != wanted)


def _make(home: ServerHome, wanted: ServerSettings) -> dict[str, bool]:
    """Make what is missing; return which of the parts were made."""
    from mamfed_common.runtime.files import write_atomic
    from mamfed_server.admission.certificate_authority import (
        issue_server,
        make_authority,
        make_plan_key,
    )
    from mamfed_server.settings import settings_text

    made = {"authority": make_authority(home, wanted.name), "plan key": make_plan_key(home)}
    made["server.yaml"] = not home.settings_path.exists()
    if made["server.yaml"]:
        write_atomic(home.settings_path, settings_text(wanted))
    made["server certificate"] = not (home.server_certificate.exists() and home.server_key.exists())
    if made["server certificate"]:
        issue_server(home, wanted.hosts, wanted.certificate_days)
    return made


def _say(home: ServerHome, made: dict[str, bool], differs: bool) -> None:
    from mamfed_common.security.enrolment import federation_fingerprint
    from mamfed_server.admission.certificate_authority import (
        load_authority,
        load_plan_key,
        load_server_certificate,
    )

    authority = load_authority(home)
    print_fingerprint = federation_fingerprint(authority, load_plan_key(home).public_key())
    for part, is_new in made.items():
        typer.echo(f"{part}: {'made' if is_new else 'kept'}")
    typer.echo(f"authority valid until: {authority.not_valid_after_utc:%Y-%m-%d}")
    end = load_server_certificate(home).not_valid_after_utc
    typer.echo(f"server certificate valid until: {end:%Y-%m-%d}")
    typer.echo(f"fingerprint of authority and plan key: {print_fingerprint}")
    if differs:
        console().print(
            f"warning: {home.settings_path} is kept and differs from these options; edit it, then "
            "mamfed-server sites rotate",
            markup=False,
        )
    console().print(
        f"next: back up {home.path / 'ca'} and {home.plan_key} offline; read the fingerprint to "
        "each site by phone; approve a site's request by mamfed-server sites approve request.json",
        markup=False,
    )
