"""A site to be asked by a hostile coordinator: in this process, or its real processes over TLS."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message, RecordDict
from tests.processes.deployment import Deployment, wait_until

from mamfed_client.disclosure.gate import open_gate
from mamfed_client.models.model_store import folder_for
from mamfed_client.node.client_app import make_client_app
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.runtime.files import private_directory
from mamfed_common.security.enrolment import Welcome, write_document
from mamfed_common.security.keys import new_ec_key, openssh_text, write_key
from mamfed_server.admission.certificate_authority import load_plan_key
from mamfed_server.admission.registry import Registry
from mamfed_server.fleet import node_rules, superlink
from mamfed_server.fleet.link_transport import LinkTransport
from mamfed_server.fleet.request_guard import Limits
from mamfed_server.run.requests import LOST
from mamfed_server.service.door import build_door
from mamfed_server.settings import ServerHome, load_settings
from mamfed_simulations.federation.in_process import InProcessTransport

SITE = "north"
ALLOWED = {
    "min_patients_a_round": 1,  # a round of these plans is one step
    "plans": {"approval": "within-bounds"},
    "release": {
        "arrays": ["*"],
        "metrics": [
            "counts", "num_examples", "loss", "images", "dice", "lesions", "lesions_found",
            "images_without_malignancy", "false_positive_pixels", "iou", "auroc",
            "sensitivity_at_1", "dice_at", "split",
        ],
    },
}  # fmt: skip
"""The policy that ``init --allow-model --allow-metrics`` writes, with approval by bounds."""


class AskedSite(Protocol):
    """What a coordinator reaches of a site."""

    home: SiteHome
    key: Ed25519PrivateKey

    def ask(self, kind: str, content: RecordDict) -> Message:
        """Send a message and return the answer."""

    def pids(self) -> list[int]:
        """Return the site's processes."""

    def close(self) -> None:
        """End what was started."""


class InProcessSite:
    """A site's ClientApp behind the gate of a real home, in this process."""

    def __init__(self, folder: Path, data: Path) -> None:
        """Make the home."""
        self.home, self.key = (
            SiteHome(private_directory(folder / "site")),
            (Ed25519PrivateKey.generate()),
        )
        settings = {
            "name": SITE,
            "data": [{"name": SITE, "folder": str(data)}],
            "cache": str(folder / "cache"),
            "policy": ALLOWED,
        }
        self.home.settings_path.write_text(yaml.safe_dump(settings))
        write_key(self.home.node_key, new_ec_key(), openssh=True)
        welcome = Welcome(
            federation="fed",
            site=SITE,
            server="127.0.0.1:9443",
            ca_certificate="none",
            certificate="none",
            plan_key=openssh_text(self.key.public_key()),
        )
        write_document(self.home.welcome, welcome)
        home = self.home
        app = make_client_app(
            lambda context: load_site_settings(home).site(),
            device="cpu",
            threads=1,
            gate=open_gate(home),
            state_folder=home.state,
            keep_seconds=60,
            norms=home.state / "norms",
            optimizer=home.state / "optimizer",
            models=lambda _, task: folder_for(home.models, task.run, task.plan),
        )
        self._transport = InProcessTransport(app, 1)

    def ask(self, kind: str, content: RecordDict) -> Message:
        """Call the site."""
        message_id = self._transport.push(1, kind, content, 60)
        assert message_id is not None
        reply = self._transport.pull(message_id)
        assert reply is not None
        return reply

    def pids(self) -> list[int]:
        """Return no process of its own."""
        return []

    def close(self) -> None:
        """Do nothing."""


class RealSite:
    """A site's node and worker, asked over TLS by a coordinator in this process."""

    def __init__(self, folder: Path, data: Path) -> None:
        """Enrol the site by its commands, with the default policy for what leaves, and start it."""
        self.federation = Deployment(folder, {SITE: data})
        self.federation.change_policy(SITE, min_patients_to_report=10)
        self.home = SiteHome(self.federation.site_home(SITE))
        self._server = ServerHome(self.federation.server_home)
        self.key = load_plan_key(self._server)
        self._listen()
        self.federation.start_site(SITE)
        self._wait_online()

    def ask(self, kind: str, content: RecordDict, seconds: float = 240) -> Message:
        """Send a message and wait for the answer; a node that was restarted is asked again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            reply = self._ask(kind, content.copy(), deadline)
            if reply is not None and not (reply.has_error() and reply.error.code in LOST):
                return reply
            time.sleep(0.2)
        raise TimeoutError(f"no answer to a {kind}\n{self.federation.story()}")

    def _ask(self, kind: str, content: RecordDict, deadline: float) -> Message | None:
        """Send a message once; None: the node was not there, or no answer came in time."""
        node, left = self._wait_online(), deadline - time.monotonic()
        message_id = self._transport.push(node, kind, content, left)
        while message_id is not None and time.monotonic() < deadline:
            reply = self._transport.pull(message_id)
            if reply is not None:
                return reply
            time.sleep(0.02)
        return None

    def with_foreign_bundle(self, bundle: bytes, sha256: str) -> None:
        """Listen anew with a bundle that is not mamfed's."""
        self._door.close()
        ours: Any = superlink
        ours.bundle = lambda: bundle
        for module in (superlink, node_rules):
            setattr(module, "bundle_sha256", lambda: sha256)  # noqa: B010 - for mypy
        self._listen()
        self._wait_online()

    def pids(self) -> list[int]:
        """Return node and worker."""
        from mamfed_client.site.status import read_status

        status = read_status(self.home)
        return [pid for pid in (status.node_pid, status.worker_pid) if pid]

    def close(self) -> None:
        """End the site and the listener."""
        self.federation.close()
        self._door.close()

    def _listen(self) -> None:
        home = self._server
        limits = Limits(body_bytes=64 * 2**20)
        self._door = build_door(home, load_settings(home), Registry(home), limits)
        self._door.listener.start()
        self._transport = LinkTransport(self._door.link)

    def _wait_online(self) -> int:
        wait_until(lambda: bool(self._transport.online()), f"{SITE} connects")
        return next(iter(self._transport.online()))
