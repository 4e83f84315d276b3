"""The ledger of what differential privacy has spent, and its epsilon against opacus' own."""

import os
import signal
import stat
import subprocess
import sys
import warnings

import pytest

import mamfed_client.disclosure.spent_by_log as module
from mamfed_client.disclosure.audit_log import AuditLog
from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.disclosure.privacy_ledger import Charge, PatientBudget, PrivacyLedger, epsilon
from mamfed_client.disclosure.spent_by_log import spent_by_log
from mamfed_client.site.policy import PatientPrivacy
from mamfed_common.errors import AuditError, MamfedError, SetupError
from mamfed_common.protocol.tasks import RefusalCode
from nursery import BORN_CODE

accountants = pytest.importorskip("opacus.accountants")
RULE = PatientPrivacy(noise_multiplier=1.0, max_epsilon=8)
CHARGE = Charge(noise_multiplier=1.0, sample_rate=0.02, steps=100)
A, B = "a" * 64, "b" * 64


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger(tmp_path / "privacy.json")


def quiet(accountant, **values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return accountant.get_epsilon(**values)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(0.8, 0.008, 6000), (1.0, 0.05, 400), (2.0, 0.3, 50), (1.1, 1, 20)]
)
def test_epsilon_is_opacus_own_within_one_percent(noise, rate, steps):
    ours = epsilon((Charge(noise_multiplier=noise, sample_rate=rate, steps=steps),), 1e-5)
    step_by_step = accountants.RDPAccountant()
    for _ in range(steps):
        step_by_step.step(noise_multiplier=noise, sample_rate=rate)
    assert ours == pytest.approx(quiet(step_by_step, delta=1e-5), rel=0.01)
    numeric = accountants.PRVAccountant()
    numeric.history = [(noise, rate, steps)]
    assert quiet(numeric, delta=1e-5) <= ours * 1.01, "an upper bound"


def test_unlike_rounds_add_up_as_opacus_adds_them(ledger):
    charges = [CHARGE, CHARGE.model_copy(update={"sample_rate": 0.1, "steps": 30}), CHARGE]
    theirs = accountants.RDPAccountant()
    for number, charge in enumerate(charges):
        ledger.begin(f"{number}" * 64, charge, RULE)
        ledger.end(charge)
        for _ in range(charge.steps):
            theirs.step(noise_multiplier=1.0, sample_rate=charge.sample_rate)
    assert [c.steps for c in ledger.charges()] == [200, 30]
    spent = PatientBudget(RULE, ledger).spent()
    assert spent.epsilon == pytest.approx(quiet(theirs, delta=1e-5), rel=0.01)
    assert spent.epsilon >= quiet(theirs, delta=1e-5) - 1e-9, "rounded up"
    assert spent.delta == 1e-5


def test_the_file_is_private(ledger):
    ledger.begin(A, CHARGE, RULE)
    assert stat.S_IMODE(os.stat(ledger.path).st_mode) == 0o600


def test_a_round_that_goes_on_keeps_its_secret_and_costs_nothing_more(ledger):
    secret = ledger.begin(A, CHARGE, RULE)
    assert PrivacyLedger(ledger.path).begin(A, CHARGE, RULE) == secret
    assert ledger.charges() == (CHARGE,)


def test_the_same_round_anew_costs_again_and_has_another_secret(ledger):
    secret = ledger.begin(A, CHARGE, RULE)
    ledger.end(CHARGE)
    assert secret.hex() not in ledger.path.read_text()
    assert ledger.begin(A, CHARGE, RULE) != secret
    assert ledger.charges()[0].steps == 200


def test_another_round_replaces_one_that_was_given_up_but_not_its_charge(ledger):
    first = ledger.begin(A, CHARGE, RULE)
    assert ledger.begin(B, CHARGE, RULE) != first
    assert ledger.begin(A, CHARGE, RULE) != first
    assert ledger.charges()[0].steps == 300


def test_what_would_exceed_the_policy_is_refused_and_not_charged(ledger):
    ledger.begin(A, CHARGE, RULE)
    ledger.end(CHARGE)
    more = CHARGE.model_copy(update={"steps": 10**6})
    with pytest.raises(PolicyRefusal, match="max_epsilon allows at most 8") as refusal:
        ledger.begin(B, more, RULE)
    assert refusal.value.fault is RefusalCode.PRIVACY_SPENT
    assert ledger.charges() == (CHARGE,)
    ledger.begin(B, CHARGE, RULE)


