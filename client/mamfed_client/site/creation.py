"""Create a site's home: its folders, keys, settings and request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mamfed_client.site.home_location import record_home_location
from mamfed_client.site.identity import build_request, make_keys
from mamfed_client.site.settings import SiteHome, SiteSettings, load_site_settings
from mamfed_client.site.settings_template import first_settings
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_common.runtime.lock import home_lock
from mamfed_common.security.enrolment import write_document


class CreatedHome(NamedTuple):
    """What :func:`create_home` made, and what it found.

    Attributes:
        settings: The settings in ``site.yaml``.
        made_settings: Whether ``site.yaml`` is new.
        made_keys: Whether the keys are new.
    """

    settings: SiteSettings
    made_settings: bool
    made_keys: bool


def create_home(
    home: SiteHome,
    name: str,
    cohorts: Sequence[tuple[str, Path]],
    *,
    allow_model: bool,
    allow_metrics: bool,
    contact: str | None,
) -> CreatedHome:
    """Create what a site's home lacks; an existing ``site.yaml`` and existing keys are kept.

    Args:
        home: The home, whose folder exists.
        name: The site's name in the federation.
        cohorts: Name and folder of each data set.
        allow_model: Whether weights, and the counts they need, may leave.
        allow_metrics: Whether results may leave.
        contact: Contact for a new request; None keeps the request in the home.

    Raises:
        SetupError: The ``site.yaml`` or a key in the home cannot be used, or the home is in use.
        OutputError: A file cannot be written.
    """
    with home_lock(home.path):
        record_home_location(home.path)
        if is_new := not home.settings_path.exists():
            text = first_settings(
                name, cohorts, allow_model=allow_model, allow_metrics=allow_metrics
            )
            write_atomic(home.settings_path, text)
        settings = load_site_settings(home)
        made_keys = make_keys(home)
        for private in (home.certs, home.plans, home.state, home.models, home.logs):
            private_directory(private)
        if contact is not None:
            write_document(home.request, build_request(home, settings.name, contact))
    return CreatedHome(settings, is_new, made_keys)
