import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.unit.server.homes import new_coordinator, new_site, node_of, request_of
from typer.testing import CliRunner

from mamfed_client.site import identity
from mamfed_common.errors import LinkError, SetupError
from mamfed_common.security.certificates import parse_certificate
from mamfed_common.security.enrolment import write_document
from mamfed_server.admission.approval import Approval, approve, consider, revoke
from mamfed_server.admission.certificate_authority import issue_site
from mamfed_server.admission.registry import Registry, load_sites, save_site

runner = CliRunner()


@pytest.fixture
def home(tmp_path):
    return new_coordinator(tmp_path / "coordinator")


@pytest.fixture
def site(tmp_path):
    return new_site(tmp_path / "a")


def _der(pem):
    return parse_certificate(pem, "test").public_bytes(Encoding.DER)


def _registry(home):
    return Registry(home, every_seconds=0)


# Approval


def test_an_approved_site_is_known_by_its_node_key_and_serial(home, site):
    welcome = approve(home, request_of(site, contact="Dr. A"))
    entry = load_sites(home)["a"]
    serial = parse_certificate(welcome.certificate, "test").serial_number
    assert [int(c.serial, 16) for c in entry.certificates] == [serial]
    assert (entry.node_fingerprint, entry.status, entry.contact) == (
        node_of(site),
        "active",
        "Dr. A",
    )
    assert stat.S_IMODE((home.sites / "a.json").stat().st_mode) == 0o600


def test_a_second_request_with_the_same_key_renews_and_both_certificates_hold(home, site):
    first = approve(home, request_of(site, contact="Dr. A"))
    assert consider(home, request_of(site)) is Approval.RENEWAL
    second = approve(home, request_of(site))
    entry = load_sites(home)["a"]
    assert len(entry.certificates) == 2
    assert entry.contact == "Dr. A"
    for welcome in (first, second):
        assert _registry(home).check(_der(welcome.certificate), node_of(site)) == entry


def test_expired_certificates_are_dropped_at_a_renewal(home, site):
    approve(home, request_of(site))
    entry = load_sites(home)["a"]
    ended = datetime.now(UTC) - timedelta(seconds=1)
    old = entry.certificates[0].model_copy(update={"not_after": ended, "serial": "1"})
    save_site(home, entry.model_copy(update={"certificates": (old, *entry.certificates)}))
    approve(home, request_of(site))
    assert "1" not in [c.serial for c in load_sites(home)["a"].certificates]


def test_another_key_needs_replace_and_shuts_the_old_one_out(home, site, tmp_path):
    old = approve(home, request_of(site))
    old_node = node_of(site)
    identity.replace_keys(site)
    with pytest.raises(SetupError, match="known with a different key"):
        approve(home, request_of(site))
    assert consider(home, request_of(site), replace=True) is Approval.REPLACEMENT
    new = approve(home, request_of(site), replace=True)
    registry = _registry(home)
    assert registry.check(_der(new.certificate), node_of(site)).replaced == (old_node,)
    with pytest.raises(LinkError, match="belongs to another node key"):
        registry.check(_der(old.certificate), old_node)


def test_a_replaced_or_revoked_key_never_comes_back(home, site, tmp_path):
    approve(home, request_of(site))
    old = request_of(site)
    identity.replace_keys(site)
    approve(home, request_of(site), replace=True)
    revoke(home, "a")
    for request in (old, request_of(site)):
        with pytest.raises(SetupError, match="cannot be used again"):
            approve(home, request, replace=True)
    other = request_of(new_site(tmp_path / "new"))
    approve(home, other, replace=True)
    assert load_sites(home)["a"].status == "active"


def test_a_node_key_belongs_to_one_site(home, site):
    approve(home, request_of(site))
    with pytest.raises(SetupError, match="its node key is that of a;"):
        approve(home, request_of(site, "b"))


def test_names_that_differ_in_capitals_only_are_refused(home, site, tmp_path):
    approve(home, request_of(site))
    with pytest.raises(SetupError, match="names must differ in more than case"):
        approve(home, request_of(new_site(tmp_path / "b"), "A"))


def test_a_request_that_does_not_hold_is_not_approved(home, site):
    for step in (consider, approve):
        with pytest.raises(SetupError, match="altered after it was signed"):
            step(home, request_of(site).model_copy(update={"contact": "x"}))
    assert load_sites(home) == {}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("mamfed_version", "99.1.0", "mamfed 99.1.0"), ("flower_version", "1.40.0", "Flower 1.40.0")],
)
def test_a_site_of_another_version_is_refused(home, site, monkeypatch, field, value, words):
    # Signed by the site itself, so that nothing but the version is wrong.
    name = "__version__" if field == "mamfed_version" else "flower_version"
    monkeypatch.setattr(identity, name, value if name == "__version__" else lambda: value)
    with pytest.raises(SetupError, match=words):
        approve(home, request_of(site))


