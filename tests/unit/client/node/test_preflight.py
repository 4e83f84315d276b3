"""The preflight against the coordinator's real listener, on real files: each check both ways."""

import json
import re
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.client.loopback import Coordinator, request_of
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_client.disclosure.active_policy import read_active_policy
from mamfed_client.disclosure.plan_admission import PolicyRefusal, check_plan
from mamfed_client.disclosure.plan_store import Decision, PlanStore
from mamfed_client.node.preflight import FLOWER_HEADER, Preflight, choose_plan
from mamfed_client.node.server_health import HealthReply
from mamfed_client.site.hardware import Hardware
from mamfed_client.site.status import update_status
from mamfed_client.training.devices import train_on
from mamfed_client.training.trial_step import try_step
from mamfed_common import __version__
from mamfed_common.errors import LinkError, SetupError
from mamfed_common.plan import Stage, StagePlan
from mamfed_common.protocol.versions import MAMFED_HEADER, flower_version
from mamfed_common.security.keys import new_ec_key
from mamfed_common.security.signing import sign_plan
from mamfed_server.admission.approval import revoke
from mamfed_server.admission.certificate_authority import issue_server, issue_site

POLICY = {"release": {"arrays": ["*"], "metrics": ["counts", "num_examples"]}}


@pytest.fixture
def coordinator(tmp_path):
    found = Coordinator(tmp_path / "server")
    yield found
    found.close()


@pytest.fixture
def home(coordinator, folder, tmp_path):
    for number in range(3):
        folder.malignant(f"M{number}").benign(f"B{number}")
    settings = {"device": "cpu", "threads": 1, "policy": POLICY, "cache": str(tmp_path / "cache")}
    return coordinator.enrol(tmp_path / "home", data=folder.write(), **settings)


@pytest.fixture
def call(home, tiny_plan, tmp_path):
    plan_path = tmp_path / "plan.yaml"
    plan_path.write_text(tiny_plan.to_yaml())

    def invoke(*options, code=0):
        words = ["preflight", "--home", str(home.path), "--plan", str(plan_path), *options]
        result = CliRunner().invoke(app, [*words, "--format", "json"])
        assert (getattr(result.exception, "exit_code", None) or result.exit_code) == code
        checks = json.loads(result.stdout)["checks"]
        return {check["name"]: (check["outcome"], check["words"]) for check in checks}

    return invoke


def change_settings(home, **values):
    found = yaml.safe_load(home.settings_path.read_text())
    home.settings_path.write_text(yaml.safe_dump(found | values))


def test_a_site_that_is_ready_passes_and_trains_a_step_of_each_stage(call):
    found = call()
    trained = {name: found.pop(name) for name in ("pretraining step", "finetuning step")}
    outcomes = {name: outcome for name, (outcome, _) in found.items()}
    assert outcomes.pop("certificate") == "pass"
    assert set(outcomes.values()) == {"pass"}, found
    assert "pretraining trains on 1 benign image;" in found["data"][1]
    for outcome, words in trained.values():
        assert outcome == "warn"  # a CPU is slow, and it says so
        assert words.startswith("cpu: ")


def test_the_step_is_tried_on_as_many_devices_as_the_site_has(call, home, monkeypatch):
    change_settings(home, devices=2)
    words = [call()[f"{stage} step"][1] for stage in ("pretraining", "finetuning")]
    assert all(said.startswith("2 x cpu: ") for said in words)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    outcome, said = call(code=9)["finetuning step"]
    assert (outcome, "devices: 2 requested" in said) == ("fail", True)


def test_each_thing_that_is_wrong_fails_by_its_name_and_the_others_are_checked_on(
    call, home, coordinator
):
    coordinator.front.stop()
    home.node_key.chmod(0o644)
    change_settings(home, policy={}, data=[{"name": "here", "folder": "/no/such/folder"}])
    found = call("--skip-training", code=9)
    failed = {name for name, (outcome, _) in found.items() if outcome == "fail"}
    assert failed == {"keys", "policy", "data"}
    assert "chmod 600" in found["keys"][1]
    assert "policy.release" in found["policy"][1]
    assert {found[name][0] for name in ("server", "clock", "versions")} == {"warn"}
    assert "finetuning step" not in found


