"""``mamfed-client init``, ``enroll`` and ``join``, as a person runs them."""

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.client.homes import new_coordinator, new_site, ok, run_client
from typer.testing import CliRunner

from mamfed_client.site import identity
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.errors import SetupError
from mamfed_common.security.enrolment import check_request, read_request, write_document
from mamfed_server.admission.approval import approve
from mamfed_server.settings import ServerHome, load_settings

runner = CliRunner()


@pytest.fixture
def coordinator(tmp_path):
    return new_coordinator(tmp_path / "coordinator")


@pytest.fixture
def site(tmp_path):
    return new_site(tmp_path / "a")


@pytest.fixture
def request_(site):
    return identity.build_request(site, "a", "Dr. A, 123")


@pytest.fixture
def welcome(coordinator, request_):
    return approve(coordinator, request_)


def test_init_denies_everything_unless_told(tmp_path):
    home = new_site(tmp_path / "a")
    release = load_site_settings(home).policy.release
    assert (release.arrays, release.metrics) == ((), ())
    data = tmp_path / "data"
    model = ok(run_client("init", tmp_path / "b", "--name", "b", "--data", data, "--allow-model"))
    assert "model may leave: yes" in model.output
    release = load_site_settings(SiteHome(tmp_path / "b")).policy.release
    assert (release.arrays, release.metrics) == (("*",), ("counts", "num_examples"))
    options = ["--allow-model", "--allow-metrics"]
    ok(run_client("init", tmp_path / "c", "--name", "c", "--data", data, *options))
    assert "dice" in load_site_settings(SiteHome(tmp_path / "c")).policy.release.metrics


def test_the_first_settings_are_the_defaults(tmp_path):
    """What the comments stand beside is what a site has that leaves the key out."""
    home = new_site(tmp_path / "a")
    first = load_site_settings(home)
    home.settings_path.write_text(f"name: a\ndata: [{{name: a, folder: {tmp_path / 'data'}}}]\n")
    assert load_site_settings(home) == first


def test_init_again_keeps_keys_and_settings(tmp_path):
    home = new_site(tmp_path / "a")
    home.settings_path.write_text(home.settings_path.read_text() + "# mine\n")
    files = home.node_key, home.tls_key, home.settings_path
    before = [path.read_bytes() for path in files]
    options = ["--data", tmp_path / "data", "--allow-model"]
    result = ok(run_client("init", home.path, "--name", "other", *options))
    assert [path.read_bytes() for path in files] == before
    assert "site.yaml: kept, without these options" in result.output
    assert "model may leave: no" in result.output


