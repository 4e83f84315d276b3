"""A log that is rewritten as a whole does not verify: site and coordinator sign it."""

import json
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.client.guarded import ALL, write_policy, write_welcome
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_client.disclosure.audit_log import AuditLog, head_path_of, read_head
from mamfed_client.disclosure.audit_proofs import AuditKeys
from mamfed_client.disclosure.audit_report import verify, vouched
from mamfed_client.disclosure.countersignatures import Countersignatures, seals_path_of
from mamfed_client.disclosure.gate import open_gate
from mamfed_client.site.settings import SiteHome
from mamfed_common.errors import AuditError
from mamfed_common.protocol.tasks import RefusalCode
from mamfed_common.protocol.versions import AUDIT_SEAL_HEADER
from mamfed_common.runtime.files import private_directory
from mamfed_common.security.audit_seal import AuditSeal
from mamfed_common.security.keys import new_ec_key, write_key
from mamfed_server.fleet.countersigning import Countersigner

COORDINATOR, SITE = Ed25519PrivateKey.generate(), new_ec_key()
KEYS = AuditKeys(SITE.public_key(), (COORDINATOR.public_key(),))
FACTS = {"to": "fed", "policy_sha256": "b" * 64, "plan_sha256": "a" * 64}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def rewritten():
    return []


@pytest.fixture
def coordinator(tmp_path, rewritten):
    return Countersigner(tmp_path / "heads.json", COORDINATOR, rewritten.append)


def write(path, *numbers, key=SITE):
    for number in numbers:
        AuditLog(path, key).append("train", **FACTS, round=number, bytes=9)


def exchange(path, coordinator):
    """What one request of a node and its answer do."""
    seals = Countersignatures(path, "here", lambda: KEYS.coordinator)
    head = seals.header()
    for name, value in coordinator.headers("here", (head or "").encode()):
        assert name.decode() == AUDIT_SEAL_HEADER
        seals.keep(value.decode())
    return head


def forget(path):
    path.unlink()
    head_path_of(path).unlink()


def test_each_head_is_countersigned_once_and_verify_says_which(path, coordinator):
    assert exchange(path, coordinator) is None, "nothing has left"
    write(path, 1)
    assert exchange(path, coordinator).startswith("1 ")
    assert exchange(path, coordinator) is None
    write(path, 2, 3)
    exchange(path, coordinator)
    write(path, 4)
    summary = verify(path, KEYS)
    assert summary.proofs.signed == 4
    assert [head.count for head in summary.proofs.countersigned] == [1, 3]
    assert "signed 4 of 4 lines; the coordinator countersigned 2 heads, the last at line 3" in (
        vouched(summary)
    )
    assert seals_path_of(path).stat().st_mode & 0o777 == 0o600


def test_a_log_rewritten_with_the_site_s_own_key_is_found_out(path, coordinator, rewritten):
    write(path, 1, 2, 3)
    exchange(path, coordinator)
    forget(path)
    write(path, 1, 9, 3)
    with pytest.raises(AuditError, match="countersigned another line 3"):
        verify(path, KEYS)
    forget(path)
    write(path, 1)
    with pytest.raises(AuditError, match="was rewritten"):
        verify(path, KEYS)
    seals_path_of(path).unlink()
    assert verify(path, KEYS).proofs.countersigned == ()
    # The coordinator remembers, and does not sign what contradicts it.
    for _ in range(3):
        exchange(path, coordinator)
    assert verify(path, KEYS).proofs.countersigned == ()
    assert rewritten == ["here"]
    write(path, 2, 3, 4)
    exchange(path, coordinator)
    assert [head.count for head in verify(path, KEYS).proofs.countersigned] == [4]


def test_a_line_of_another_key_or_of_none_is_found_out(path):
    write(path, 1, 2)
    write(path, 3, key=new_ec_key())
    with pytest.raises(AuditError, match="line 3 is not signed by this site"):
        verify(path, KEYS)
    forget(path)
    write(path, 1)
    write(path, 2, key=None)
    with pytest.raises(AuditError, match="line 2 is not signed"):
        verify(path)


@pytest.fixture
def home(tmp_path):
    """The home of a site that has joined."""
    found = SiteHome(tmp_path / "home")
    private_directory(found.keys)
    write_key(found.node_key, SITE, openssh=True)
    write_policy(found, ALL)
    write_welcome(found, COORDINATOR)
    return found