def test_a_lower_limit_stops_a_round_in_training(ledger):
    ledger.begin(A, CHARGE, RULE)
    with pytest.raises(PolicyRefusal):
        ledger.begin(A, CHARGE, RULE.model_copy(update={"max_epsilon": 0.1}))


@pytest.mark.parametrize("change", [lambda t: t[: len(t) // 2], lambda t: t.replace("100", "1", 1)])
def test_a_damaged_ledger_stops_training_rather_than_start_anew(ledger, change):
    ledger.begin(A, CHARGE, RULE)
    ledger.path.write_text(change(ledger.path.read_text()))
    with pytest.raises(SetupError, match=r"privacy\.json: damaged; expected the ledger"):
        ledger.begin(B, CHARGE, RULE)


def test_a_ledger_that_shrinks_under_its_process_is_refused(ledger):
    ledger.begin(A, CHARGE, RULE)
    older = ledger.path.read_bytes()
    ledger.begin(B, CHARGE, RULE)
    ledger.path.write_bytes(older)
    with pytest.raises(SetupError, match="was removed, or replaced by an older copy"):
        ledger.begin(A, CHARGE, RULE)
    ledger.path.unlink()
    for look in (ledger.charges, PatientBudget(RULE, ledger).spent):
        with pytest.raises(SetupError, match="was removed"):
            look()
    assert not ledger.path.exists()


def test_a_round_that_was_never_charged_cannot_end(ledger):
    with pytest.raises(SetupError, match="a round that was trained is missing"):
        ledger.end(CHARGE)
    ledger.begin(A, CHARGE.model_copy(update={"sample_rate": 0.1}), RULE)
    with pytest.raises(SetupError, match="a round that was trained is missing"):
        ledger.end(CHARGE)


def test_a_ledger_covers_what_was_reported_of_it_at_any_delta(ledger):
    ledger.check_covers(None)
    ledger.begin(A, CHARGE, RULE)
    reported = PatientBudget(RULE, ledger).spent()
    for delta in (1e-5, 1e-7):
        rule = RULE.model_copy(update={"delta": delta})
        ledger.check_covers(PatientBudget(rule, ledger).spent())
    with pytest.raises(SetupError, match="removed or is an older copy"):
        ledger.check_covers(reported.model_copy(update={"epsilon": reported.epsilon * 1.01}))


def test_the_log_names_the_last_spending_behind_many_other_lines(tmp_path, monkeypatch):
    path, spent = tmp_path / "audit.jsonl", {"epsilon": 2.5, "delta": 1e-05}
    assert spent_by_log(path) is None
    log = AuditLog(path)
    log.append("train", round=1, values={"loss": 0.5})
    assert spent_by_log(path) is None
    for epsilon_then in (1.5, 2.5):
        log.append("train", round=2, values={"privacy": {**spent, "epsilon": epsilon_then}})
    for number in range(40):
        log.append("evaluate", round=number, values={"dice": 0.5})
    log.append("fault", values={"fault": 2, "note": '"privacy":{'})
    for block in (1 << 20, 600):  # in one piece, and in many
        monkeypatch.setattr(module, "MAX_LINE", block)
        assert spent_by_log(path).model_dump() == spent
    monkeypatch.setattr(module, "MAX_LINE", 100)
    with pytest.raises(AuditError, match="longer than 100 bytes"):
        spent_by_log(path)


def test_without_opacus_one_line_says_how_to_install_it(ledger, not_installed):
    not_installed("opacus")
    with pytest.raises(MamfedError, match=r"this needs opacus: .*\[privacy\]"):
        ledger.begin(A, CHARGE, RULE)


def test_a_charge_survives_a_kill(ledger):
    """A process dies between the charge and the first step: the round stays charged."""
    code = BORN_CODE + (
        "import os, signal, sys; from pathlib import Path\n"
        "from mamfed_client.disclosure.privacy_ledger import Charge, PrivacyLedger\n"
        "from mamfed_client.site.policy import PatientPrivacy\n"
        "ledger = PrivacyLedger(Path(sys.argv[1]))\n"
        "rule = PatientPrivacy(noise_multiplier=1.0, max_epsilon=8)\n"
        "charge = Charge(noise_multiplier=1.0, sample_rate=0.02, steps=100)\n"
        "print(ledger.begin('a' * 64, charge, rule).hex(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ledger.path], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ledger.charges() == (CHARGE,)
    assert ledger.begin(A, CHARGE, RULE).hex() == done.stdout.strip()
    assert ledger.charges() == (CHARGE,)
