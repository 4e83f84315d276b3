"""``experiment federation`` from the command line, small and whole, on phantoms."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import PlanError, RunError
from mamfed_common.state import state_sha256
from mamfed_simulations.cli import app
from mamfed_simulations.comparison import ARMS, ArmOutcome, SiteResult
from mamfed_simulations.comparison_report import fedavg_minus, mean_over_sites
from mamfed_simulations.vendors import VENDORS, write_cohort

runner = CliRunner()
SITES = ("a", "b", "c")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two sites with everything and one, ``c``, with benign cases only."""
    root = tmp_path_factory.mktemp("comparison")
    for name, look, malignant in zip(SITES, VENDORS.values(), (22, 22, 0), strict=True):
        write_cohort(root / name, look, benign=8, malignant=malignant, seed=3, scale=0.08)
    return root


@pytest.fixture
def plan(tmp_path, tiny_plan) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(tiny_plan.to_yaml())
    return path


def run(root, plan, out, *more, sites=SITES):
    chosen = [part for site in sites for part in ("--site", f"{site}={root}/{site}")]
    return runner.invoke(
        app,
        ["experiment", "federation", *chosen, "--plan", str(plan), "--out", str(out),
         "--threads", "1", "--cache", f"{root}/cache", *more],
    )  # fmt: skip


def results(out) -> dict:
    return json.loads((out / "results.json").read_text())


def test_every_arm_is_measured_at_every_site_with_counts(root, plan, tmp_path):
    out = tmp_path / "out"
    result = run(root, plan, out, "--format", "json")
    assert result.exit_code == 0, result.output
    found = results(out)
    assert json.loads(result.stdout) == found
    assert list(found["arms"]) == list(ARMS)
    for name, arm in found["arms"].items():
        for site in ("a", "b"):
            dice = arm["sites"][site]["dice"]
            assert (dice["images"], dice["patients"]) == (4, 2)
            assert dice["low"] <= dice["value"] <= dice["high"]
            assert len(arm["sites"][site]["dice_by_seed"]) == 1
        values = [arm["sites"][site]["dice"]["value"] for site in ("a", "b")]
        assert arm["mean_over_sites"] == pytest.approx(np.mean(values), abs=1e-4)
        own = arm["sites"].get("c", {"dice": None})
        assert own["dice"] is None, "no malignant image: no figure, not 0"
        assert ("c" in arm["sites"]) is (name not in ("local", "leave-one-out"))
    assert found["arms"]["local"]["missing"] == {"c": "no annotated malignant training case"}
    text = (out / "results.md").read_text()
    assert "c: no result: no annotated malignant training case" in text
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "dice.png").exists()


def test_arms_follow_plans_that_differ_only_in_what_they_are_about(root, plan, tmp_path):
    out = tmp_path / "out"
    assert run(root, plan, out, "--arms", "fedavg,fedprox,fedbn", "--mu", "0.5").exit_code == 0
    texts = {
        arm: (out / f"{arm}-seed0" / "plan.yaml").read_text().splitlines()
        for arm in ("fedavg", "fedprox", "fedbn")
    }
    base = set(texts["fedavg"])
    assert set(texts["fedprox"]) - base == {"  proximal_mu: 0.5"}
    assert set(texts["fedbn"]) - base == {"  local_norms: true"}
    finals = [out / f"{arm}-seed0" / "checkpoints" / "final.safetensors" for arm in texts]
    assert len({state_sha256(load_checkpoint(path).state) for path in finals}) == 3


def test_what_was_killed_goes_on_and_ends_the_same(root, plan, tmp_path):
    """As a kill leaves it: one federation finished, one after its first rounds, one not begun."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arms = ("--arms", "fedavg,fedbn,local")
    assert run(root, plan, whole, *arms).exit_code == 0
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "local-seed0")
    half = cut / "fedbn-seed0"
    lines = (half / "rounds.jsonl").read_text().splitlines(keepends=True)
    (half / "rounds.jsonl").write_text("".join(lines[:-1]))
    for name in ("latest", "best", "final"):
        for path in half.glob(f"checkpoints/{name}.*"):
            path.unlink()
    (half / "summary.json").unlink()
    (cut / "results.json").unlink()
    before = (cut / "fedavg-seed0" / "summary.json").stat().st_mtime_ns
    assert run(root, plan, cut, *arms).exit_code == 0
    assert results(cut) == results(whole)
    assert (cut / "fedavg-seed0" / "summary.json").stat().st_mtime_ns == before


def test_an_arm_that_fails_is_said_and_the_others_go_on(root, tmp_path, tiny_plan):
    plan = tmp_path / "plan.yaml"
    finetuning = tiny_plan.finetuning.model_copy(update={"quorum": 3})
    plan.write_text(tiny_plan.model_copy(update={"finetuning": finetuning}).to_yaml())
    out = tmp_path / "out"
    result = run(root, plan, out, "--arms", "fedavg,centralised")
    assert isinstance(result.exception, RunError)
    assert result.exception.exit_code == 7
    found = results(out)
    assert found["arms"]["fedavg"]["sites"] == {}
    assert "a, seed 0" in found["arms"]["fedavg"]["missing"]
    assert found["arms"]["centralised"]["sites"]["a"]["dice"]["images"] == 4


def test_another_plan_in_the_same_folder_is_refused(root, plan, tmp_path, tiny_plan):
    out = tmp_path / "out"
    assert run(root, plan, out, "--arms", "fedavg").exit_code == 0
    other = tmp_path / "other.yaml"
    other.write_text(tiny_plan.model_copy(update={"seed": 0, "image_size": 48}).to_yaml())
    assert isinstance(run(root, other, out, "--arms", "fedavg").exception, PlanError)


def test_a_dry_run_counts_and_writes_nothing(root, plan, tmp_path):
    result = run(root, plan, tmp_path / "dry", "--dry-run")
    assert result.exit_code == 0
    assert not (tmp_path / "dry").exists()


def test_an_unknown_arm_is_a_usage_error(root, plan, tmp_path):
    assert run(root, plan, tmp_path / "x", "--arms", "fedavg,fedsgd").exit_code == 2


def outcome(dice_a, dice_b) -> ArmOutcome:
    def result(dice):
        return SiteResult(np.array(dice), (0, 0, 1), np.zeros((1, 0)), (), 3, 1.0)

    return ArmOutcome({"a": result(dice_a), "b": result(dice_b)}, {})


def test_the_mean_over_sites_counts_each_site_once():
    assert mean_over_sites(outcome([[0.2, 0.4, 0.6]], [[1.0, 1.0, 1.0]])) == pytest.approx(0.7)


def test_arms_are_compared_image_by_image():
    first = outcome([[0.1, 0.2, 0.3]], [[0.1, 0.1, 0.1]])
    second = outcome([[0.2, 0.3, 0.4]], [[0.9, 0.1, 0.1]])
    difference = fedavg_minus({"local": first, "fedavg": second}, "local", "a")
    assert difference.value == pytest.approx(0.1)
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.1)), "the same for each"
    assert fedavg_minus({"fedavg": second}, "fedavg", "a") is None
    assert fedavg_minus({"local": first}, "local", "a") is None
