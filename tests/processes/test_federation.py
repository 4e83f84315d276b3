"""A federation between real processes, two stages long: its bits, its records, its files.

The run is stopped in the middle and goes on in another server process. One that nobody stops is in
``test_hostile_sites.py``, with its bits too.
"""

import csv
import json
import stat

import pytest
from tests.processes.deployment import Deployment, simulated_sha256, wait_until
from tests.processes.phantoms import small_plan

from mamfed_common.plan import read_plan

ROUNDS = {"pretraining": [1], "finetuning": [1, 2]}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A plan of three rounds, alone in its folder."""
    plan = tmp_path_factory.mktemp("federation") / "plan.yaml"
    plan.write_text(small_plan(pretraining=1, finetuning=2).to_yaml())
    return plan


@pytest.fixture(scope="module")
def finished(phantoms, planned):
    """A deployment whose run was stopped and has finished; its sites wait for the next one."""
    with Deployment(planned.parent, phantoms) as federation:
        federation.start_server(planned)
        for name in phantoms:
            federation.start_site(name)
        wait_until(lambda: bool(federation.rounds()), "the first round ends")
        home = federation.server_home
        federation.command("mamfed-server", "stop", "--home", home)
        assert federation.wait_for_end() == 0, federation.story()
        federation.start("server", "mamfed-server", "resume", "run", "--home", home)
        assert federation.wait_for_end() == 0, federation.story()
        yield federation


@pytest.fixture(scope="module")
def simulated(finished, planned, phantoms):
    """The SHA-256 of the final weights of a simulation, whose folder is ``simulated``."""
    return simulated_sha256(finished.folder, planned, phantoms)


def printed(federation, *argv):
    """Run a command with ``--format json`` and return what it prints."""
    return json.loads(federation.command(*argv, "--format", "json").stdout)


def files_of(*folders):
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_the_run_was_stopped_in_the_middle_and_went_on(finished):
    lines = (finished.run_folder() / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    kinds = [event["event"] for event in events]
    assert [kind for kind in kinds if kind in ("started", "stopped", "resumed", "finished")] == [
        "started", "stopped", "resumed", "finished",
    ]  # fmt: skip
    resumed = events[kinds.index("resumed")]
    assert resumed["stage"] == "finetuning"
    assert resumed["flower_run"] != events[0]["flower_run"]
    assert sum(event["event"] == "round" for event in events) in (3, 4)


def test_the_weights_equal_those_of_a_simulation_bit_for_bit(finished, simulated):
    assert finished.weights_sha256() == simulated


def test_each_site_s_own_model_equals_the_simulation_s_and_stays_there(
    finished, simulated, phantoms, planned
):
    assert simulated
    name = f"run-{read_plan(planned).sha256()[:12]}"
    for site in phantoms:
        here = finished.site_home(site) / "models" / name
        there = finished.folder / "simulated" / "models" / site
        for file in ("shared.safetensors", "personal.safetensors", "personal.json"):
            assert (here / file).read_bytes() == (there / file).read_bytes(), file
    arms = [
        json.loads((folder / "summary.json").read_text())["arms"]
        for folder in (finished.run_folder(), finished.folder / "simulated")
    ]
    assert arms[0] == arms[1]
    assert list(arms[0]["personal"]["sites"]) == sorted(phantoms)
    assert not list(finished.server_home.rglob("personal.safetensors"))


def test_a_site_s_commands_name_and_use_its_own_model(finished, phantoms, tmp_path):
    site = min(phantoms)
    home = finished.site_home(site)
    (run,) = printed(finished, "mamfed-client", "models", "list", "--home", home)
    assert (run["run"], run["personal"]["steps"]) == ("run", 5)
    argv = ("--home", home, "--model", "personal", "--data", phantoms[site])
    part = ("--part", "test", "--site", site, "--out", tmp_path / "result.json")
    result = printed(finished, "mamfed-client", "evaluate", *argv, *part)
    assert result["weights_sha256"] == run["personal"]["weights_sha256"]
    assert result["mean_dice"] == pytest.approx(run["personal"]["score"]["dice"])


def test_the_rounds_say_who_took_part_and_what_it_took(finished, phantoms):
    rounds = finished.rounds()
    assert [(r["stage"], r["server_round"]) for r in rounds] == [
        (stage, number) for stage, numbers in ROUNDS.items() for number in numbers
    ]
    for record in rounds:
        assert record["expected"] == record["answered"] == sorted(phantoms)
        assert list(record["accepted"]) == sorted(phantoms)
        assert record["refused"] == {}
        assert record["bytes_sent"] == record["bytes_received"] > 0
        assert sum(site["share"] for site in record["accepted"].values()) == pytest.approx(1)


def test_the_coordinators_commands_say_what_happened(finished, planned, tmp_path):
    home, plan = finished.server_home, read_plan(planned)
    assert printed(finished, "mamfed-server", "status", "--home", home)["state"] == "finished"
    runs = {r["run"]: r for r in printed(finished, "mamfed-server", "runs", "--home", home)}
    assert runs["run"]["status"] == "finished"
    assert runs["run"]["rounds"] == runs["run"]["rounds_planned"] == 3
    assert runs["run"]["plan_sha256"] == plan.sha256()
    shown = printed(finished, "mamfed-server", "show", finished.run_folder())
    assert shown["status"] == "finished"
    assert shown["complete"] is True
    out = tmp_path / "result"
    argv = ("export", "run", "--home", home, "--checkpoint", "final", "--out", out)
    made = printed(finished, "mamfed-server", *argv)
    assert sorted(made["files"]) == sorted(str(path) for path in out.iterdir())
    facts = json.loads((out / "model.json").read_text())
    assert facts["weights_sha256"] == finished.weights_sha256()


def test_every_site_says_what_left_it_and_its_record_is_whole(finished, phantoms, planned):
    for name in phantoms:
        home = finished.site_home(name)
        whole = printed(finished, "mamfed-client", "audit", "verify", "--home", home)
        report = printed(finished, "mamfed-client", "audit", "report", "--home", home)
        lines = [json.loads(line) for line in (home / "audit.jsonl").read_text().splitlines()]
        assert whole["lines"] == report["lines"] == len(lines)
        assert report["rounds"] == ROUNDS
        assert report["faults"] == {}
        assert report["to"] == ["Test"]
        assert list(report["plans"]) == [read_plan(planned).sha256()]
        trained = [line for line in lines if line["kind"] == "train"][:3]
        sent = [sum(array["bytes"] for array in line["weights"]) for line in trained]
        assert all(0 < size < line["bytes"] for size, line in zip(sent, trained, strict=True))


def test_a_record_with_a_line_less_is_found_out(finished, phantoms, tmp_path):
    home = finished.site_home(min(phantoms))
    for name in ("site.yaml", "audit.head"):
        (tmp_path / name).write_bytes((home / name).read_bytes())
    lines = (home / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "audit.jsonl").write_bytes(b"".join([*lines[:2], *lines[3:]]))
    finished.command("mamfed-client", "audit", "verify", "--home", tmp_path, code=11)


def test_every_site_says_how_it_is_doing(finished, phantoms):
    for name in phantoms:
        home = finished.site_home(name)
        found = printed(finished, "mamfed-client", "status", "--home", home)
        assert (found["site"], found["running"]) == (name, True)
        assert found["pending_plans"] == []
        assert found["certificate_days"] > 300
        assert found["audit_lines"] == len((home / "audit.jsonl").read_text().splitlines())


def test_every_file_of_coordinator_and_sites_is_their_owners_alone(finished):
    for top in (finished.server_home, finished.folder / "sites"):
        for path in top.rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), f"{path}: {mode:o}"


def test_nothing_that_is_kept_or_said_names_a_patient_an_image_or_a_folder(finished, phantoms):
    secrets = set()
    for folder in phantoms.values():
        rows = list(csv.DictReader((folder / "labels.csv").open()))
        secrets |= {row[key] for row in rows for key in ("patient_id", "image", "mask")}
        secrets |= {row["image"].rpartition("/")[2] for row in rows}
        secrets.add(str(folder))
    secrets = {secret.encode() for secret in secrets - {""}}
    assert len(secrets) > 3 * 7
    sites = finished.folder / "sites"
    outputs = list(finished.folder.glob("*.out"))
    # site.yaml names the folder of mammograms: that is where a site writes it down.
    kept = [path for path in files_of(sites) if path.name != "site.yaml"]
    for path in [*files_of(finished.server_home), *kept, *outputs]:
        content = path.read_bytes() + str(path).encode()
        assert not [secret for secret in secrets if secret in content], path
    assert any(secret in (sites / "aurora" / "site.yaml").read_bytes() for secret in secrets)
