"""Every row of a table is in one column of what is shown, whatever becomes of it."""

import json
import re

import pytest
from tests.unit.client.conftest import Folder
from tests.unit.server.report.test_page import Page
from typer.testing import CliRunner

from mamfed_client.cli.main import app as client_app
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, save_checkpoint
from mamfed_common.metrics.row_account import RowAccount, account_of, reason_lines, total_of
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_simulations.cli.main import app

runner = CliRunner()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """All that may become of a row: 10 + 12 + 8 of use, 5 that serve nothing, 4 unreadable."""
    folder = Folder(tmp_path_factory.mktemp("table") / "site")
    for number in range(10):
        folder.malignant(f"M{number}").benign(f"M{number}") if number < 8 else folder.malignant(
            f"M{number}"
        )
    for number in range(12):
        folder.benign(f"B{number}", birads="1")
    folder.add("N1", pathology="malignant", lesion=True)  # no outline
    folder.add("N2", birads="3").add("N3", birads="3")
    folder.add("N4").add("N5")  # no label
    folder.benign("R1").add("R2", pathology="pudding").benign("R3", laterality="X")
    folder.malignant("R4")
    path = folder.write()
    (path / "images" / "36.png").unlink()
    (path / "masks" / "39.png").write_bytes(b"none")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


PLANS = {
    "as it is": {},
    "stage 2 alone": {"pretraining": {"rounds": 0, "learning_rate": 0.001}},
    "stage 1 alone": {"finetuning": {"rounds": 0, "learning_rate": 0.001}},
    "all beside": {
        "finetuning": {"rounds": 2, "learning_rate": 0.001, "beside": "without_malignancy"}
    },
    "nothing beside": {"losses": {"benign": 0, "empty": 0}},
    "in folds": {"evaluation": {"folds": 3, "fold": 1}},
}


def cells(output, site):
    """Return the numbers of a site's line in the first table that is printed."""
    line = next(line for line in output.splitlines() if re.match(rf"│ {site} +│", line))
    return [int(cell) for cell in line.split("│")[2:-1]]


@pytest.mark.parametrize("which", PLANS)
def test_the_columns_of_a_dry_run_add_up_to_the_rows(which, table, cache, tmp_path, tiny_plan):
    changed = tiny_plan.changed(**PLANS[which])
    (tmp_path / "plan.yaml").write_text(changed.to_yaml())
    options = ["--plan", str(tmp_path / "plan.yaml"), "--cache", str(cache), "--dry-run"]
    site = Site("here", (("here", table),), cache)
    data = load_site(site, changed)
    description = data.describe()
    result = runner.invoke(
        app, ["run", "--site", f"here={table}", "--out", f"{tmp_path}/x", *options]
    )
    rows, *rest = cells(result.stderr, "here")
    assert rows == len((table / "labels.csv").read_text().splitlines()) - 1 == 39
    assert sum(rest) == rows
    assert (rows, *rest) == account_of(description, changed)
    trained = {
        name
        for stage in Stage
        if changed.stage(stage).rounds
        for sequence in data.training(changed, stage)
        for name in (sequence.entry(i)[0] for i in range(len(sequence)))
    }
    assert rest[0] == len(trained), "as the very sequences that training reads"
    measured = changed.finetuning.rounds > 0
    for count, part in zip(rest[1:3], ("val", "test"), strict=True):
        assert count == len(data.samples(["malignant", "without_malignancy"], part)) * measured
    assert rest[-1] == 4


@pytest.mark.parametrize("which", PLANS)
def test_the_reasons_add_up_to_what_is_not_used(which, table, cache, tiny_plan):
    plan = tiny_plan.changed(**PLANS[which])
    description = load_site(Site("here", (("here", table),), cache), plan).describe()
    lines = reason_lines({"here": description}, plan)
    counts = {
        kind: sum(int(line.split()[1]) for line in lines if kind in line)
        for kind in (" excluded from", " are still used", " usable in a stage", " rejected:")
    }
    left_out, used, idle, rejected = counts.values()
    account = account_of(description, plan)
    assert left_out - used + idle == account.unused
    assert rejected == account.rejected == 4


