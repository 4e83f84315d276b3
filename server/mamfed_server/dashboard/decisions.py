"""What waits for a person: requests to approve, runs that need help, ending certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_common.runtime.wording import counted
from mamfed_common.security.enrolment import EnrolmentRequest, read_request
from mamfed_server.admission.certificate_authority import load_server_certificate
from mamfed_server.admission.registry import SiteEntry
from mamfed_server.dashboard.run_view import RunView
from mamfed_server.dashboard.site_states import WARN_DAYS, SiteView
from mamfed_server.service.status import CoordinatorStatus
from mamfed_server.settings import ServerHome

REQUESTS = "requests"
"""Folder of a home with the requests that sites have sent, until they are approved or put aside."""
MOST_REQUESTS = 100


class Decision(NamedTuple):
    """One thing that waits for a person.

    Attributes:
        text: What it is.
        address: The page on which it is decided; empty: nowhere on this page.
        button: What its link says.
    """

    text: str
    address: str = ""
    button: str = ""


def requests_folder(home: ServerHome) -> Path:
    """Return the folder of waiting requests."""
    return home.path / REQUESTS


def waiting_requests(home: ServerHome) -> dict[str, EnrolmentRequest | str]:
    """Return the waiting requests by file name; of a damaged one, what is wrong with it."""
    found: dict[str, EnrolmentRequest | str] = {}
    for path in sorted(requests_folder(home).glob("[!.]*.json"))[:MOST_REQUESTS]:
        try:
            found[path.name] = read_request(path)
        except (MamfedError, OSError) as error:
            found[path.name] = str(error)
    return found


def keep_request(home: ServerHome, text: str) -> str:
    """Keep a request that was pasted into the page; return its file's name.

    Raises:
        MamfedError: It is not a request.
        OSError: It cannot be written.
    """
    folder = private_directory(requests_folder(home))
    draft = folder / f".{datetime.now(UTC):%Y%m%d%H%M%S%f}.json"
    write_atomic(draft, text)
    try:
        name = f"{read_request(draft).site}.json"
        draft.replace(folder / name)
    finally:
        draft.unlink(missing_ok=True)
    return name


def decisions(
    home: ServerHome,
    status: CoordinatorStatus,
    run: RunView,
    entries: Mapping[str, SiteEntry],
    now: datetime,
    sites: Sequence[SiteView] = (),
) -> list[Decision]:
    """Return everything that waits for a person, most urgent first."""
    result = []
    if run.can == "resume" and run.level == "failed":  # nobody decided that
        text = f"{run.headline}. {run.explanation}".strip()
        result.append(Decision(text, f"/resume?run={run.name}", "Resume"))
    elif run.can == "stop" and run.headline.startswith("Paused"):
        result.append(Decision("The run is paused until enough sites are back; phone them."))
    result += [_help(site, entries.get(site.site)) for site in sites if site.level == "failed"]
    for site, facts in sorted((status.server_facts.get("twins") or {}).items()):
        since = facts.get("since", "")
        text = f"{site} answers from two processes since {since}: ask it to stop one of them."
        result.append(Decision(text, f"/sites/revoke?site={site}", "Revoke"))
    for name, request in waiting_requests(home).items():
        if isinstance(request, str):
            result.append(Decision(f"{name} in the folder of requests is damaged."))
        else:
            text = f"{request.site} asks to take part: compare its fingerprint by phone."
            result.append(Decision(text, f"/sites/approve?request={name}", "Look at it"))
    return result + _certificates(home, entries, now)


def _help(site: SiteView, entry: SiteEntry | None) -> Decision:
    """Say whom to phone about a site that does not take part."""
    contact = entry.contact if entry else ""
    phone = f"Phone it: {contact}." if contact else "Phone it; its request named no contact."
    state = f"{site.site}: {site.state[:1].lower()}{site.state[1:]}, {site.detail}"
    return Decision(f"{state}. {phone}", f"/log?site={site.site}", "What happened")


def _certificates(
    home: ServerHome, entries: Mapping[str, SiteEntry], now: datetime
) -> list[Decision]:
    result = []
    try:
        left = (load_server_certificate(home).not_valid_after_utc - now).days
    except MamfedError:
        left = WARN_DAYS
        result.append(
            Decision("The server's certificate cannot be read: mamfed-server sites rotate")
        )
    if left < WARN_DAYS:
        text = f"The server's certificate {_ends(left)}: run mamfed-server sites rotate."
        result.append(Decision(text))
    for name, entry in entries.items():
        left = (entry.expiry() - now).days
        if entry.status == "active" and left < WARN_DAYS:
            text = f"The certificate of {name} {_ends(left)}: ask it to enroll again."
            result.append(Decision(text))
    return result


def _ends(days: int) -> str:
    return "has expired" if days < 0 else f"ends in {counted(days, 'day')}"
