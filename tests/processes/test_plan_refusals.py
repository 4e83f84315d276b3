"""Sites that refuse a plan, each for its own reason, and what puts it right: real processes."""

import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.processes.deployment import Deployment, wait_until
from tests.processes.phantoms import small_plan

from mamfed_client.site.settings import SiteHome
from mamfed_common.plan import read_plan
from mamfed_common.security.keys import openssh_text

REASONS = {
    "aurora": "the site's policy does not allow this plan",
    "borealis": "the site has not approved this plan yet",
    "cirrus": "the site trusts no key that signed this plan",
}


def test_sites_refuse_a_plan_for_their_own_reasons_until_each_is_dealt_with(
    phantoms, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("plans")
    plan = folder / "plan.yaml"
    plan.write_text(small_plan(pretraining=1, finetuning=1).to_yaml())
    sha256 = read_plan(plan).sha256()
    with Deployment(folder, phantoms) as federation:
        federation.change_policy("aurora", bounds={"max_rounds": 1})
        federation.change_policy("borealis", plans={"approval": "manual"})
        welcome = trust_another_key(SiteHome(federation.site_home("cirrus")), folder)
        federation.start_server(plan)
        for name in phantoms:
            federation.start_site(name)
        wait_until(lambda: refusals(federation) == REASONS, "every site has refused")
        for name, reason in REASONS.items():
            assert reason in (federation.site_home(name) / "logs" / "worker.log").read_text()
        assert federation.rounds() == []
        home = federation.site_home("borealis")
        shown = federation.command("mamfed-client", "status", "--home", home, "--format", "json")
        assert json.loads(shown.stdout)["pending_plans"] == [sha256]
        federation.command("mamfed-client", "plan", "approve", sha256[:12], "--yes", "--home", home)
        federation.change_policy("aurora", bounds={"max_rounds": 2})
        cirrus = federation.site_home("cirrus")
        federation.command("mamfed-client", "join", welcome, "--home", cirrus, "--yes")
        assert federation.wait_for_end() == 0, federation.story()
        for record in federation.rounds():
            assert list(record["accepted"]) == sorted(phantoms)


def trust_another_key(home, folder):
    """Let a site trust another coordinator's plans; return the welcome that puts it right."""
    text = home.welcome.read_text()
    good = folder / "good.welcome.json"
    good.write_text(text)
    other = openssh_text(Ed25519PrivateKey.generate().public_key())
    home.welcome.write_text(json.dumps({**json.loads(text), "plan_key": other}))
    return good


def refusals(federation):
    """Return why each site has not described itself, as the run's events say."""
    path = federation.run_folder() / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    events = [json.loads(line) for line in lines]
    return {e["site"]: e["reason"] for e in events if e["event"] == "not described"}