def test_init_makes_private_files(tmp_path):
    home = new_site(tmp_path / "a")
    for path in [home.path, home.keys, home.certs, home.plans, home.state, home.logs]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in [home.settings_path, home.node_key, home.tls_key]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("../x", ["."], "--name '../x': expected letters"),
        ("a", ["nowhere"], "--data nowhere: no such folder"),
        ("a", [".", "."], "expected NAME=FOLDER"),
        ("a", ["x=.", "x=."], "found the name 'x' twice"),
        ("a", ["x y=.", "z=."], "--data 'x y': expected letters"),
    ],
)
def test_init_refuses_wrong_options_and_leaves_nothing(tmp_path, name, data, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [part for folder in data for part in ("--data", folder)]
    result = run_client("init", tmp_path / "home", "--name", name, *options)
    assert isinstance(result.exception, SetupError)
    assert words in str(result.exception)
    assert not (tmp_path / "home").exists()


def test_several_data_sets_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    options = ["--data", "old=x", "--data", "new=."]
    ok(run_client("init", tmp_path / "home", "--name", "a", *options))
    site = load_site_settings(SiteHome(tmp_path / "home")).site()
    assert site.cohorts == (("old", tmp_path / "x"), ("new", tmp_path))


def test_init_writes_the_request_with_its_contact_and_keeps_it(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    words = ("init", tmp_path / "a", "--name", "a", "--data", data)
    first = ok(run_client(*words, "--contact", "Dr. A"))
    request = read_request(tmp_path / "a" / "request.json")
    assert request.contact == "Dr. A"
    assert f"fingerprint: {request.fingerprint()}" in first.output
    assert "the request was kept" in ok(run_client(*words)).output
    assert read_request(tmp_path / "a" / "request.json") == request
    ok(run_client("enroll", "--home", tmp_path / "a"))
    again = read_request(tmp_path / "a" / "request.json")
    assert again.contact == "Dr. A"
    assert again.signature != request.signature


@pytest.mark.parametrize(
    ("contact", "words"),
    [("\x1b[0m", "contains unprintable characters"), ("x" * 201, "200 characters at most")],
)
def test_a_contact_that_cannot_be_shown_is_refused_in_one_line(site, contact, words):
    result = run_client("enroll", "--home", site.path, "--contact", contact)
    assert isinstance(result.exception, SetupError)
    assert str(result.exception).startswith("request: contact: ")
    assert words in str(result.exception)


@pytest.mark.parametrize("said", ["Dr. B, 123\n", "\n"])
def test_whom_to_phone_is_asked_of_a_person_at_a_terminal(tmp_path, said):
    """Both commands that make a home ask; what is typed is in what the other side gets."""
    (tmp_path / "data").mkdir()
    made = {
        "client": f"init {tmp_path}/a --name a --data {tmp_path}/data",
        "server": f"init {tmp_path}/b --name Fed --host localhost",
    }
    for role, words in made.items():
        shown = _at_a_terminal([f"mamfed-{role}", *words.split()], said)
        assert "to compare fingerprints? (name, number)" in shown
        assert ("warning: no --contact" in shown) == (said == "\n")
    assert read_request(tmp_path / "a" / "request.json").contact == said.strip()
    settings = load_settings(ServerHome(tmp_path / "b"))
    assert settings.contact == said.strip()


def _at_a_terminal(words, typed):
    """Run a command whose stdin is a terminal; return what it wrote."""
    ours, its = pty.openpty()
    program = Path(sys.executable).parent / words[0]
    os.write(ours, typed.encode())
    done = subprocess.run(
        [program, *words[1:]], stdin=its, capture_output=True, text=True, check=True
    )
    os.close(ours)
    os.close(its)
    return done.stdout + done.stderr


def test_join_says_whom_to_phone_where_no_contact_is_given(site, welcome, tmp_path):
    path = tmp_path / "w.json"
    write_document(path, welcome.model_copy(update={"contact": ""}))
    said = run_client("join", path, "--home", site.path, "--yes").output
    assert "contact: none given; call a number that you already know" in said


def test_enroll_shows_the_fingerprint_of_the_file_that_it_writes(site):
    result = ok(run_client("enroll", "--home", site.path, "--contact", "Dr. A"))
    request = read_request(site.request)
    check_request(request)
    assert f"fingerprint: {request.fingerprint()}" in result.output
    assert request.contact == "Dr. A"


def test_enroll_again_keeps_the_keys_and_new_keys_sets_them_aside(site):
    ok(run_client("enroll", "--home", site.path))
    first, key = read_request(site.request), site.node_key.read_bytes()
    ok(run_client("enroll", "--home", site.path))
    assert read_request(site.request).fingerprint() == first.fingerprint()
    for number in (1, 2):
        ok(run_client("enroll", "--home", site.path, "--new-keys"))
        assert (site.path / f"keys.old-{number}" / "node.key").exists()
    assert (site.path / "keys.old-1" / "node.key").read_bytes() == key
    assert read_request(site.request).fingerprint() != first.fingerprint()
    check_request(read_request(site.request))


def test_enroll_refuses_loose_keys(site):
    before = site.request.read_bytes()
    site.tls_key.chmod(0o644)
    result = run_client("enroll", "--home", site.path)
    assert isinstance(result.exception, SetupError)
    assert f"chmod 600 {site.tls_key}" in str(result.exception)
    assert site.request.read_bytes() == before


def _join(site, welcome, *options, **settings):
    path = site.path / "incoming.json"
    write_document(path, welcome)
    return run_client("join", path, "--home", site.path, *options, **settings)


def test_join_shows_what_to_compare_and_takes_no_for_an_answer(site, welcome):
    result = _join(site, welcome, input="n\n")
    assert result.exit_code == 1
    assert welcome.fingerprint() in result.output
    assert not site.welcome.exists()
    assert not site.certificate.exists()
    ok(_join(site, welcome, input="y\n"))
    assert identity.load_welcome(site) == welcome
    assert site.certificate.read_text() == welcome.certificate
    assert site.ca.read_text() == welcome.ca_certificate


def test_the_fingerprint_that_is_compared_covers_address_authority_and_plan_key(
    tmp_path, welcome, request_
):
    elsewhere = welcome.model_copy(update={"server": "evil.example:9443"})
    other = approve(new_coordinator(tmp_path / "other"), request_)
    authority = welcome.model_copy(update={"ca_certificate": other.ca_certificate})
    plan_key = welcome.model_copy(update={"plan_key": other.plan_key})
    shown = {each.fingerprint() for each in (welcome, elsewhere, authority, plan_key)}
    assert len(shown) == 4


def test_join_with_a_plan_goes_on_to_its_checks(site, welcome, tmp_path, tiny_plan):
    plan = tmp_path / "plan.yaml"
    result = _join(site, welcome, "--yes", "--plan", plan)
    assert result.exit_code != 0, "no such plan"
    assert not site.welcome.exists(), "nothing is installed before the plan is read"
    plan.write_text(tiny_plan.to_yaml())
    result = _join(site, welcome, "--yes", "--plan", plan)
    assert "certificate: " in result.output
    assert "warn  server: nothing answers at " in result.output
    assert isinstance(result.exception, SetupError)
    assert "this site cannot take part yet: " in str(result.exception)
    assert identity.load_welcome(site) == welcome, "it has joined nevertheless"


def test_a_renewal_by_the_same_authority_asks_nothing(coordinator, site, request_, welcome):
    ok(_join(site, welcome, "--yes"))
    inode = site.certificate.stat().st_ino
    renewed = approve(coordinator, request_)
    result = ok(_join(site, renewed, input=""))
    assert "already trusts" in result.output
    assert site.certificate.read_text() == renewed.certificate != welcome.certificate
    assert site.certificate.stat().st_ino != inode, "replaced whole, never rewritten in place"


def test_another_authority_is_asked_about_again(tmp_path, site, request_, welcome):
    ok(_join(site, welcome, "--yes"))
    other = approve(new_coordinator(tmp_path / "other"), request_)
    result = _join(site, other, input="n\n")
    assert "trusts another authority and another plan key so far" in result.output
    assert identity.load_welcome(site) == welcome


def test_another_address_of_the_same_authority_is_asked_about(site, welcome):
    ok(_join(site, welcome, "--yes"))
    elsewhere = welcome.model_copy(update={"server": "evil.example.org:9443"})
    result = _join(site, elsewhere, input="n\n")
    assert result.exit_code == 1
    assert "trusts another address so far" in result.output
    assert identity.load_welcome(site) == welcome


def test_a_damaged_welcome_at_home_does_not_stop_a_new_one(site, welcome):
    site.welcome.write_text("{")
    ok(_join(site, welcome, input="y\n"))
    assert identity.load_welcome(site) == welcome


def test_a_welcome_of_another_site_is_not_joined(tmp_path, coordinator, site):
    other = new_site(tmp_path / "b", "b")
    welcome = approve(coordinator, identity.build_request(other, "b"))
    result = _join(site, welcome, "--yes")
    assert isinstance(result.exception, SetupError)
    assert "for b, but site.yaml calls this site a" in str(result.exception)
    assert not site.welcome.exists()


def test_a_welcome_for_the_keys_of_before_is_not_joined(site, welcome):
    identity.replace_keys(site)
    result = _join(site, welcome, "--yes")
    assert "send the newest request.json" in str(result.exception)
