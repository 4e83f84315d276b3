"""``mamfed-client init``, ``enroll`` and ``join``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime.terminal import confirm, console, contact_of

if TYPE_CHECKING:
    from mamfed_client.site.settings import SiteHome
    from mamfed_common.security.enrolment import Welcome

Home = Annotated[
    Path,
    typer.Option(help="This site's home.", envvar="MAMFED_SITE_HOME", file_okay=False),
]


Contact = Annotated[str, typer.Option(help="Whom the coordinator phones; asked if left out.")]
PHONE = "Whom does the coordinator phone to compare fingerprints?"
SEND = (
    "send the request to the coordinator, read the fingerprint to them when they phone, then "
    "mamfed-client join the welcome that comes back"
)
NO_CONTACT = "none given; phone a number by which you know the coordinator already"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (init, enroll, join):
        app.command()(command)


def init(
    folder: Annotated[Path, typer.Argument(help="This site's home, made if absent.")],
    name: Annotated[str, typer.Option(help="What the federation calls this site.")],
    data: Annotated[
        list[str],
        typer.Option(
            help="A data set's folder; NAME=FOLDER, repeated, where there are several.",
            metavar="[NAME=]FOLDER",
        ),
    ],
    allow_model: Annotated[
        bool,
        typer.Option("--allow-model", help="Let weights leave, and the counts that they need."),
    ] = False,
    allow_metrics: Annotated[
        bool, typer.Option("--allow-metrics", help="Let results leave.")
    ] = False,
    contact: Contact = "",
) -> None:
    """Make a site's home: keys, request.json, and site.yaml: all is denied unless allowed.

    What is there is kept: neither keys nor site.yaml are ever overwritten.
    """
    from mamfed_client.site.home_location import record_home_location
    from mamfed_client.site.identity import build_request, make_keys
    from mamfed_client.site.settings import SiteHome, SiteSettings, load_site_settings
    from mamfed_client.site.settings_template import first_settings
    from mamfed_common.runtime.documents import check_name, validated
    from mamfed_common.runtime.files import private_directory, write_atomic
    from mamfed_common.runtime.lock import home_lock
    from mamfed_common.security.enrolment import write_document

    home = SiteHome(folder)
    check_name(name, "--name")
    cohorts = _cohorts(name, data)
    folders = [{"name": cohort, "folder": path} for cohort, path in cohorts]
    validated(SiteSettings, {"name": name, "data": folders}, "mamfed-client init")
    private_directory(folder)
    if asks := bool(contact) or not home.request.exists():
        contact = contact_of(contact, PHONE)
    with home_lock(folder):
        record_home_location(folder)
        if is_new := not home.settings_path.exists():
            text = first_settings(
                name, cohorts, allow_model=allow_model, allow_metrics=allow_metrics
            )
            write_atomic(home.settings_path, text)
        settings = load_site_settings(home)
        made_keys = make_keys(home)
        for private in (home.certs, home.plans, home.state, home.models, home.logs):
            private_directory(private)
        if asks:
            write_document(home.request, build_request(home, settings.name, contact))
    typer.echo(f"site.yaml: {'made' if is_new else 'kept, without these options'}")
    typer.echo(f"keys: {'made' if made_keys else 'kept'}")
    release = settings.policy.release
    _say_release(bool(release.arrays), bool(release.metrics))
    _say_request(home)
    if not asks:
        _tell("the request is kept; mamfed-client enroll makes a new one")
    _tell(f"next: read {home.settings_path}; {SEND}")


def enroll(
    home: Home = Path("."),
    contact: Contact = "",
    new_keys: Annotated[
        bool, typer.Option("--new-keys", help="Put the keys aside and make new ones first.")
    ] = False,
) -> None:
    """Write request.json for the coordinator. Run it again to renew the certificate."""
    from mamfed_client.site import identity
    from mamfed_client.site.settings import SiteHome, load_site_settings
    from mamfed_common.runtime.lock import home_lock
    from mamfed_common.security.enrolment import write_document

    place = SiteHome(home)
    name = load_site_settings(place).name
    # A renewal: the coordinator knows whom to phone.
    known = contact or place.welcome.exists()
    contact = contact if known else contact_of(contact, PHONE)
    with home_lock(home):
        if new_keys and place.keys.exists():
            aside = identity.replace_keys(place)
            typer.echo(f"old keys: in {aside}; delete them when they are no use")
            _tell("this site cannot connect until it has joined by the answer to the new request")
        write_document(place.request, identity.build_request(place, name, contact))
    _say_request(place)
    _tell(f"next: {SEND}")


def join(
    welcome: Annotated[Path, typer.Argument(help="The welcome that the coordinator sent.")],
    home: Home = Path("."),
    yes: Annotated[bool, typer.Option("--yes", help="The fingerprint was compared.")] = False,
) -> None:
    """Take the coordinator's welcome: its address, its keys, this site's certificate.

    A running site takes a renewed certificate without a restart.
    """
    from mamfed_client.site import identity
    from mamfed_client.site.settings import SiteHome, load_site_settings
    from mamfed_common.errors import SetupError
    from mamfed_common.runtime.file_kinds import site_of_request
    from mamfed_common.runtime.lock import home_lock
    from mamfed_common.security.enrolment import read_welcome

    place = SiteHome(home)
    name = load_site_settings(place).name
    if site_of_request(welcome) == name:
        raise SetupError(
            f"{welcome}: this is your own request, which goes to the coordinator; join takes the "
            f"welcome that comes back, e.g. {name}.welcome.json"
        )
    answer = read_welcome(welcome)
    identity.check_own(place, answer, name)
    _show(answer)
    if identity.is_known(place, answer):
        _tell("the authority and the plan key are those that this site trusts already")
    else:
        _confirm(place, yes=yes)
    with home_lock(home):
        identity.check_own(place, answer, name)  # its keys may have been replaced since
        identity.join(place, answer)
    typer.echo(f"joined: {place.welcome}")
    _tell("next: mamfed-client preflight --plan PLAN, mamfed-client plan approve PLAN, then start")


def _say_request(home: SiteHome) -> None:
    from mamfed_common.security.enrolment import read_request

    request = read_request(home.request)
    typer.echo(f"request: {home.request}")
    typer.echo(f"fingerprint: {request.fingerprint()}")


def _show(answer: Welcome) -> None:
    end = answer.site_certificate().not_valid_after_utc
    typer.echo(f"federation: {answer.federation}")
    typer.echo(f"server: {answer.server}")
    typer.echo(f"contact: {answer.contact or NO_CONTACT}")
    typer.echo(f"certificate valid until: {end:%Y-%m-%d}")
    typer.echo(f"fingerprint of authority and plan key: {answer.fingerprint()}")


def _confirm(home: SiteHome, *, yes: bool) -> None:
    if home.welcome.exists():
        _tell("warning: another authority or plan key than the one that this site trusts so far")
    confirm("Did the coordinator read the same over the phone?", yes=yes)


def _cohorts(site: str, data: list[str]) -> list[tuple[str, Path]]:
    """Read ``--data``; a single folder takes the site's name, as in ``mamfed-simulate``."""
    from mamfed_common.errors import SetupError
    from mamfed_common.runtime.documents import check_name

    if len(data) == 1 and Path(data[0]).is_dir():
        return [(site, Path(data[0]).absolute())]
    cohorts = []
    for text in data:
        name, separator, folder = text.partition("=")
        if not separator and len(data) > 1:
            raise SetupError(f"--data {text}: expected NAME=FOLDER, as there are several")
        path = Path(folder if separator else text)
        if not path.is_dir():
            raise SetupError(f"--data {text}: no such folder")
        cohorts.append((check_name(name, "--data") if separator else site, path.absolute()))
    return cohorts


def _say_release(model: bool, metrics: bool) -> None:
    typer.echo(f"model may leave: {'yes' if model else 'no'}")
    typer.echo(f"metrics may leave: {'yes' if metrics else 'no'}")
    if not (model and metrics):
        _tell("this site cannot train until policy.release in site.yaml lets arrays and counts out")


def _tell(text: str) -> None:
    console().print(text)
