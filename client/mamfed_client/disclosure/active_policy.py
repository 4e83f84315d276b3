"""The policy and the coordinator keys now in force, read from the files of a site's home."""

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
    """The rules now in force at a site.

    Attributes:
        policy: The site's policy.
        trusted_keys: Keys that may sign plans.
        federation: The federation that receives the answers.
    """

    policy: Policy
    trusted_keys: tuple[Ed25519PublicKey, ...]
    federation: str


class ReloadingPolicy:
    """The policy of a site's home, reloaded when a file changes."""

    def __init__(self, home: SiteHome) -> None:
        """Read from this home."""
        self._home = home
        self._stamp: object = None
        self._active: ActivePolicy | None = None

    def __call__(self) -> ActivePolicy:
        """Return the policy now in force.

        Raises:
            SetupError: ``site.yaml`` or ``welcome.json`` cannot be used.
        """
        stamp = [_stamp(path) for path in (self._home.settings_path, self._home.welcome)]
        if self._active is None or stamp != self._stamp:
            self._active = None  # after an unreadable change, the old policy is no longer in force
            self._active, self._stamp = read_active_policy(self._home), stamp
        return self._active


def read_active_policy(home: SiteHome) -> ActivePolicy:
    """Read a site's policy and its coordinator's key.

    Raises:
        SetupError: ``site.yaml`` or ``welcome.json`` cannot be used.
    """
    policy, welcome = load_site_settings(home).policy, read_welcome(home.welcome)
    further_keys = [
        parse_openssh(text, Ed25519PublicKey, "policy.coordinator_keys")
        for text in policy.coordinator_keys
    ]
    return ActivePolicy(policy, (welcome.plan_public_key(), *further_keys), welcome.federation)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
