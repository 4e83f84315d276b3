"""Seven sites that send what they should not, among three honest ones: all real processes."""

import json
from pathlib import Path

import pytest
from tests.processes.deployment import Deployment, simulated_sha256
from tests.processes.hostile_worker import NAME, SPOILS
from tests.processes.phantoms import small_plan

REASONS = {
    "nan": "holds NaN or infinity",
    "shape": "expected (",
    "missing": "is missing (1 missing in all)",
    "negative": "TrainReport.num_examples: Input should be greater than or equal to 0",
    "none": "TrainReport.num_examples: Value error, it counts no image",
    "vast": "claims 10000000 ",
    "name": "sends 1 records that were not asked for",
}
WORKER = Path(__file__).with_name("hostile_worker.py")


@pytest.fixture(scope="module")
def attacked(phantoms, tmp_path_factory):
    """A run that three honest and seven hostile sites have taken part in, and its plan."""
    folder = tmp_path_factory.mktemp("attacked")
    plan = folder / "plan.yaml"
    plan.write_text(small_plan(pretraining=1, finetuning=1, join_seconds=600).to_yaml())
    hostile = {f"hostile-{kind}": phantoms["aurora"] for kind in SPOILS}
    with Deployment(folder, phantoms | hostile) as federation:
        federation.start_server(plan)
        for name in phantoms:
            federation.start_site(name)
        spoiling = [f"{federation.site_home(f'hostile-{kind}')}={kind}" for kind in SPOILS]
        federation.start("hostile", "python", WORKER, *spoiling)
        assert federation.wait_for_end() == 0, federation.story()
        yield federation, plan


def test_every_hostile_site_is_refused_by_name_with_its_reason_in_each_round(attacked, phantoms):
    federation, _ = attacked
    rounds = federation.rounds()
    assert [record["stage"] for record in rounds] == ["pretraining", "finetuning"]
    for record in rounds:
        assert list(record["accepted"]) == sorted(phantoms)
        assert set(record["refused"]) == {f"hostile-{kind}" for kind in SPOILS}
        assert len(record["answered"]) == len(SPOILS) + len(phantoms)
        for kind, reason in REASONS.items():
            found = record["refused"][f"hostile-{kind}"]
            assert reason in found, (kind, found)


def test_the_weights_are_those_of_the_honest_sites_bit_for_bit(attacked, phantoms):
    federation, plan = attacked
    found = federation.weights_sha256()
    assert found == simulated_sha256(federation.folder, plan, phantoms)


def test_what_every_site_says_of_the_refusals_is_in_the_run_and_names_the_site(attacked):
    federation, _ = attacked
    shown = federation.command(
        "mamfed-server", "show", federation.run_folder(), "--format", "json"
    ).stdout
    warnings = json.loads(shown)["warnings"]
    for kind in SPOILS:
        assert any(f"hostile-{kind} left out" in warning for warning in warnings), kind


def test_the_name_that_a_site_sent_is_nowhere_at_the_coordinator(attacked):
    federation, _ = attacked
    files = [path for path in federation.server_home.rglob("*") if path.is_file()]
    files.append(federation.folder / "server.out")
    assert len(files) > 20
    for path in files:
        assert NAME.encode() not in path.read_bytes(), path
