"""``mamfed-client init``, ``enroll`` and ``join``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_client.cli.node import run_preflight
from mamfed_client.cli.options import Contact, Home
from mamfed_common.runtime.terminal import confirm, console, contact_of

if TYPE_CHECKING:
    from mamfed_client.site.creation import CreatedHome
    from mamfed_client.site.settings import SiteHome
    from mamfed_common.security.enrolment import Welcome

NewHome = Annotated[Path, typer.Argument(help="This site's home; created if missing.")]
SiteName = Annotated[str, typer.Option(help="This site's name in the federation.")]
DataFolders = Annotated[
    list[str] | None,
    typer.Option(
        help="Folder of a data set; for several, repeat NAME=FOLDER.", metavar="[NAME=]FOLDER"
    ),
]
AllowModel = Annotated[
    bool, typer.Option("--allow-model", help="Allow weights and the counts they need to leave.")
]
AllowMetrics = Annotated[bool, typer.Option("--allow-metrics", help="Allow results to leave.")]
PHONE = "Whom should the coordinator call to compare fingerprints?"
SEND = (
    "send the request to the coordinator, read the fingerprint to them when they call, then "
    "run mamfed-client join with the welcome they send back"
)
NO_CONTACT = "none given; call a number that you already know to be the coordinator's"


def register(app: typer.Typer) -> None:
    """Add the commands to ``mamfed-client``."""
    for command in (init, enroll, join):
        app.command()(command)


def init(
    folder: NewHome,
    name: SiteName = "",
    data: DataFolders = None,
    allow_model: AllowModel = False,
    allow_metrics: AllowMetrics = False,
    contact: Contact = "",
    guided: Annotated[
        bool, typer.Option("--guided", help="Ask six questions instead of reading options.")
    ] = False,
) -> None:
    """Create a site's home with its keys, request.json and site.yaml. Nothing may leave by default.

    Existing files are kept: keys and site.yaml are never overwritten.
    """
    from mamfed_client.site.creation import create_home
    from mamfed_client.site.settings import SiteHome, SiteSettings
    from mamfed_common.runtime.documents import check_name, validated
    from mamfed_common.runtime.files import private_directory

    if guided:
        from mamfed_client.cli.guided import answers

        name, data, allow_model, allow_metrics, contact = answers(
            name, data or [], allow_model, allow_metrics, contact
        )
    for option, given in (("--name", name), ("--data", data)):
        if not given:
            raise typer.BadParameter(f"missing option {option}, or --guided", param_hint=option)
    home = SiteHome(folder)
    check_name(name, "--name")
    data = data or []
    cohorts = _cohorts(name, data)
    folders = [{"name": cohort, "folder": path} for cohort, path in cohorts]
    validated(SiteSettings, {"name": name, "data": folders}, "mamfed-client init")
    private_directory(folder)
    if asks := bool(contact) or not home.request.exists():
        contact = contact_of(contact, PHONE)
    created = create_home(
        home,
        name,
        cohorts,
        allow_model=allow_model,
        allow_metrics=allow_metrics,
        contact=contact if asks else None,
    )
    _say_created(home, created)
    if not asks:
        _tell("the request was kept; run mamfed-client enroll to make a new one")
    _tell(f"next: read {home.settings_path}; {SEND}")


def enroll(
    home: Home = Path("."),
    contact: Contact = "",
    new_keys: Annotated[
        bool, typer.Option("--new-keys", help="Set the current keys aside and make new ones.")
    ] = False,
) -> None:
    """Write request.json for the coordinator. Run it again to renew the certificate.

    Without --contact, the contact of the request that lies there is kept.
    """
    from mamfed_client.site import identity
    from mamfed_client.site.settings import SiteHome, load_site_settings
    from mamfed_common.runtime.lock import home_lock
    from mamfed_common.security.enrolment import write_document

    site_home = SiteHome(home)
    name = load_site_settings(site_home).name
    contact = contact or _contact_before(site_home)
    # For a renewal, the coordinator already knows whom to call.
    is_known = contact or site_home.welcome.exists()
    contact = contact if is_known else contact_of(contact, PHONE)
    with home_lock(home):
        if new_keys and site_home.keys.exists():
            aside = identity.replace_keys(site_home)
            typer.echo(f"old keys: in {aside}; delete them once you no longer need them")
            _tell("this site cannot connect until it joins with the welcome to the new request")
        write_document(site_home.request, identity.build_request(site_home, name, contact))
    _say_request(site_home)
    _tell(f"next: {SEND}")


def _contact_before(home: SiteHome) -> str:
    """Return the contact of the home's request; empty if there is none that can be read."""
    from mamfed_common.errors import SetupError
    from mamfed_common.security.enrolment import read_request

    try:
        return read_request(home.request).contact
    except SetupError:  # it is written anew
        return ""


