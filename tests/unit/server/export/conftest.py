"""A finished run of a tiny network, and the command that exports it."""

import json

import pytest
from typer.testing import CliRunner

from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, save_checkpoint
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage
from mamfed_server.cli.main import app
from mamfed_server.run_folder.folder import RunFolder

DESCRIPTION = {
    "site": "north",
    "images": {"benign": {"train": 21, "val": 3, "test": 4}, "malignant": {"train": 17}},
    "patients": {"benign": {"train": 11, "val": 2, "test": 2}, "malignant": {"train": 9}},
    "rows": 61,
    "rejected": {"missing mask": 2},
    "left_out": {},
    "vendors": {"Aurora | Imaging": 60},
}


def save(path, plan, *, seed=0, stage=Stage.FINETUNING, threshold=0.3, painter=True):
    facts = CheckpointFacts(
        plan=plan, plan_sha256=plan.sha256(), stage=stage, server_round=2, threshold=threshold
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    state, other = (state_of(build_network(plan.network, number)) for number in (seed, seed + 1))
    save_checkpoint(path, Checkpoint(state, facts, other if painter else None))
    return path


@pytest.fixture
def run(tmp_path, tiny_plan):
    folder = RunFolder(tmp_path / "run")
    folder.create(tiny_plan)
    save(folder.checkpoint_path("best"), tiny_plan)
    score = SiteScore(
        images=12,
        dice=0.625,
        lesions=14,
        lesions_found=9,
        images_without_malignancy=5,
        false_positive_pixels=3.5,
        lesions_redrawn=8,
        redrawn_as_tissue=7,
        redrawn_minus_ring=0.021,
    ).model_dump()
    folder.write_summary(
        {
            "status": "finished",
            "arms": {"federated": {"mean_dice": 0.625, "sites": {"north": score}}},
            "sites": {"north": DESCRIPTION},
            "warnings": ["north was late"],
        }
    )
    return folder.path


@pytest.fixture
def export(tmp_path):
    """Run the command and return its result."""

    def invoke(what, *options):
        words = ["export", what, "--format", "json", *options]
        return CliRunner().invoke(app, [str(word) for word in words])

    return invoke


@pytest.fixture
def exported(export, tmp_path):
    """Export, and return the folder and what was printed."""

    def invoke(what, target, *options):
        out = tmp_path / target
        result = export(what, "--to", target, "--out", out, *options)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return out, json.loads(result.stdout)

    return invoke
