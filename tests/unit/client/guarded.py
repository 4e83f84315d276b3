"""A site with six malignant and six benign patients, and the same behind the gate of a home."""

from types import SimpleNamespace

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message

from mamfed_client.disclosure.gate import open_gate
from mamfed_client.models.model_store import folder_for
from mamfed_client.node.client_app import make_client_app
from mamfed_client.preparation.site_data import Site
from mamfed_client.site.settings import SiteHome
from mamfed_common.protocol.messages import pack, pack_task
from mamfed_common.security.enrolment import Welcome, write_document
from mamfed_common.security.keys import openssh_text
from mamfed_common.security.signing import sign_plan
from mamfed_simulations.federation.in_process import InProcessTransport


@pytest.fixture
def site(folder, tmp_path):
    for number in range(6):
        folder.malignant(f"SECRET-M{number}").benign(f"SECRET-B{number}")
    return Site("here", (("here", folder.write()),), tmp_path / "cache")


KEY = Ed25519PrivateKey.generate()
ALL = {
    "min_patients_a_round": 4,  # of six malignant ones, four train
    "min_patients_to_report": 1,
    "plans": {"approval": "within-bounds"},
    "release": {
        "arrays": ["*"],
        "metrics": ["counts", "num_examples", "loss", "images", "dice"],
    },
}


def write_policy(home, policy):
    """Write a site.yaml whose data lies in the folder ``site``; its size differs with its text."""
    text = yaml.safe_dump(
        {"name": "here", "data": [{"name": "a", "folder": "x"}], "policy": policy}
    )
    home.settings_path.write_text(text)


def write_welcome(home, key):
    """Write the welcome of a coordinator with this plan key into a site's home."""
    welcome = Welcome(
        federation="fed",
        site="here",
        server="127.0.0.1:9443",
        ca_certificate="none",
        certificate="none",
        plan_key=openssh_text(key.public_key()),
    )
    write_document(home.welcome, welcome)


@pytest.fixture
def guarded(site, tmp_path):
    """A site behind the gate of a real home."""
    home = SiteHome(tmp_path / "home")
    home.path.mkdir()
    write_policy(home, ALL)
    write_welcome(home, KEY)
    steps = []

    def start():
        app = make_client_app(
            lambda context: site,
            device="cpu",
            threads=1,
            on_step=lambda: steps.append(1),
            gate=open_gate(home),
            state_folder=home.state,
            keep_seconds=0,
            norms=home.state / "norms",
            optimizer=home.state / "optimizer",
            models=lambda _, task: folder_for(home.models, task.run, task.plan),
        )
        return InProcessTransport(app, 1)

    transport = start()

    def send(kind: str, body, state=None, transport=transport) -> Message:
        order = body.model_copy(update={"signature": sign_plan(KEY, body.plan)})
        content = pack(order) if state is None else pack_task(order, state)
        return transport.pull(transport.push(1, kind, content, 60))

    return SimpleNamespace(home=home, ask=send, start=start, steps=steps)