def test_a_server_that_has_not_started_is_a_warning_that_says_so(call, coordinator):
    coordinator.front.stop()
    outcome, words = call("--skip-training")["server"]
    assert outcome == "warn"
    assert words.startswith(
        f"nothing answers at 127.0.0.1:{coordinator.port} yet: the coordinator may not have "
        "started the run"
    )


BOUNDS = {
    "rounds": {"max_rounds": 1},
    "learning_rate": {"max_learning_rate": 1e-5},
    "batch_size": {"max_batch_size": 1},
    "min_sites": {"min_min_sites": 9},
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_plan_outside_a_bound_fails_by_the_bounds_name(call, home, tiny_plan, name):
    (key,) = BOUNDS[name]
    change_settings(home, policy=POLICY | {"bounds": BOUNDS[name]})
    outcome, words = call("--skip-training", code=9)["bounds"]
    assert outcome == "fail"
    assert f"{name} is " in words
    assert f"policy.bounds.{key} allows at " in words
    with pytest.raises(PolicyRefusal, match=re.escape(words)):  # what a message is refused with
        check_bounds_of(home, tiny_plan)


def test_a_plan_within_the_bounds_passes_with_each_bound_named(call):
    outcome, words = call("--skip-training")["bounds"]
    assert outcome == "pass"
    assert "min_sites 3, at least 3" in words
    assert all(name in words for name in BOUNDS)


def check_bounds_of(home, plan):
    rules, key = read_active_policy(home), Ed25519PrivateKey.generate()
    check_plan(rules.policy, plan, sign_plan(key, plan), [key.public_key()], {}, None)


def test_without_a_plan_it_is_said_which_one_is_checked(home):
    words = ["preflight", "--home", str(home.path), "--skip-training"]
    assert "checking for the default plan" in CliRunner().invoke(app, words).stderr


def test_a_steps_time_leaves_out_what_only_the_first_takes(home, tiny_plan, monkeypatch):
    def slow_to_start(*arguments, on_step, **options):
        steps = []

        def step():
            if not steps:
                time.sleep(2)
            steps.append(1)
            on_step()

        return train_on(*arguments, on_step=step, **options)

    monkeypatch.setattr("mamfed_client.training.trial_step.train_on", slow_to_start)
    preflight = Preflight(home, tiny_plan)
    trial = try_step(preflight.data, tiny_plan, Stage.PRETRAINING, Hardware("cpu", threads=1))
    assert trial.seconds < 2


def test_settings_that_cannot_be_read_fail_and_nothing_crashes(call, home):
    home.settings_path.write_text("name: here\nnonsense: 1\n")
    found = call("--skip-training", code=9)
    assert found["settings"] == (
        "fail",
        f"{home.settings_path}: data: is missing; unknown key 'nonsense'",
    )


def test_a_revoked_site_is_told_so_by_the_server(coordinator, home, tiny_plan):
    revoke(coordinator.home, "here")
    with pytest.raises(LinkError, match="revoked"):
        Preflight(home, tiny_plan).server_answers()


def test_a_server_under_another_name_fails(coordinator, home, tiny_plan):
    issue_server(coordinator.home, ["elsewhere.example.org"])
    coordinator.front.reload()
    with pytest.raises(LinkError, match="another host name"):
        Preflight(home, tiny_plan).server_answers()


@pytest.mark.parametrize(
    ("ahead", "outcome"),
    [(0.4, "pass"), (-1.9, "pass"), (2.5, "warn"), (-100, "warn"), (5.5, "fail"), (-241, "fail")],
)
def test_a_clock_is_judged_by_what_flower_refuses(home, tiny_plan, ahead, outcome):
    preflight = Preflight(home, tiny_plan)
    preflight.reply = HealthReply({}, ahead)
    assert preflight.clock_agrees()[0] == outcome


def test_the_real_clocks_of_one_machine_agree(home, tiny_plan):
    preflight = Preflight(home, tiny_plan)
    preflight.server_answers()
    assert abs(preflight.reply.ahead_seconds) < 2


@pytest.mark.parametrize(
    ("mamfed", "flower", "outcome"),
    [
        (__version__, flower_version(), "pass"),
        ("99.0.0", flower_version(), "fail"),
        (__version__, "99.0.0", "fail"),
    ],
)
def test_versions_must_share_their_minor(home, tiny_plan, mamfed, flower, outcome):
    preflight = Preflight(home, tiny_plan)
    preflight.reply = HealthReply({MAMFED_HEADER: mamfed, FLOWER_HEADER: flower}, 0)
    assert preflight.versions_fit()[0] == outcome


@pytest.mark.parametrize(("days", "outcome"), [(31.5, "pass"), (29.5, "warn"), (-1, "fail")])
def test_a_certificate_is_renewed_in_time(coordinator, home, tiny_plan, days, outcome):
    start = datetime.now(UTC) + timedelta(days=days - 100)
    request = request_of("here", new_ec_key(), new_ec_key())
    home.certificate.write_bytes(issue_site(coordinator.home, request, 100, start))
    assert Preflight(home, tiny_plan).certificate_lasts()[0] == outcome


def test_a_disk_without_room_for_a_rounds_state_fails(home, tiny_plan, monkeypatch):
    monkeypatch.setattr("mamfed_client.node.preflight.SPARE_BYTES", 10**18)
    assert Preflight(home, tiny_plan).disk_has_room()[0] == "fail"


def test_too_few_images_for_the_policy_fail(home, tiny_plan):
    change_settings(home, policy=POLICY | {"min_training_cases": 1000})
    assert Preflight(home, tiny_plan).data_is_there()[0] == "fail"


def test_a_home_that_others_may_enter_is_a_warning(home, tiny_plan):
    home.path.chmod(0o755)
    assert Preflight(home, tiny_plan).keys_are_private()[0] == "warn"


def test_a_welcome_for_another_site_is_refused(home, tiny_plan):
    change_settings(home, name="elsewhere")
    with pytest.raises(SetupError, match="elsewhere"):
        Preflight(home, tiny_plan).keys_are_private()


def test_the_newest_plan_that_was_not_refused_is_prepared_for(home, tiny_plan):
    assert choose_plan(home) is None
    store = PlanStore(home.plans)
    other = tiny_plan.model_copy(
        update={"pretraining": StagePlan(rounds=2, local_epochs=1, learning_rate=1e-3)}
    )
    store.remember(tiny_plan)
    store.remember(other)
    store.decide(other.sha256(), Decision.REFUSED)
    assert choose_plan(home) == tiny_plan


def test_status_tells_of_a_site_that_does_not_run(home, tiny_plan):
    PlanStore(home.plans).remember(tiny_plan)
    update_status(home, state="online", node_pid=1)  # what a kill leaves behind
    result = CliRunner().invoke(app, ["status", "--home", str(home.path), "--format", "json"])
    found = json.loads(result.stdout)
    assert (found["running"], found["status"]["state"]) == (False, "stopped")
    assert found["certificate_days"] == 396
    assert found["pending_plans"] == [tiny_plan.sha256()]
    assert found["audit_lines"] == 0
    text = CliRunner().invoke(app, ["status", "--home", str(home.path)]).stdout
    assert "site here: not running" in text
    assert f"mamfed-client plan approve {tiny_plan.sha256()[:12]}" in text


def test_jobs_are_tried_end_to_end_and_no_step_is_tried_here(call, home, tmp_path):
    command = [sys.executable, "-P", "-m", "mamfed_client.cluster.job", "{folder}"]
    executor = {"kind": "command", "shared_folder": str(tmp_path / "jobs"), "command": command}
    change_settings(home, executor=executor)
    found = call()
    outcome, words = found["executor"]
    assert outcome == "pass"
    assert re.match(r"command: a job on \S+ read \d images and found cpu; .* to answer$", words)
    assert "finetuning step" not in found
    change_settings(home, executor={**executor, "command": ["false", "{folder}"]})
    outcome, words = call(code=9)["executor"]
    assert outcome == "fail"
    assert "its command ended with code 1" in words
