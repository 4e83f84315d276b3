"""``experiment federation`` from the command line, small and whole, on phantoms."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from mamfed_client.preparation import site_data as site_module
from mamfed_client.preparation.cohort import StoredSamples
from mamfed_client.preparation.site_data import Site
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import DataError, OutputError, PlanError, RunError
from mamfed_common.metrics.scores import score_image
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import TrainingPlan, with_threshold
from mamfed_common.training.inference import evaluate
from mamfed_simulations.cli.main import app
from mamfed_simulations.comparison import scores  # `tested` is no test
from mamfed_simulations.comparison.compare import ArmOutcome
from mamfed_simulations.comparison.design import ARMS, Comparison
from mamfed_simulations.comparison.federations import federations
from mamfed_simulations.comparison.report import verdicts
from mamfed_simulations.comparison.results import (
    difference,
    mean_difference,
    mean_over_sites,
    worst_first,
)
from mamfed_simulations.comparison.scores import SiteResult, SiteScores, result_of
from mamfed_simulations.federation.arm_pool import train_here
from mamfed_simulations.federation.hardware import ArmHardware
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort

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
    personal = {"steps": 2, "learning_rate": 0.01}
    path.write_text(tiny_plan.changed(personal=personal).to_yaml())
    return path


def run(root, plan, out, *more, sites=SITES):
    chosen = [part for site in sites for part in ("--site", f"{site}={root}/{site}")]
    return runner.invoke(
        app,
        ["experiment", "federation", *chosen, "--plan", str(plan), "--out", str(out),
         "--threads", "1", "--workers", "1", "--cache", f"{root}/cache", *more],
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
        assert arm["mean_over_sites"]["value"] == pytest.approx(np.mean(values), abs=1e-4)
        assert arm["mean_over_sites"]["images"] == 8
        assert 0 <= arm["sites"]["a"]["marked_share_of_breast"]["value"] <= 1
        assert list(arm["sites"]["a"]["sensitivity_at"]) == ["0.25", "0.5", "1", "2"]
        own = arm["sites"].get("c", {"dice": None})
        assert own["dice"] is None, "no malignant image: no figure, not 0"
        assert ("c" in arm["sites"]) is (name not in ("local", "leave-one-out", "personal"))
    assert found["arms"]["local"]["missing"] == {"c": "no annotated malignant training case"}
    assert list(found["arms"]["personal"]["missing"]) == ["c, seed 0"]
    assert found["arms"]["personal"]["sites"]["a"]["minus"]["local"]["images"] == 4
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
    assert set(texts["fedprox"]) - base == {"  proximal_mu: 0.5", "  steps: 0"}
    assert set(texts["fedbn"]) - base == {"  local_norms: true", "  steps: 0"}
    finals = [out / f"{arm}-seed0" / "checkpoints" / "final.safetensors" for arm in texts]
    assert len({state_sha256(load_checkpoint(path).state) for path in finals}) == 3


def test_where_rounds_count_steps_local_pooled_and_federated_training_take_as_many(
    root, tmp_path, tiny_plan
):
    """Two sites, 3 steps a round and site: 6 in all, whoever takes them, counted as they happen."""
    rounds = {"rounds": 2, "local_steps": 3, "learning_rate": 0.001}
    plan = tiny_plan.changed(pretraining=rounds, finetuning=rounds)
    comparison = Comparison(
        sites=tuple(Site(n, ((n, root / n),), root / "cache") for n in "ab"),
        plan=plan,
        out=tmp_path,
        arms=("local", "centralised", "fedavg"),
        seeds=(0,),
        proximal_mu=0.0,
        machine=ArmHardware(device="cpu"),
    )
    (repeat,) = comparison.repeats
    taken = {}
    for name in comparison.arms:
        made, _ = federations(comparison, name, repeat, comparison.describe(repeat))
        steps = []
        for federation in made:
            train_here(federation.arm, comparison.machine, lambda s=steps: s.append(1))
        taken[name] = len(steps)
    assert taken == dict.fromkeys(comparison.arms, 2 * 2 * 6)


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


def test_side_by_side_gives_the_same_figures(root, plan, tmp_path):
    """Two processes train, two threads measure."""
    arms = ("--arms", "fedavg,fedbn")
    assert run(root, plan, tmp_path / "one", *arms, sites="ab").exit_code == 0
    assert run(root, plan, tmp_path / "two", *arms, "--workers", "2", sites="ab").exit_code == 0
    assert results(tmp_path / "two") == results(tmp_path / "one")


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


def test_personal_models_are_those_that_fedavg_left_and_train_no_federation_of_their_own(
    root, plan, tmp_path
):
    out = tmp_path / "out"
    assert run(root, plan, out, "--arms", "personal,fedavg").exit_code == 0
    assert [path.name for path in out.glob("*-seed0")] == ["fedavg-seed0"]
    site = Site("a", (("a", root / "a"),), root / "cache")
    state, facts, *_ = load_checkpoint(out / "fedavg-seed0/models/a/personal.safetensors")
    samples = StoredSamples(scores.tested(site, facts.plan))
    found = evaluate(state, samples, with_threshold(facts.plan, 0.5), device=torch.device("cpu"))
    dice = np.mean([score.dice for score in found if score.lesion_pixels])
    arms = results(out)["arms"]
    assert arms["personal"]["sites"]["a"]["dice"]["value"] == pytest.approx(dice, abs=1e-4)
    both = [arms[name]["sites"]["a"]["dice"]["value"] for name in ("personal", "fedavg")]
    assert both[0] != both[1], "the site has trained on"


def test_personal_models_that_the_plan_does_not_make_are_asked_for_in_vain(
    root, tmp_path, tiny_plan
):
    plan = tmp_path / "plan.yaml"
    plan.write_text(tiny_plan.to_yaml())
    result = run(root, plan, tmp_path / "out", "--arms", "fedavg,personal")
    assert isinstance(result.exception, PlanError)
    assert "personal.steps is 0" in str(result.exception)
    assert "\n" not in str(result.exception)


def test_an_unknown_arm_is_a_usage_error(root, plan, tmp_path):
    assert run(root, plan, tmp_path / "x", "--arms", "fedavg,fedsgd").exit_code == 2


def test_in_folds_every_patient_is_tested_once(root, plan, tmp_path):
    out = tmp_path / "out"
    more = ("--arms", "local,fedavg", "--folds", "3", "--seeds", "2")
    assert run(root, plan, out, *more).exit_code == 0
    found = results(out)
    plans = [
        TrainingPlan.model_validate(yaml.safe_load((out / f"fedavg-{r}" / "plan.yaml").read_text()))
        for r in ("seed0-fold0", "seed0-fold2", "seed1-fold0")
    ]
    assert [p.seed for p in plans] == [0, 2, 3], "each fold trains with a seed of its own"
    assert [p.evaluation.fold for p in plans] == [0, 2, 0]
    for arm in found["arms"].values():
        for site in ("a", "b"):
            dice = arm["sites"][site]["dice"]
            assert (dice["images"], dice["patients"]) == (22, 11)
            assert arm["sites"][site]["marked_share_of_breast"]["images"] == 8
            assert arm["sites"][site]["seeds"] == [0, 1]
            assert len(arm["sites"][site]["dice_by_seed"]) == 2
    assert found["arms"]["fedavg"]["sites"]["c"]["marked_share_of_breast"]["images"] == 8
    again = (out / "results.json").read_bytes()
    assert run(root, plan, out, *more).exit_code == 0
    assert (out / "results.json").read_bytes() == again


def test_scores_that_are_kept_are_taken_again_for_other_weights(root, plan, tmp_path):
    out = tmp_path / "out"
    assert run(root, plan, out, "--arms", "fedavg").exit_code == 0
    kept = out / "fedavg-seed0" / "shared-scores-a.json"
    before = results(out)
    content = json.loads(kept.read_text())
    assert {score[0] for score in content["scores"]} == {""}, "no image is named"
    content["scores"][0][1] = 1.0
    kept.write_text(json.dumps(content))
    assert run(root, plan, out, "--arms", "fedavg").exit_code == 0
    assert results(out) != before, "kept scores are believed"
    kept.write_text(json.dumps({**content, "of": "other weights"}))
    assert run(root, plan, out, "--arms", "fedavg").exit_code == 0
    assert results(out) == before


def test_more_folds_than_a_site_has_patients_are_refused_before_any_training(root, plan, tmp_path):
    result = run(root, plan, tmp_path / "out", "--folds", "5")
    assert isinstance(result.exception, DataError)
    assert str(result.exception).startswith("c: 4 patients for 5 folds")
    assert not (tmp_path / "out").exists()


def test_a_declared_split_refuses_folds(root, plan, tmp_path):
    folder = tmp_path / "split"
    shutil.copytree(root / "a", folder)
    lines = (folder / "labels.csv").read_text().splitlines()
    lines = [f"{lines[0]},split", *(f"{line},train" for line in lines[1:])]
    (folder / "labels.csv").write_text("\n".join(lines))
    result = run(root, plan, tmp_path / "out", "--folds", "2", "--site", f"d={folder}")
    assert isinstance(result.exception, DataError)
    assert "split column already names the test patients" in str(result.exception)


def test_a_site_without_a_usable_image_is_named(root, plan, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "labels.csv").write_text("image,patient_id,pathology\nx.png,P1,benign\n")
    result = run(root, plan, tmp_path / "out", "--site", f"d={folder}")
    assert isinstance(result.exception, DataError)
    assert str(result.exception) == f"{folder}: no image can be used: 1 x missing image"


def site_result(dice, *, marked=(), seeds=None) -> SiteResult:
    """Three images of two patients, and images without malignancy of as many."""
    dice = np.array(dice)
    marked = np.array(marked or [[]] * len(dice))
    return SiteResult(
        seeds=tuple(seeds or range(len(dice))),
        dice=dice,
        dice_chosen=dice,
        patients=(0, 0, 1),
        marked=marked,
        other_patients=tuple(range(marked.shape[1])),
        lesions=3,
        lesions_found=1.0,
        sensitivity_at=(0.1, 0.2, 0.3, 0.4),
    )


def outcome(dice_a, dice_b, **more) -> ArmOutcome:
    return ArmOutcome({"a": site_result(dice_a, **more), "b": site_result(dice_b, **more)}, {})


def test_the_mean_over_sites_counts_each_site_once():
    found = mean_over_sites(outcome([[0.2, 0.4, 0.6]], [[1.0, 1.0, 1.0]]))
    assert found.value == pytest.approx(0.7)
    assert (found.images, found.patients) == (6, 4)


def test_arms_are_compared_image_by_image():
    first = outcome([[0.1, 0.2, 0.3]], [[0.1, 0.1, 0.1]])
    second = outcome([[0.2, 0.3, 0.4]], [[0.9, 0.1, 0.1]])
    both = {"local": first, "fedavg": second}
    found = difference(both, "fedavg", "local", "a")
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1)), "the same for each"
    assert difference(both, "local", "fedavg", "a").value == pytest.approx(-0.1)
    assert difference(both, "fedavg", "fedavg", "a") is None
    assert difference({"local": first}, "fedavg", "local", "a") is None
    over_sites = mean_difference(both, "fedavg", "local", ["a", "b"])
    assert over_sites.value == pytest.approx((0.1 + 0.8 / 3) / 2)


def test_only_seeds_that_both_arms_have_are_compared():
    """Seed 0 failed in one arm: that of seed 1 counts, not the mean of both."""
    local = outcome([[0.0] * 3, [0.5] * 3], [[0.5] * 3] * 2)
    fedavg = outcome([[0.6] * 3], [[0.6] * 3], seeds=[1])
    found = difference({"local": local, "fedavg": fedavg}, "fedavg", "local", "a")
    assert found.value == pytest.approx(0.1)
    found = difference({"local": local, "fedavg": fedavg}, "local", "fedavg", "a")
    assert found.value == pytest.approx(-0.1)


def test_the_site_that_loses_most_comes_first_and_is_named_in_words():
    local = outcome([[0.5, 0.5, 0.5]], [[0.5, 0.5, 0.5]])
    fedavg = outcome([[0.6, 0.6, 0.6]], [[0.4, 0.4, 0.4]])
    both = {"local": local, "fedavg": fedavg}
    assert worst_first(both, ["a", "b", "c"]) == ["b", "a", "c"]
    assert verdicts(both, ["b", "a"]) == [
        "fedavg scored lower than local training at 1 of 2 sites: b -0.100 [-0.100, -0.100] "
        "(3 images of 2 patients); higher than local training at 1 of 2 sites: a +0.100 [+0.100, "
        "+0.100] (3 images of 2 patients).",
        "Too few images to tell at any site: fewer than 10 images or 10 patients.",
    ]
    assert verdicts({"local": local, "fedavg": local}, ["a"])[0] == (
        "fedavg scored the same as local training at the one site: a +0.000 [+0.000, +0.000] "
        "(3 images of 2 patients)."
    )
    assert verdicts({"fedavg": local}, ["a"]) == [], "nothing to compare with"


def test_what_is_marked_is_a_share_of_the_breast_and_folds_are_pooled():
    """Two folds: 10 of 100 pixels of one breast, 30 of 60 of another; Dice at both thresholds."""

    def fold(number, marked, breast):
        images = [
            score_image("", np.full((4, 4), 0.7, np.float32), np.ones((4, 4), bool), 0.5),
            score_image("", np.zeros((4, 4), np.float32), np.zeros((4, 4), bool), 0.5),
        ]
        images[1] = images[1]._replace(predicted_pixels=marked)
        patients = [f"P{number}", f"Q{number}"]
        return SiteScores(images, [0.25 * number, 1.0], patients, [16, breast])

    found = result_of({0: [fold(1, 10, 100), fold(2, 30, 60)]})
    assert found.marked.tolist() == [[0.1, 0.5]]
    assert found.dice.tolist() == [[1.0, 1.0]]
    assert found.dice_chosen.tolist() == [[0.25, 0.5]]
    assert (found.patients, found.other_patients) == ((0, 2), (1, 3))
    assert (found.lesions, found.lesions_found, found.sensitivity_at) == (2, 2.0, (1.0,) * 4)


class TestQuestions:
    """An arm that is kept is of the same data, plan and options, or it is refused."""

    @pytest.fixture
    def site(self, root, tmp_path):
        """One site of its own, to be changed."""
        shutil.copytree(root / "a", tmp_path / "data" / "a")
        return tmp_path / "data" / "a"

    def run(self, site, plan, out, *more):
        site_module._loaded.clear()  # each call is a process
        return runner.invoke(
            app,
            ["experiment", "federation", "--site", f"a={site}", "--plan", str(plan), "--out",
             str(out), "--arms", "fedavg", "--threads", "1", "--workers", "1",
             "--cache", f"{site.parent}/cache", *more],
        )  # fmt: skip

    def test_the_same_is_reused_and_that_is_said(self, site, plan, tmp_path):
        assert self.run(site, plan, tmp_path / "out").exit_code == 0
        kept = tmp_path / "out/fedavg-seed0/summary.json"
        before = kept.stat().st_mtime_ns
        again = self.run(site, plan, tmp_path / "out")
        assert again.exit_code == 0
        assert kept.stat().st_mtime_ns == before
        said = " ".join(again.stderr.split())
        assert "1 of 1 arms already done, with the same data, plan and options" in said
        assert "1 of 1 models already scored" in said

    def test_one_pixel_one_row_or_one_option_is_refused_by_name(self, site, plan, tmp_path):
        out = tmp_path / "out"
        assert self.run(site, plan, out).exit_code == 0
        table, (mask, *_) = site / "labels.csv", sorted(site.glob("masks/*.png"))
        rows, pixels = table.read_text(), mask.read_bytes()
        table.write_text("".join(rows.splitlines(keepends=True)[:-1]))
        fewer = self.run(site, plan, out)
        assert isinstance(fewer.exception, OutputError)
        assert "data: a was" in str(fewer.exception)
        table.write_text(rows)
        drawn = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        row, column = np.argwhere(drawn)[0]
        drawn[row, column] = 0
        cv2.imwrite(str(mask), drawn)
        other = self.run(site, plan, out)
        assert isinstance(other.exception, OutputError)
        assert "data: a was" in str(other.exception)
        mask.write_bytes(pixels)
        threads = self.run(site, plan, out, "--threads", "2")
        assert isinstance(threads.exception, OutputError)
        assert "threads was 1, is now 2" in str(threads.exception)
        assert self.run(site, plan, out).exit_code == 0

    def test_arms_of_an_older_mamfed_go_on_and_that_is_said(self, site, plan, tmp_path):
        out = tmp_path / "out"
        assert self.run(site, plan, out).exit_code == 0
        (out / "arms.json").unlink()
        again = self.run(site, plan, out)
        assert again.exit_code == 0
        assert "did not record its data" in " ".join(again.stderr.split())
