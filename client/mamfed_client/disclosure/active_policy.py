"""What a site goes by: its policy and its coordinator's key, as the files in its home say now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mamfed_client.site.policy import Policy
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.security.enrolment import read_welcome
from mamfed_common.security.keys import parse_openssh


class ActivePolicy(NamedTuple):
    """What a site goes by.

    Attributes:
        policy: The site's policy.
        trusted_keys: Keys that may sign plans.
        federation: To whom answers go.
    """

    policy: Policy
    trusted_keys: tuple[Ed25519PublicKey, ...]
    federation: str


class ReloadingPolicy:
    """The rules in a site's home, read again when a file changes."""

    def __init__(self, home: SiteHome) -> None:
        """Read from this home."""
        self._home = home
        self._stamp: object = None
        self._rules: ActivePolicy | None = None

    def __call__(self) -> ActivePolicy:
        """Return the rules as they are now.

        Raises:
            SetupError: ``site.yaml`` or ``welcome.json`` cannot be used.
        """
        stamp = [_stamp(path) for path in (self._home.settings_path, self._home.welcome)]
        if self._rules is None or stamp != self._stamp:
            self._rules = None  # a change that cannot be read leaves no older rules in force
            self._rules, self._stamp = read_active_policy(self._home), stamp
        return self._rules


def read_active_policy(home: SiteHome) -> ActivePolicy:
    """Read a site's policy and its coordinator's key.

    Raises:
        SetupError: ``site.yaml`` or ``welcome.json`` cannot be used.
    """
    policy, welcome = load_site_settings(home).policy, read_welcome(home.welcome)
    more = [
        parse_openssh(text, Ed25519PublicKey, "policy.coordinator_keys")
        for text in policy.coordinator_keys
    ]
    return ActivePolicy(policy, (welcome.plan_public_key(), *more), welcome.federation)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
