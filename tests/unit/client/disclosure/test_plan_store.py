"""Plans that came, decisions about them, and the commands that show both."""

import getpass
import json

import pytest
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_client.disclosure.plan_store import MAX_PENDING, Decision, PlanStore
from mamfed_common.errors import SetupError


@pytest.fixture
def home(tmp_path):
    (tmp_path / "site.yaml").write_text(
        "name: here\ndata: [{name: a, folder: data}]\npolicy: {bounds: {hours: '19:00-07:00'}}\n"
    )
    return tmp_path


@pytest.fixture
def store(home):
    return PlanStore(home / "plans")


@pytest.fixture
def run(home):
    def invoke(*words, code=0):
        result = CliRunner().invoke(app, ["plan", *words, "--home", str(home)])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result.stdout if code == 0 else result.exception

    return invoke


def test_a_plan_is_kept_once_and_for_its_owner_only(store, home, tiny_plan):
    store.remember(tiny_plan)
    path = home / "plans" / f"{tiny_plan.sha256()}.yaml"
    before = path.stat()
    store.remember(tiny_plan)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert before.st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (stored,) = store.plans()
    assert stored.plan == tiny_plan


def test_a_plan_is_found_by_the_start_of_its_name(store, tiny_plan):
    store.remember(tiny_plan)
    store.remember(tiny_plan.changed(seed=1))
    assert store.find(tiny_plan.sha256()[:12].upper()).plan == tiny_plan
    for prefix in ("", "xyz"):
        with pytest.raises(SetupError, match="expected 1"):
            store.find(prefix)


def test_a_plan_that_was_changed_on_disk_is_named(store, home, tiny_plan):
    store.remember(tiny_plan)
    path = home / "plans" / f"{tiny_plan.sha256()}.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert store.plans() == []
    (said,) = store.unusable()
    assert "expected the one in its name" in said


def test_a_plan_that_a_full_disk_has_cut_short_costs_that_plan(store, home, tiny_plan):
    store.remember(tiny_plan)
    other = tiny_plan.changed(seed=1)
    store.remember(other)
    (home / "plans" / f"{tiny_plan.sha256()}.yaml").write_text("")
    assert [stored.sha256 for stored in store.plans()] == [other.sha256()]
    (said,) = store.unusable()
    assert "is empty" in said


def test_the_last_decision_counts_and_all_are_kept(store, home, tiny_plan):
    name = tiny_plan.sha256()
    assert store.decisions() == {}
    store.decide(name, Decision.APPROVED)
    store.decide(name, Decision.REFUSED)
    assert store.decisions() == {name: Decision.REFUSED}
    assert [record.decision for record in store.history()] == ["approved", "refused"]
    assert {record.by for record in store.history()} == {getpass.getuser()}
    assert (home / "plans" / "decisions.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_damaged_decision_is_no_decision(store, home, tiny_plan):
    store.decide(tiny_plan.sha256(), Decision.REFUSED)
    path = home / "plans" / "decisions.jsonl"
    path.write_text(path.read_text().replace("refused", "perhaps"))
    with pytest.raises(SetupError, match=r"decisions\.jsonl:1"):
        store.decisions()


def test_the_list_says_what_becomes_of_each_plan(run, store, tiny_plan):
    assert "no plan has arrived yet" in run("list")
    big = tiny_plan.changed(image_size=4096)
    for plan in (tiny_plan, big):
        store.remember(plan)
    rows = json.loads(run("list", "--format", "json"))
    found = {row["plan_sha256"]: row["standing"] for row in rows}
    assert found == {tiny_plan.sha256(): "pending", big.sha256(): "outside bounds"}
    assert f"{tiny_plan.sha256()[:12]}  arrived" in run("list")


def test_a_plan_is_explained_against_the_bounds(run, store, tiny_plan):
    store.remember(tiny_plan.changed(image_size=4096))
    text = run("show")
    assert "images of 4096 x 4096 pixels" in text
    assert "In pretraining: 1 round, each of 1 epoch, with 2 of this site's images per step" in text
    assert "image_size: 4096, allowed at most 2048: NOT ALLOWED" in text
    assert "min_sites: 3, allowed at least 3: ok" in text
    assert "19:00-07:00" in text
    assert "lacks 'counts'" in text
    document = json.loads(run("show", "--format", "json"))
    assert document["plan"]["image_size"] == 4096
    checks = {check["name"]: check["fits"] for check in document["bounds"]}
    assert checks == {
        "image_size": False,
        "rounds": True,
        "local_epochs": True,
        "local_steps": True,
        "learning_rate": True,
        "batch_size": True,
        "min_sites": True,
        "parameters": True,
        "memory_gib": True,
        "held_out_part": True,
        "held_out": True,
    }


def test_a_person_approves_and_refuses(run, store, tiny_plan):
    store.remember(tiny_plan)
    name = tiny_plan.sha256()
    assert "approved by" in run("approve", name[:8], "--yes")
    assert store.decisions() == {name: Decision.APPROVED}
    assert json.loads(run("refuse", name, "--format", "json"))["standing"] == "refused"
    assert isinstance(run("approve", "0000", code=1), SetupError)


def test_approving_a_plan_outside_the_bounds_says_that_it_stays_out(run, store, tiny_plan):
    plan = tiny_plan.changed(image_size=4096)
    store.remember(plan)
    bound = (
        "image_size is 4096, policy.bounds.max_image_size allows at most 2048. Ask the coordinator "
        "for another plan, or set policy.bounds.max_image_size: 4096 in site.yaml"
    )
    said = run("approve", plan.sha256(), "--yes")
    assert f"that is not enough: the plan is still outside bounds: {bound}" in said
    assert f"outside bounds, blocked: {bound}" in run("list")
    assert f"Blocked: {bound}" in run("show")


def test_a_plan_outside_the_bounds_stays_in_the_status(run, store, home, tiny_plan):
    plan = tiny_plan.changed(image_size=4096)
    store.remember(plan)
    for _ in range(2):
        result = CliRunner().invoke(app, ["status", "--home", str(home)])
        assert f"plan {plan.sha256()[:12]} is blocked: image_size is 4096, " in result.stdout
        run("approve", plan.sha256(), "--yes")
    run("refuse", plan.sha256())  # what a person refused is not looked at any more
    assert "blocked" not in CliRunner().invoke(app, ["status", "--home", str(home)]).stdout


def test_a_plan_is_approved_from_its_file_before_it_comes(run, store, tiny_plan, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(tiny_plan.to_yaml())
    said = run("approve", str(file), "--yes")
    assert "not arrived yet" in said
    assert "It trains on images of 32 x 32 pixels." in said
    store.remember(tiny_plan)
    assert "approved" in run("list")


def test_showing_without_any_plan_is_an_error(run):
    assert "no plan has arrived yet" in str(run("show", code=1))


def test_of_plans_that_nobody_decides_on_the_oldest_go_and_are_counted(store, tiny_plan):
    decided = tiny_plan.changed(seed=1000)
    store.remember(decided)
    store.decide(decided.sha256(), Decision.APPROVED)
    plans = [tiny_plan.changed(seed=seed) for seed in range(MAX_PENDING + 3)]
    for plan in plans:
        store.remember(plan)
    kept = [stored.plan.seed for stored in store.plans()]
    assert kept == [1000, *range(3, MAX_PENDING + 3)]
    assert store.dropped() == 3
