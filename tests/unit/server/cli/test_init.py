"""``mamfed-server init`` and ``sites rotate``, as a person runs them."""

import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from mamfed_common.errors import SetupError
from mamfed_common.plan import read_plan
from mamfed_server.admission.certificate_authority import load_server_certificate
from mamfed_server.cli.main import app
from mamfed_server.settings import ServerHome, load_settings


def _init(path, *options):
    arguments = ["init", str(path), "--name", "North", "--host", "localhost", *options]
    return CliRunner().invoke(app, arguments)


def _is_verified(*arguments):
    return subprocess.run(["openssl", "verify", *arguments], capture_output=True).returncode == 0


def test_init_again_makes_no_new_authority_and_no_new_keys(tmp_path):
    assert _init(tmp_path / "c").exit_code == 0
    home = ServerHome(tmp_path / "c")
    home.settings_path.write_text(home.settings_path.read_text() + "# mine\n")
    files = [path for path in home.path.rglob("[!.]*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    result = _init(tmp_path / "c", "--port", "1234")
    assert result.exit_code == 0
    assert {path: path.read_bytes() for path in files} == before
    assert len(before) == 8
    assert "authority: kept" in result.output
    assert "was kept and differs from these options" in result.output


def test_init_says_what_to_read_over_the_phone_and_when_things_end(tmp_path):
    output = _init(tmp_path / "c").output
    year = datetime.now(UTC).year
    assert f"authority valid until: {year + 10}" in output
    end = load_server_certificate(ServerHome(tmp_path / "c")).not_valid_after_utc
    assert f"server certificate valid until: {end:%Y-%m-%d}" in output
    assert "fingerprint of address, authority and plan key: " in output


def test_init_leaves_a_plan_to_edit_and_never_writes_over_it(tmp_path):
    _init(tmp_path / "c")
    plan = tmp_path / "c" / "plan.yaml"
    assert read_plan(plan).federation.min_sites == 3
    plan.write_text("seed: 7\n")
    assert "plan.yaml: kept" in _init(tmp_path / "c").output
    assert plan.read_text() == "seed: 7\n"


def test_init_after_a_kill_makes_what_is_missing(tmp_path):
    _init(tmp_path / "c")
    home = ServerHome(tmp_path / "c")
    key = home.ca_key.read_bytes()
    for path in (home.ca, home.server_certificate, home.plan_public_key, home.settings_path):
        path.unlink()
    assert _init(tmp_path / "c").exit_code == 0
    assert home.ca_key.read_bytes() == key
    assert _is_verified("-CAfile", home.ca, home.server_certificate)
    load_settings(home)


def _init_without_host(path, monkeypatch, own_name):
    monkeypatch.setattr("socket.getfqdn", lambda: own_name)
    return CliRunner().invoke(app, ["init", str(path), "--name", "North"])


def test_without_a_host_it_is_this_machine_s_full_name_and_init_says_so(tmp_path, monkeypatch):
    output = _init_without_host(tmp_path / "c", monkeypatch, "FL.clinic.example.").output
    assert "sites reach this server at: fl.clinic.example, port 9443" in output
    assert load_settings(ServerHome(tmp_path / "c")).hosts == ("fl.clinic.example",)


@pytest.mark.parametrize(
    "own_name",
    ["localhost", "localhost.localdomain", "fl", "10.0.0.3", "1.0.0.127.in-addr.arpa", "fl.local"],
)
def test_a_name_that_no_other_machine_knows_is_no_host(tmp_path, monkeypatch, own_name):
    result = _init_without_host(tmp_path / "c", monkeypatch, own_name)
    assert result.exit_code == 2
    assert "--host" in result.output
    assert not (tmp_path / "c").exists()


def test_init_again_without_a_host_keeps_the_one_there_is(tmp_path, monkeypatch):
    _init(tmp_path / "c")
    output = _init_without_host(tmp_path / "c", monkeypatch, "fl.clinic.example").output
    assert "sites reach this server at: localhost, port 9443" in output
    assert "differs from these options" not in output


@pytest.mark.parametrize("name", ["ca_key", "plan_key"])
def test_init_does_not_replace_a_lost_key_that_sites_trust(tmp_path, name):
    _init(tmp_path / "c")
    getattr(ServerHome(tmp_path / "c"), name).unlink()
    result = _init(tmp_path / "c")
    assert isinstance(result.exception, SetupError)
    assert not getattr(ServerHome(tmp_path / "c"), name).exists()


def test_init_of_another_federation_in_the_same_home_is_refused(tmp_path):
    _init(tmp_path / "c")
    arguments = ["init", str(tmp_path / "c"), "--name", "South", "--host", "localhost"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SetupError)
    assert "belongs to another federation than 'South'" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "fl.example.org:9443"], "without port"),
        (["--host", "https://x"], "expected a host name"),
        (["--host", ""], "expected a host name"),
        (["--host", "-x"], "expected a host name"),
        (["--port", "0"], "port: found 0"),
        (["--bind", "localhost"], "expected an IP address of this machine"),
        (["--contact", "\x1b[0m"], "unprintable characters"),
    ],
)
def test_init_refuses_wrong_options_and_leaves_nothing(tmp_path, options, words):
    result = _init(tmp_path / "c", *options)
    assert isinstance(result.exception, SetupError)
    assert words in str(result.exception)
    assert not (tmp_path / "c").exists()


def test_the_settings_that_init_writes_are_those_asked_for(tmp_path):
    _init(tmp_path / "c", "--host", "::1", "--bind", "127.0.0.1", "--contact", "Dr. Ü: #1")
    settings = load_settings(ServerHome(tmp_path / "c"))
    assert settings.hosts == ("localhost", "::1")
    assert (settings.name, settings.contact) == ("North", "Dr. Ü: #1")
    assert (settings.bind, settings.port, settings.max_body_mib) == ("127.0.0.1", 9443, 8)
    assert settings.address() == "localhost:9443"
    swapped = settings.model_copy(update={"hosts": ("::1",)})
    assert swapped.address() == "[::1]:9443"


def test_rotate_renews_the_server_certificate_alone(tmp_path):
    _init(tmp_path / "c")
    home = ServerHome(tmp_path / "c")
    kept = [home.ca, home.ca_key, home.server_key, home.plan_key]
    before = [path.read_bytes() for path in kept]
    serial = load_server_certificate(home).serial_number
    text = home.settings_path.read_text().replace("hosts: [localhost]", "hosts: [localhost, new]")
    home.settings_path.write_text(text)
    result = CliRunner().invoke(app, ["sites", "rotate", "--home", str(home.path), "--days", "7"])
    assert result.exit_code == 0, result.output
    assert [path.read_bytes() for path in kept] == before
    renewed = load_server_certificate(home)
    assert renewed.serial_number != serial
    left = renewed.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=6) < left <= timedelta(days=7)
    hostname = "-verify_hostname", "new"
    assert _is_verified("-CAfile", home.ca, *hostname, home.server_certificate)
