"""A federation between real processes whose plan lets weights travel in fewer bytes."""

import json

from tests.processes.deployment import Deployment, simulated_sha256
from tests.processes.phantoms import small_plan


def test_compact_weights_give_the_bits_of_a_simulation_and_are_recorded_as_sent(phantoms, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(small_plan(pretraining=1, finetuning=1, wire="compact").to_yaml())
    with Deployment(tmp_path, phantoms) as federation:
        federation.start_server(plan)
        for name in phantoms:
            federation.start_site(name)
        assert federation.wait_for_end() == 0, federation.story()
        assert federation.weights_sha256() == simulated_sha256(tmp_path, plan, phantoms)
        rounds, homes = federation.rounds(), [federation.site_home(name) for name in phantoms]
        lines = [
            json.loads(line)
            for home in homes
            for line in (home / "audit.jsonl").read_text().splitlines()
        ]
    for number, record in enumerate(rounds):
        trained = [line for line in lines if line["kind"] == "train"][number :: len(rounds)]
        assert len(trained) == len(phantoms)
        sent = sum(sum(array["bytes"] for array in line["weights"]) for line in trained)
        assert 0 < sent < record["bytes_received"] < record["bytes_sent"]
        assert {array["name"] for array in trained[0]["weights"]} >= {
            "backbone.stem.weight",
            "backbone.stem.weight/scale",
        }
