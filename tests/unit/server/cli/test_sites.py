"""``mamfed-server sites``, as a person runs them."""

import json
import stat

import pytest
from tests.unit.server.homes import new_coordinator, new_site, node_of, request_of
from typer.testing import CliRunner

from mamfed_client.site.settings import SiteHome
from mamfed_common.errors import SetupError
from mamfed_common.security.enrolment import read_welcome, write_document
from mamfed_server.admission.approval import approve, revoke
from mamfed_server.admission.registry import load_sites
from mamfed_server.cli.main import app

runner = CliRunner()


@pytest.fixture
def home(tmp_path):
    return new_coordinator(tmp_path / "coordinator")


@pytest.fixture
def site(tmp_path):
    return new_site(tmp_path / "a")


def _approve(home, request, *options, **settings):
    path = home.path.parent / "request.json"
    write_document(path, request)
    arguments = ["sites", "approve", str(path), "--home", str(home.path), *options]
    return runner.invoke(app, arguments, **settings)


def test_approve_asks_for_the_phone_and_takes_no_for_an_answer(home, site):
    request = request_of(site, contact="Dr. A")
    result = _approve(home, request, input="n\n")
    assert result.exit_code == 1
    assert request.fingerprint() in result.output
    assert "contact: Dr. A" in result.output
    assert load_sites(home) == {}
    assert _approve(home, request, input="y\n").exit_code == 0
    welcome = read_welcome(home.path / "a.welcome.json")
    assert (welcome.site, welcome.server) == ("a", "localhost:9443")


def test_a_welcome_is_private_goes_where_asked_and_holds_no_secret(home, site, tmp_path):
    out = tmp_path / "w.json"
    assert _approve(home, request_of(site), "--yes", "--out", str(out)).exit_code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "PRIVATE" not in out.read_text()
    for key in (home.ca_key, home.plan_key, home.server_key):
        assert key.read_text().splitlines()[1] not in out.read_text()


def test_nothing_is_approved_where_the_welcome_cannot_be_written(home, site, tmp_path):
    result = _approve(home, request_of(site), "--yes", "--out", str(tmp_path / "no" / "w.json"))
    assert "its folder does not exist" in str(result.exception)
    assert load_sites(home) == {}


def test_a_contact_is_not_taken_for_markup(home, site):
    result = _approve(home, request_of(site, contact="[red]x[/red]"), input="n\n")
    assert "contact: [red]x[/red]" in result.output


def test_list_names_each_site_and_warns_before_a_certificate_ends(home, site, tmp_path):
    approve(home, request_of(site))
    text = home.settings_path.read_text()
    home.settings_path.write_text(text.replace("days: 397", "days: 29"))
    approve(home, request_of(new_site(tmp_path / "b"), "b"))
    revoke(home, "a")
    result = runner.invoke(app, ["sites", "list", "--home", str(home.path)])
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["a", "revoked"], ["b", "active"]]
    assert "the certificate of b expires in 28 days" in result.output
    assert "certificate of a" not in result.output
    rotated = runner.invoke(app, ["sites", "rotate", "--home", str(home.path)])
    assert "the certificate of b expires in 28 days" in rotated.output
    printed = runner.invoke(app, ["sites", "list", "--home", str(home.path), "--format", "json"])
    rows = json.loads(printed.stdout)
    assert [(row["site"], row["status"], row["days_left"]) for row in rows] == [
        ("a", "revoked", 396),
        ("b", "active", 28),
    ]
    assert rows[1]["node_fingerprint"] == node_of(SiteHome(tmp_path / "b"))


def test_revoke_says_so_and_a_wrong_name_is_an_error(home, site):
    approve(home, request_of(site))
    result = runner.invoke(app, ["sites", "revoke", "a", "--home", str(home.path)], input="n\n")
    assert (result.exit_code, load_sites(home)["a"].status) == (1, "active")
    assert "Revoke a? It can return only with new keys." in result.output
    assert str(result.exception) == "not confirmed, so nothing was changed"
    result = runner.invoke(app, ["sites", "revoke", "a", "--home", str(home.path)], input="")
    assert load_sites(home)["a"].status == "active"
    assert "--yes skips the question" in str(result.exception)
    result = runner.invoke(app, ["sites", "revoke", "a", "--yes", "--home", str(home.path)])
    assert "a: revoked" in result.output
    assert load_sites(home)["a"].revoked_at is not None
    result = runner.invoke(app, ["sites", "revoke", "../a", "--home", str(home.path)])
    assert isinstance(result.exception, SetupError)


def test_a_folder_that_is_no_home_is_named(tmp_path, site):
    result = runner.invoke(app, ["sites", "list", "--home", str(tmp_path)])
    assert "mamfed-server init" in str(result.exception)