def test_revoking_needs_a_site_that_is_not_revoked(home, site):
    approve(home, request_of(site))
    revoke(home, "a")
    with pytest.raises(SetupError, match="already revoked, on "):
        revoke(home, "a")
    with pytest.raises(SetupError, match="no such site; list"):
        revoke(home, "b")
    with pytest.raises(SetupError, match="no such site, did you mean 'a'"):
        revoke(home, "aa")


# Registry


def test_a_site_is_let_in_with_its_certificate_and_key(home, site):
    welcome = approve(home, request_of(site))
    assert _registry(home).check(_der(welcome.certificate), node_of(site)).site == "a"
    assert _registry(home).check(_der(welcome.certificate), None).site == "a"


def test_a_certificate_with_another_sites_key_is_refused_and_the_reverse(home, site, tmp_path):
    other = new_site(tmp_path / "b")
    mine = approve(home, request_of(site))
    theirs = approve(home, request_of(other, "b"))
    for welcome, key in [(mine, other), (theirs, site)]:
        with pytest.raises(LinkError, match="belongs to another node key"):
            _registry(home).check(_der(welcome.certificate), node_of(key))
    with pytest.raises(LinkError, match="belongs to another node key"):
        _registry(home).check(_der(mine.certificate), "0" * 64)


def test_a_certificate_that_names_another_key_is_refused(home, site, tmp_path):
    """The authority's own certificate, but for keys that were never approved."""
    approve(home, request_of(site))
    pem = issue_site(home, request_of(new_site(tmp_path / "x"))).decode()
    for node in (None, node_of(site)):
        with pytest.raises(LinkError, match="belongs to another node key"):
            _registry(home).check(_der(pem), node)


def test_an_unknown_site_is_refused(home, site):
    pem = issue_site(home, request_of(site)).decode()
    with pytest.raises(LinkError, match="certificate of a is not of this federation"):
        _registry(home).check(_der(pem), node_of(site))


def test_an_unknown_serial_number_is_refused(home, site):
    approve(home, request_of(site))
    pem = issue_site(home, request_of(site)).decode()
    with pytest.raises(LinkError, match="serial number that is unknown"):
        _registry(home).check(_der(pem), node_of(site))


def test_what_is_no_site_certificate_is_refused(home):
    der = x509.load_pem_x509_certificate(home.server_certificate.read_bytes())
    for content in (der.public_bytes(Encoding.DER), b"", b"\x30\x00", os.urandom(64)):
        with pytest.raises(LinkError, match="not one of a mamfed site"):
            _registry(home).check(content, None)


def test_a_revocation_and_a_removal_bite_while_the_registry_is_open(home, site, tmp_path):
    der = _der(approve(home, request_of(site)).certificate)
    registry = _registry(home)
    registry.check(der, node_of(site))
    revoke(home, "a")
    with pytest.raises(LinkError, match="certificate of a is revoked"):
        registry.check(der, node_of(site))
    (home.sites / "a.json").unlink()
    with pytest.raises(LinkError, match="not of this federation"):
        registry.check(der, node_of(site))


def test_a_site_approved_by_another_process_is_seen(home, site, tmp_path):
    registry = _registry(home)
    assert registry.entries() == {}
    write_document(tmp_path / "r.json", request_of(site))
    code = "from mamfed_server.cli.main import main; main()"
    arguments = ["sites", "approve", str(tmp_path / "r.json"), "--home", str(home.path), "--yes"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    assert list(registry.entries()) == ["a"]


def test_the_folder_is_looked_at_once_in_a_while_only(home, site):
    registry = Registry(home, every_seconds=0.2)
    assert registry.entries() == {}
    approve(home, request_of(site))
    assert registry.entries() == {}
    until = time.monotonic() + 5
    while not registry.entries() and time.monotonic() < until:
        time.sleep(0.02)
    assert list(registry.entries()) == ["a"]


def test_a_damaged_file_shuts_out_its_site_alone(home, site, tmp_path):
    mine = approve(home, request_of(site))
    other = new_site(tmp_path / "b")
    theirs = approve(home, request_of(other, "b"))
    (home.sites / "a.json").write_text("{")
    registry = _registry(home)
    with pytest.raises(LinkError, match="not of this federation"):
        registry.check(_der(mine.certificate), node_of(site))
    assert registry.check(_der(theirs.certificate), node_of(other)).site == "b"
    with pytest.raises(SetupError, match=r"a\.json: not valid JSON"):
        load_sites(home)


def test_a_file_under_another_name_is_refused(home, site):
    approve(home, request_of(site))
    shutil.move(home.sites / "a.json", home.sites / "b.json")
    with pytest.raises(SetupError, match="contains site a"):
        load_sites(home)
    assert _registry(home).entries() == {}


def test_threads_may_share_a_registry(home, site):
    der = _der(approve(home, request_of(site)).certificate)
    registry, failures = _registry(home), []

    def ask():
        for _ in range(50):
            try:
                registry.check(der, _node_fingerprint)
            except Exception as error:
                failures.append(error)

    _node_fingerprint = node_of(site)
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        save_site(home, load_sites(home)["a"])
    for thread in threads:
        thread.join()
    assert failures == []
