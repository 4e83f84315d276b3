"""Personal models in a simulation: kept by site, measured image by image, told in the report."""

import json

import numpy as np
import pytest
import torch

from mamfed_client.models.model_store import find_model
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import CheckpointError
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import with_threshold
from mamfed_common.training.inference import evaluate
from mamfed_simulations.federation.arms import describe_sites, federated_arm
from mamfed_simulations.federation.experiment import Experiment, simulate
from mamfed_simulations.federation.runner import run_federation
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort
from mamfed_simulations.reporting.progress import Progress


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """Two hospitals with cancers, and one with benign cases only."""
    root, looks = tmp_path_factory.mktemp("phantoms"), list(VENDORS.values())
    for name, look, malignant in zip("abc", looks, (12, 12, 0), strict=True):
        write_cohort(root / name, look, benign=8, malignant=malignant, seed=3, scale=0.08)
    return root


@pytest.fixture
def sites(cohorts, tmp_path):
    return tuple(Site(n, ((n, cohorts / n),), tmp_path / "cache") for n in "abc")


@pytest.fixture
def plan(tiny_plan):
    evaluation = {**tiny_plan.evaluation.model_dump(), "test_fraction": 0.4}
    return tiny_plan.changed(personal={"steps": 3, "learning_rate": 0.003}, evaluation=evaluation)


def test_each_site_keeps_its_own_model_and_the_report_tells_what_it_gains(sites, plan, tmp_path):
    out = tmp_path / "run"
    experiment = Experiment(sites=sites, plan=plan, out=out, compare=True)
    with Progress() as progress:
        summary = simulate(experiment, describe_sites(sites, plan), progress)
    assert list(summary["arms"]) == ["federated", "personal", "local", "centralised"]
    own = summary["arms"]["personal"]
    assert list(own["sites"]) == ["a", "b"]
    assert "nothing to adapt with" in own["not_trained"]["c"]
    best = load_checkpoint(out / "checkpoints/best.safetensors")
    for site in "ab":
        model = load_checkpoint(out / "models" / site / "personal.safetensors")
        assert model.facts.personal.site == site
        assert model.facts.personal.shared_sha256 == state_sha256(best.state)
        shared = load_checkpoint(out / "models" / site / "shared.safetensors")
        assert state_sha256(shared.state) == state_sha256(best.state)
    assert not (out / "models" / "c" / "personal.safetensors").exists()
    assert not list((out / "arms").rglob("models"))
    _check_notes(sites, plan, out, summary)


def _check_notes(sites, plan, out, summary):
    """Work the promises out again, by other means."""
    promises = {p["site"]: p for p in json.loads((out / "report.json").read_text())["promises"]}
    assert set(promises) == set("abc")
    for site in sites[:2]:
        promise, name = promises[site.name], site.name
        for model, arm in (("shared", "federated"), ("personal", "personal"), ("local", "local")):
            dice = summary["arms"][arm]["sites"][name]["dice"]
            assert promise["dice"][model] == pytest.approx(dice)
        gain = promise["minus_local"]["personal"]
        assert gain["value"] == pytest.approx(
            promise["dice"]["personal"] - promise["dice"]["local"]
        )
        assert gain["low"] <= gain["value"] <= gain["high"]
        assert promise["images"] == summary["arms"]["federated"]["sites"][name]["images"]
        model = load_checkpoint(out / "models" / name / "personal.safetensors")
        samples = load_site(site, plan).samples(["without_malignancy"], "test")
        scores = evaluate(
            model.state,
            samples,
            with_threshold(plan, model.facts.threshold),
            device=torch.device("cpu"),
        )
        shares = [
            s.predicted_pixels / sample.breast_mask.sum()
            for s, sample in zip(scores, samples, strict=True)
        ]
        assert promise["marked"]["personal"] == pytest.approx(np.mean(shares))
        assert promise["other_images"] == len(shares)
    assert "local" not in promises["c"]["dice"]
    page = (out / "report.html").read_text()
    assert "What each site gains" in page
    assert "no personal model: nothing to adapt with" in page


def test_the_same_run_twice_makes_the_same_personal_models(sites, plan, tmp_path):
    found = []
    for name in ("one", "two"):
        arm = federated_arm(sites, plan, tmp_path / name)
        run_federation(sites, arm.job, device="cpu", threads=1)
        paths = sorted((tmp_path / name / "models").rglob("*.*"))
        found.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in paths})
    assert found[0] == found[1]
    assert {"models/a/personal.json", "models/a/scores.json"} <= set(found[0])


def test_with_norms_of_its_own_a_site_adapts_what_it_was_tested_with(sites, plan, tmp_path):
    federation = {**plan.federation.model_dump(), "local_norms": True}
    plan = plan.changed(federation=federation)
    arm = federated_arm(sites, plan, tmp_path / "run")
    run_federation(sites, arm.job, device="cpu", threads=1)
    shared = [load_checkpoint(tmp_path / f"run/models/{s}/shared.safetensors") for s in "ab"]
    own = [load_checkpoint(tmp_path / f"run/models/{s}/personal.safetensors") for s in "ab"]
    assert shared[0].facts.weights_sha256 != shared[1].facts.weights_sha256
    for base, adapted in zip(shared, own, strict=True):
        assert adapted.facts.personal.shared_sha256 == base.facts.weights_sha256


def test_a_run_without_personal_models_keeps_none(sites, tiny_plan, tmp_path):
    arm = federated_arm(sites, tiny_plan, tmp_path / "run")
    run_federation(sites, arm.job, device="cpu", threads=1)
    assert not (tmp_path / "run" / "models").exists()
    with pytest.raises(CheckpointError, match="no model yet"):
        find_model(tmp_path / "run" / "models", "personal")