def test_the_gate_of_a_home_signs_each_line_and_audit_verify_checks_it(home):
    open_gate(home).release_code(RefusalCode.FAILED)
    verify_of = partial(CliRunner().invoke, app, ["audit", "verify", "--home", str(home.path)])
    assert "signed 1 of 1 line" in " ".join(verify_of().stdout.split())
    write(home.audit, 2, key=new_ec_key())
    error = verify_of().exception
    assert isinstance(error, AuditError)
    assert "line 2 is not signed by this site's key" in str(error)


def test_audit_verify_knows_the_coordinator_of_its_home(home, coordinator):
    write(home.audit, 1, 2)
    exchange(home.audit, coordinator)
    forget(home.audit)
    write(home.audit, 1, 9)
    error = CliRunner().invoke(app, ["audit", "verify", "--home", str(home.path)]).exception
    assert isinstance(error, AuditError)
    assert "countersigned another line 2" in str(error)


def test_lines_of_older_versions_are_unsigned_and_stay_valid(path):
    write(path, 1, 2, key=None)
    assert verify(path, KEYS).proofs.signed == 0
    write(path, 3)
    assert verify(path, KEYS).proofs.signed == 1
    edited = path.read_text().replace('"round":3', '"round":4')
    path.write_text(edited)
    with pytest.raises(AuditError, match="line 3 was changed"):
        verify(path, KEYS)


@pytest.mark.parametrize(
    "header",
    ["", "x", "1 2 3 4", "1 " + "a" * 64 + " 2026-01-01T00:00:00Z AAAA", "9" * 400,
     "1 " + "a" * 64 + " now " + "A" * 88, "\u0661 " + "a" * 64 + " 2026-01-01T00:00:00Z AAAA"],
)  # fmt: skip
def test_a_coordinator_that_signs_nonsense_or_nothing_harms_nothing(path, header):
    write(path, 1)
    seals = Countersignatures(path, "here", lambda: KEYS.coordinator)
    seals.keep(header)
    assert not seals_path_of(path).exists()
    assert seals.header() == f"1 {read_head(path).sha256}"


@pytest.mark.parametrize(
    "changed",
    [{"site": "there"}, {"count": 2}, {"sha256": "b" * 64}, {"time": "2026-01-02T00:00:00Z"}],
)
def test_a_seal_is_over_each_of_its_facts(changed):
    facts = {"site": "here", "count": 1, "sha256": "a" * 64, "time": "2026-01-01T00:00:00Z"}
    seal = AuditSeal(**facts).signed_by(COORDINATOR)
    assert seal.is_signed(KEYS.coordinator)
    assert not seal.model_copy(update=changed).is_signed(KEYS.coordinator)


def test_another_site_s_signature_is_not_taken(path, coordinator):
    write(path, 1)
    head = f"1 {read_head(path).sha256}".encode()
    ((_, value),) = coordinator.headers("there", head)
    seals = Countersignatures(path, "here", lambda: KEYS.coordinator)
    seals.keep(value.decode())
    assert not seals_path_of(path).exists()


def test_a_forged_seal_is_counted_and_proves_nothing(path, coordinator):
    write(path, 1)
    exchange(path, coordinator)
    seal = json.loads(seals_path_of(path).read_text())
    seals_path_of(path).write_text(json.dumps({**seal, "signature": "A" * 88}) + "\n")
    proofs = verify(path, KEYS).proofs
    assert (proofs.countersigned, proofs.unknown_seals) == ((), 1)
    seals_path_of(path).write_text("{}\n")
    with pytest.raises(AuditError, match="line 1 was changed"):
        verify(path, KEYS)


@pytest.mark.parametrize("named", [b"", b"0 " + b"a" * 64, b"1 zz", b"1 " + b"A" * 64, b"9" * 99])
def test_what_is_no_head_is_not_signed(coordinator, named):
    assert coordinator.headers("here", named) == []
    assert len(coordinator.headers("here", b"1 " + b"a" * 64)) == 1


def test_heads_survive_a_restart_of_the_coordinator(tmp_path, path, coordinator, rewritten):
    write(path, 1, 2)
    exchange(path, coordinator)
    again = Countersigner(tmp_path / "heads.json", COORDINATOR, rewritten.append)
    head = b"2 " + b"a" * 64
    for _ in range(3):
        assert again.headers("here", head) == []
    assert rewritten == ["here"]