def test_a_comparison_and_a_study_say_it_too(table, cache, tmp_path, tiny_plan):
    (tmp_path / "plan.yaml").write_text(tiny_plan.to_yaml())
    common = ["--plan", f"{tmp_path}/plan.yaml", "--cache", str(cache), "--dry-run"]
    sites = ["--site", f"a={table}", "--arms", "fedavg", "--out", f"{tmp_path}/x"]
    compared = runner.invoke(app, ["experiment", "federation", *sites, *common])
    study = ["--data", str(table), "--pretraining-data", str(table), "--folds", "2"]
    lines = runner.invoke(app, ["experiment", "table1", *study, "--out", f"{tmp_path}/y", *common])
    found = re.findall(r"(\d+) rows: (\d+) trained on, (\d+) val\w+, (\d+) test, (\d+) not used, "
                       r"(\d+) rejected", lines.stderr)  # fmt: skip
    assert len(found) == 3, "one a fold, and one of the data for pretraining"
    for row in [*found, cells(compared.stderr, "a")]:
        rows, *rest = map(int, row)
        assert rows == sum(rest) == 39


def test_what_an_evaluation_scores_and_does_not_adds_up(table, cache, tmp_path, tiny_plan):
    facts = CheckpointFacts(
        plan=tiny_plan, plan_sha256=tiny_plan.sha256(), stage=Stage.FINETUNING, server_round=2
    )
    state = state_of(build_network(tiny_plan.network, 0))
    save_checkpoint(tmp_path / "model.safetensors", Checkpoint(state, facts))
    for options in ([], ["--part", "test", "--site", "here"]):
        command = ["evaluate", "--checkpoint", f"{tmp_path}/model.safetensors", "--data"]
        result = runner.invoke(
            client_app,
            [*command, str(table), "--out", f"{tmp_path}/r.json", "--cache", str(cache), *options],
        )
        scored = re.search(r"scored: (\d+) images of (\d+) rows", result.output)
        others = re.findall(r"not scored: (\d+) ", result.output)
        assert int(scored[1]) + sum(map(int, others)) == int(scored[2]) == 39, result.output


def test_a_partition_deals_every_image_in_one_column(table, tmp_path):
    result = runner.invoke(
        app, ["partition", "--data", str(table), "--sites", "2", "--out", f"{tmp_path}/p",
              "--dry-run", "--format", "json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    images = 0
    for hospital in json.loads(result.stdout)["hospitals"]:
        line = next(x for x in result.stderr.splitlines() if hospital["name"] in x)
        total, *kinds = (int(cell) for cell in line.split("│")[4:8])
        assert total == sum(kinds)
        images += total
    assert images == 30


def test_the_report_has_the_same_account(table, cache, tmp_path, tiny_plan):
    (tmp_path / "plan.yaml").write_text(tiny_plan.to_yaml())
    result = runner.invoke(
        app,
        ["run", "--site", f"here={table}", "--plan", f"{tmp_path}/plan.yaml", "--threads", "1",
         "--out", f"{tmp_path}/run", "--cache", str(cache)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    page = Page(tmp_path / "run" / "report.html")
    row = next(r for r in page.rows_starting("here") if r[1].strip().startswith("pretraining"))
    rows, *rest = map(int, row[2:8])
    assert rows == sum(rest) == 39
    assert "In the tables of 1 site: 39 rows:" in page.text


def test_accounts_are_added_up():
    both = total_of([RowAccount(10, 1, 2, 3, 4, 0), RowAccount(5, 1, 1, 1, 1, 1)])
    assert both == RowAccount(15, 2, 3, 4, 5, 1)
    assert total_of([]) == RowAccount(0, 0, 0, 0, 0, 0)
    assert "1 row: 1 trained on" in RowAccount(1, 1, 0, 0, 0, 0).in_words()


def test_a_plan_of_defaults_uses_what_it_says(table, cache):
    plan = TrainingPlan(image_size=32)
    description = load_site(Site("here", (("here", table),), cache), plan).describe()
    account = account_of(description, plan)
    assert account.rows == sum(account[1:])