def join(
    welcome: Annotated[Path, typer.Argument(help="The welcome file from the coordinator.")],
    home: Home = Path("."),
    yes: Annotated[bool, typer.Option("--yes", help="The fingerprint was compared.")] = False,
    plan: Annotated[
        Path | None,
        typer.Option(help="Then check whether this site can follow this plan, as preflight does."),
    ] = None,
) -> None:
    """Install the coordinator's welcome: its address, its keys and this site's certificate.

    A running site picks up a renewed certificate without a restart. With --plan, the exit code is
    9 if a check fails; the site has joined nevertheless.
    """
    from mamfed_client.site import identity
    from mamfed_client.site.settings import SiteHome, load_site_settings
    from mamfed_common.errors import SetupError
    from mamfed_common.plan import read_plan
    from mamfed_common.runtime.file_kinds import site_of_request
    from mamfed_common.runtime.lock import home_lock
    from mamfed_common.security.enrolment import read_welcome

    site_home = SiteHome(home)
    name = load_site_settings(site_home).name
    if site_of_request(welcome) == name:
        raise SetupError(
            f"{welcome}: this is your own request, which goes to the coordinator; join needs the "
            f"welcome that comes back, e.g. {name}.welcome.json"
        )
    answer = read_welcome(welcome)
    wanted = read_plan(plan) if plan else None
    identity.check_own(site_home, answer, name)
    _show(answer)
    news = identity.news_in(site_home, answer)
    if news == []:
        _tell("this site already trusts this address, authority and plan key")
    else:
        _confirm(site_home, news or ["address", "authority", "plan key"], yes=yes)
    with home_lock(home):
        identity.check_own(site_home, answer, name)  # its keys may have been replaced meanwhile
        identity.join(site_home, answer)
    typer.echo(f"joined: {site_home.welcome}")
    if wanted is None:
        _tell("next: mamfed-client preflight --plan PLAN, mamfed-client plan approve PLAN, start")
        return
    run_preflight(site_home, wanted)
    _tell(f"next: mamfed-client plan approve {plan}, then mamfed-client start")


def _say_created(home: SiteHome, created: CreatedHome) -> None:
    made = "made" if created.made_settings else "kept, without these options"
    typer.echo(f"site.yaml: {made}")
    typer.echo(f"keys: {'made' if created.made_keys else 'kept'}")
    release = created.settings.policy.release
    _say_release(bool(release.arrays), bool(release.metrics))
    _say_request(home)


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
    typer.echo(f"fingerprint of address, authority and plan key: {answer.fingerprint()}")


def _confirm(home: SiteHome, news: list[str], *, yes: bool) -> None:
    if home.welcome.exists():
        _tell(f"warning: this site trusts another {' and another '.join(news)} so far")
    _tell(
        "if the coordinator reads another fingerprint, say no; an earlier mamfed showed one that "
        "covers no address: let them run mamfed-server init of this version to see the new one"
    )
    confirm("Did the coordinator read the same fingerprint over the phone?", yes=yes)


def _cohorts(site: str, data: list[str]) -> list[tuple[str, Path]]:
    """Parse ``--data``; one folder without a name takes the site's, as in ``mamfed-simulate``."""
    from mamfed_common.errors import SetupError
    from mamfed_common.runtime.documents import check_name

    if len(data) == 1 and Path(data[0]).is_dir():
        return [(site, Path(data[0]).absolute())]
    cohorts = []
    for text in data:
        name, separator, folder = text.partition("=")
        if not separator and len(data) > 1:
            raise SetupError(f"--data {text}: expected NAME=FOLDER when there are several")
        path = Path(folder if separator else text)
        if not path.is_dir():
            raise SetupError(f"--data {text}: no such folder")
        cohorts.append((check_name(name, "--data") if separator else site, path.absolute()))
    return cohorts


def _say_release(model: bool, metrics: bool) -> None:
    typer.echo(f"model may leave: {'yes' if model else 'no'}")
    typer.echo(f"metrics may leave: {'yes' if metrics else 'no'}")
    if not (model and metrics):
        _tell("this site cannot train until policy.release in site.yaml allows arrays and counts")


def _tell(text: str) -> None:
    console().print(text)
