"""``mamfed-simulate`` from the command line to the report, small and whole."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mamfed_client.preparation.site_data import Site
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import DataError, MamfedError, OutputError, PlanError, RunError
from mamfed_common.metrics.row_account import account_of
from mamfed_common.metrics.site_score import THRESHOLDS
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import parse_plan, read_plan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_server.report.page import report_run
from mamfed_simulations.cli.main import app
from mamfed_simulations.federation.arms import describe_sites
from mamfed_simulations.federation.demo import demo_plan
from mamfed_simulations.federation.experiment import Experiment, simulate
from mamfed_simulations.federation.hardware import ArmHardware
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort
from mamfed_simulations.reporting.progress import Progress

runner = CliRunner()
SHARED = Path(__file__).parents[5] / "shared" / "data"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("phantoms")
    for name, look in VENDORS.items():
        write_cohort(root / name, look, benign=8, malignant=12, seed=3, scale=0.08)
    return {name: root / name for name in VENDORS}


@pytest.fixture
def plan(tmp_path, tiny_plan) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(tiny_plan.to_yaml())
    return path


def run(folders, out, *options):
    sites = [part for name, f in folders.items() for part in ("--site", f"{name}={f}")]
    return runner.invoke(
        app, ["run", *sites, "--out", str(out), "--threads", "1", *[str(o) for o in options]]
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the first test that needs it leaves one whole run; no test changes it."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def whole(kept, folders, cache, plan):
    """The run of ``plan`` over ``folders``, and what it printed."""
    if not (kept / "run").exists():
        options = ("--plan", plan, "--cache", cache, "--format", "json")
        result = run(folders, kept / "run", *options)
        assert result.exit_code == 0, result.output
        (kept / "stdout").write_text(result.stdout)
    return kept / "run"


def weights(out, name="final"):
    return state_sha256(load_checkpoint(out / "checkpoints" / f"{name}.safetensors").state)


def test_a_run_ends_with_a_summary_and_a_report(whole, kept, folders, plan):
    out = whole
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads((kept / "stdout").read_text()) == summary
    assert set(summary["arms"]) == {"federated"}
    assert Path(summary["checkpoint"]) == out / "checkpoints" / "best.safetensors"
    assert summary["plan_sha256"] == parse_plan(plan.read_text(), "p").sha256()
    assert summary["threshold"] == load_checkpoint(Path(summary["checkpoint"])).facts.threshold
    assert summary["threshold"] in THRESHOLDS
    assert summary["seconds"] > 0
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "figure2.png").exists()
    notes = json.loads((out / "report.json").read_text())
    assert [(case["site"]) for case in notes["cases"]] == sorted(2 * list(folders))
    assert [case["dice"] for case in notes["worst"]] == sorted(c["dice"] for c in notes["worst"])
    assert set(notes["intervals"]) == set(folders)
    page = (out / "report.html").read_bytes()
    assert report_run(out).read_bytes() == page


def test_a_run_that_fails_midway_has_a_report_too(tmp_path, folders, tiny_plan):
    endless = {
        "losses": {"benign": 1e38},
        "finetuning": {"rounds": 2, "quorum": 3, "learning_rate": 0.001},
    }
    (tmp_path / "plan.yaml").write_text(tiny_plan.changed(**endless).to_yaml())
    result = run(folders, tmp_path / "run", "--plan", tmp_path / "plan.yaml")
    assert isinstance(result.exception, RunError), result.output
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The run failed: finetuning round" in page
    assert "reports a loss of" in page
    assert "asked, no answer" in page


def test_the_demo_compares_with_each_site_alone_and_with_all_data_pooled(
    tmp_path, folders, tiny_plan
):
    sites = tuple(Site(n, ((n, f),), tmp_path / "cache") for n, f in sorted(folders.items()))
    experiment = Experiment(sites=sites, plan=tiny_plan, out=tmp_path / "run", compare=True)
    pages = []
    for workers in (2, 1):  # the second moves the first aside, with all its arms
        experiment = replace(experiment, machine=ArmHardware(workers=workers))
        with Progress() as progress:
            summary = simulate(experiment, describe_sites(sites, tiny_plan), progress)
        pages.append(json.dumps([summary["arms"], summary["status"], summary["warnings"]]))
    assert pages[0] == pages[1]
    for path in (tmp_path / "run").glob("**/*.safetensors"):
        earlier = tmp_path / "run.1" / path.relative_to(tmp_path / "run")
        assert path.read_bytes() == earlier.read_bytes()
    assert len(list((tmp_path / "run").glob("**/final.safetensors"))) == 5
    assert set(summary["arms"]) == {"federated", "local", "centralised"}
    for arm in summary["arms"].values():
        assert set(arm["sites"]) == set(folders)
        values = [site["dice"] for site in arm["sites"].values()]
        assert arm["mean_dice"] == pytest.approx(sum(values) / len(values))
        assert all(site["images"] == 2 for site in arm["sites"].values())
    assert set(summary["arms"]["local"]["across"]["aurora"]) == set(folders)


def test_the_same_command_twice_gives_equal_checkpoints(tmp_path, folders, plan, cache, whole):
    """The second prepares all images again: the cache is its own."""
    assert run(folders, tmp_path / "two", "--plan", plan).exit_code == 0
    for name in ("latest", "best", "final"):
        files = [out / "checkpoints" / f"{name}.safetensors" for out in (whole, tmp_path / "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
    other = ("--plan", plan, "--cache", cache, "--seed", 5)
    assert run(folders, tmp_path / "other", *other).exit_code == 0
    assert weights(tmp_path / "other") != weights(whole)


def test_training_in_less_memory_gives_the_same_bits(tmp_path, folders, plan, cache, whole):
    options = ("--plan", plan, "--cache", cache, "--activation-checkpointing")
    result = run(folders, tmp_path / "again", *options)
    assert result.exit_code == 0, result.output
    assert weights(tmp_path / "again") == weights(whole)


def test_flowers_own_engine_gives_the_same_bits(tmp_path, folders, plan):
    assert run(folders, tmp_path / "process", "--plan", plan).exit_code == 0
    result = run(folders, tmp_path / "ray", "--plan", plan, "--engine", "ray")
    assert result.exit_code == 0, result.output
    files = [tmp_path / r / "checkpoints" / "final.safetensors" for r in ("process", "ray")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_failure_on_flowers_own_engine_is_the_same_one_line(tmp_path, folders, plan):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    result = run(folders, tmp_path / "run", "--plan", plan, "--engine", "ray")
    assert isinstance(result.exception, OutputError)
    assert "not a run folder" in str(result.exception)


def test_the_order_of_sites_on_the_command_line_does_not_matter(
    tmp_path, folders, plan, cache, whole
):
    turned = dict(reversed(folders.items()))
    result = run(turned, tmp_path / "two", "--plan", plan, "--cache", cache)
    assert result.exit_code == 0, result.output
    assert weights(whole) == weights(tmp_path / "two")


def test_a_dry_run_checks_the_data_and_writes_nothing(tmp_path, folders, plan):
    result = run(folders, tmp_path / "run", "--plan", plan, "--dry-run")
    assert result.exit_code == 0
    assert "aurora" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_that_a_stage_would_have_no_site(tmp_path, plan):
    write_cohort(tmp_path / "d", VENDORS["aurora"], benign=6, malignant=0, seed=0, scale=0.05)
    result = run({"a": tmp_path / "d"}, tmp_path / "run", "--plan", plan, "--dry-run")
    assert isinstance(result.exception, RunError)
    assert "finetuning: no site" in str(result.exception)


def test_bad_rows_are_named_in_the_report_and_the_rest_trains(tmp_path, plan):
    data = tmp_path / "data"
    write_cohort(data, VENDORS["aurora"], benign=8, malignant=12, seed=4, scale=0.08)
    images, masks = sorted((data / "images").iterdir()), sorted((data / "masks").iterdir())
    images[0].write_bytes(b"not DICOM")
    masks[0].unlink()
    masks[1].write_bytes(masks[1].read_bytes()[:20])
    result = run({"a": data}, tmp_path / "run", "--plan", plan)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["sites"]["a"]["rejected"] == {
        "unreadable image": 1,
        "missing mask": 1,
        "unreadable mask": 1,
    }
    report = (tmp_path / "run" / "report.html").read_text()
    assert images[0].name in report
    assert "missing mask" in report


def empty_folder(tmp_path, folders):
    (tmp_path / "empty").mkdir()
    return {"a": tmp_path / "empty"}, [], DataError, "empty"


def missing_folder(tmp_path, folders):
    return {"a": tmp_path / "nowhere"}, [], DataError, "nowhere"


def wrong_column(tmp_path, folders):
    write_cohort(tmp_path / "d", VENDORS["aurora"], benign=2, malignant=2, seed=0, scale=0.05)
    table = tmp_path / "d" / "labels.csv"
    table.write_text(table.read_text().replace("pathology", "patholgy", 1))
    return {"a": tmp_path / "d"}, [], DataError, "patholgy"


def no_malignant_case(tmp_path, folders):
    write_cohort(tmp_path / "d", VENDORS["aurora"], benign=6, malignant=0, seed=0, scale=0.05)
    return {"a": tmp_path / "d"}, [], RunError, "finetuning"


def no_benign_case(tmp_path, folders):
    write_cohort(tmp_path / "d", VENDORS["aurora"], benign=0, malignant=6, seed=0, scale=0.05)
    return {"a": tmp_path / "d"}, [], RunError, "pretraining"


def size_of_zero(tmp_path, folders):
    return folders, ["--size", "0"], PlanError, "--size: image_size: found 0"


def unknown_plan_key(tmp_path, folders):
    (tmp_path / "bad.yaml").write_text("epochs: 3\n")
    return folders, ["--plan", tmp_path / "bad.yaml"], PlanError, "unknown key 'epochs'"


def unknown_device(tmp_path, folders):
    return folders, ["--device", "tpu"], PlanError, "'tpu'"


def out_is_something_else(tmp_path, folders):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    return folders, [], OutputError, "not a run folder"


@pytest.mark.parametrize(
    "mistake",
    [
        empty_folder,
        missing_folder,
        wrong_column,
        no_malignant_case,
        no_benign_case,
        size_of_zero,
        unknown_plan_key,
        unknown_device,
        out_is_something_else,
    ],
)
def test_a_mistake_is_one_line_that_names_the_culprit(tmp_path, folders, plan, mistake):
    sites, options, kind, culprit = mistake(tmp_path, folders)
    if "--plan" not in options:
        options = [*options, "--plan", plan]
    before = set(tmp_path.iterdir())
    result = run(sites, tmp_path / "run", *options)
    assert isinstance(result.exception, kind)
    assert isinstance(result.exception, MamfedError)
    assert culprit in str(result.exception)
    assert "\n" not in str(result.exception)
    assert set(tmp_path.iterdir()) <= before | {tmp_path / "cache"}


@pytest.mark.parametrize(
    ("site", "culprit"),
    [
        ("folder", "NAME=FOLDER"),
        ("=x", "NAME=FOLDER"),
        ("a=", "NAME=FOLDER"),
        ("a b=x", "'a b'"),
        ("../a=x", "'../a'"),
    ],
)
def test_a_malformed_site_option_is_a_usage_error(tmp_path, site, culprit):
    result = runner.invoke(app, ["run", "--site", site, "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert culprit in result.stderr


def test_the_process_ends_with_one_line_and_the_documented_code(tmp_path):
    command = "from mamfed_simulations.cli.main import main; main()"
    arguments = ["run", "--site", f"a={tmp_path / 'nowhere'}", "--out", str(tmp_path / "run")]
    ended = subprocess.run(
        [sys.executable, "-c", command, *arguments], capture_output=True, text=True
    )
    assert ended.returncode == DataError.exit_code
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


def test_plan_prints_what_run_reads():
    plan = parse_plan(runner.invoke(app, ["plan", "--size", "256"]).stdout, "stdout")
    assert plan.image_size == 256
    assert parse_plan(runner.invoke(app, ["plan", "--demo"]).stdout, "stdout") == demo_plan()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real mammograms lie beside the project only")
def test_real_mammograms_of_three_unlike_sites_train_together(tmp_path, plan):
    """Full-sized in kind, tiny in size: cbis pretrains only, cesm fine-tunes only, mias both."""
    folders = {name: SHARED / name for name in ("cbis", "cesm", "mias")}
    quick = plan.read_text().replace("rounds: 2", "rounds: 1")
    plan.write_text(quick)
    result = run(folders, tmp_path / "run", "--plan", plan)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stages"] == {"pretraining": ["cbis", "mias"], "finetuning": ["cesm", "mias"]}
    sites = summary["arms"]["federated"]["sites"]
    assert sites["cesm"]["images"] > 30
    assert sites["cbis"]["dice"] is None
    assert sum(summary["sites"]["cbis"]["left_out"].values()) == 126
    for name in folders:
        account = account_of(
            SiteDescription.model_validate(summary["sites"][name]), read_plan(plan)
        )
        assert account.rows == sum(account[1:]), name
