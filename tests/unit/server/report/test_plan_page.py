"""``mamfed-server check`` is a page in words; plans that contradict themselves are not begun."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tests.unit.server.sites import Sites, run
from typer.testing import CliRunner

from mamfed_common.checkpoint import CheckpointFacts
from mamfed_common.errors import PlanError
from mamfed_common.plan import TrainingPlan, parse_plan
from mamfed_server.cli.main import app
from mamfed_server.report.plan_page import page, tolerance
from mamfed_server.run.plan_checks import contradictions, min_updates, without_effect
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.service import supervisor
from mamfed_server.settings import ServerHome

EXAMPLES = Path(__file__).parents[4] / "deploy" / "examples"
SITES = ("north", "south", "west")


def plan_of(text):
    return parse_plan(text, "plan")


def check(tmp_path, text, *words):
    (tmp_path / "plan.yaml").write_text(text)
    options = ["check", str(tmp_path / "plan.yaml"), "--home", str(tmp_path)]
    return CliRunner().invoke(app, [*options, *words])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "pretraining: {rounds: 1, learning_rate: 1e-3, deadline_seconds: 600}",
            "pretraining.dead",
        ),
        (
            "finetuning: {rounds: 1, learning_rate: 1e-3, deadline_seconds: 600, "
            "min_deadline_seconds: 601}",
            "finetuning.min_deadline_seconds, which is 601",
        ),
        ("evaluation: {every: 51}", "evaluation.every is 51, above finetuning.rounds, which is 50"),
    ],
)
def test_a_contradiction_is_refused_in_one_line(tmp_path, text, named):
    result = check(tmp_path, text)
    assert isinstance(result.exception, PlanError)
    assert named in str(result.exception)
    assert str(result.exception).count("\n") == 0
    assert str(result.exception).startswith(str(tmp_path / "plan.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "pretraining: {rounds: 0, learning_rate: 1e-3, deadline_seconds: 600}",
        "finetuning: {rounds: 0, learning_rate: 1e-3}\nevaluation: {every: 9}",
        "pretraining: {rounds: 1, learning_rate: 1e-3, deadline_seconds: 900}",
        "finetuning: {rounds: 3, learning_rate: 1e-3}\nevaluation: {every: 3}",
        "finetuning: {rounds: 3, learning_rate: 1e-3, quorum: 5}",
        (EXAMPLES / "plan.yaml").read_text(),
    ],
)
def test_what_makes_sense_is_accepted(tmp_path, text):
    assert check(tmp_path, text).exit_code == 0


def test_both_contradictions_are_named_at_once():
    plan = plan_of(
        "pretraining: {rounds: 1, learning_rate: 1e-3, deadline_seconds: 600}\n"
        "evaluation: {every: 99}"
    )
    assert len(list(contradictions(plan))) == 2


def test_a_checkpoint_or_a_run_of_such_a_plan_stays_readable(tmp_path, tiny_plan):
    """They are of runs that were done; only a new run is refused."""
    odd = tiny_plan.changed(
        pretraining={**tiny_plan.pretraining.model_dump(), "deadline_seconds": 600}
    )
    facts = CheckpointFacts(plan=odd, plan_sha256=odd.sha256(), stage="pretraining", server_round=1)
    assert CheckpointFacts.model_validate_json(facts.model_dump_json()).plan == odd
    home = make_home(tmp_path)
    with pytest.raises(PlanError, match="the plan: pretraining"):
        list(supervisor.check_start(home, odd, "first"))
    RunFolder(home.runs / "first").create(odd)
    assert any("resumes" in line for line in supervisor.check_start(home, odd, "first"))


def make_home(folder, sites=SITES):
    """A coordinator's home with approved sites."""
    place = folder / "home"
    options = ["--name", "N", "--host", "localhost", "--bind", "127.0.0.1"]
    assert CliRunner().invoke(app, ["init", str(place), *options]).exit_code == 0
    home = ServerHome(place)
    home.sites.mkdir(exist_ok=True)
    for site in sites:
        entry = {
            "site": site,
            "node_public_key": "",
            "node_fingerprint": "0" * 64,
            "certificates": [],
            "approved_at": "2026-11-29T12:00:00Z",
        }
        (home.sites / f"{site}.json").write_text(json.dumps(entry))
    return home


def test_three_sites_of_which_three_are_needed_tolerate_no_loss(tmp_path, tiny_plan):
    home = make_home(tmp_path)
    (tmp_path / "plan.yaml").write_text(tiny_plan.to_yaml())
    options = ["check", str(tmp_path / "plan.yaml"), "--home", str(home.path)]
    for said in (
        CliRunner().invoke(app, options).stdout,
        "\n".join(supervisor.check_start(home, tiny_plan, "first")),
    ):
        assert "a round needs 3 accepted updates" in said
        assert "3 sites are approved (north, south, west): none may be missing" in said
        assert "the run waits for each site that is offline, late or refused" in said


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        (SITES[:2], "start refuses the plan until 1 more site can take part"),
        (SITES, "none may be missing"),
        ((*SITES, "east"), "1 site may be missing from a round"),
        ((*SITES, "east", "mid"), "2 sites may be missing from a round"),
        (None, "of 3 sites none may be missing, of 4 one may"),
    ],
)
def test_how_many_may_be_missing(sites, words):
    (said,) = tolerance(TrainingPlan(), sites)
    assert words in said


def test_the_largest_quorum_counts():
    plan = plan_of("finetuning: {rounds: 3, learning_rate: 1e-3, quorum: 5}")
    assert min_updates(plan) == 5
    assert "a round needs 5 accepted updates" in tolerance(plan, SITES)[0]


def test_the_page_says_what_will_happen_how_long_and_what_it_tolerates(tmp_path):
    said = check(tmp_path, (EXAMPLES / "plan.yaml").read_text()).stdout
    plan = plan_of((EXAMPLES / "plan.yaml").read_text())
    assert said.startswith(f"{tmp_path / 'plan.yaml'} is valid, plan {plan.sha256()}\n")
    for words in (
        "What will happen",
        "stage 1, pretraining: 10 rounds of 2 epochs at every site that has benign cases",
        "stage 2, finetuning: 50 rounds of 8 steps",
        "of 1024 x 1024 pixels",
        "15% of each site's patients validate the model, which chooses the best round; 20% are "
        "tested at the end",
        "adapts the model to its own patients in 100 steps",
        "How long",
        "pretraining: 20 passes over a site's own images",
        "finetuning: 400 steps at each site",
        "finetuning: at most 25 days",
        "mamfed-client preflight --plan",
        "What it tolerates",
        "a round waits 30 minutes for a site that lost its connection",
        "at least 15 minutes and at most 12 hours",
    ):
        assert words in said, words
    assert "Note" not in said


def test_a_small_network_and_no_time_to_join_are_told_as_they_are(tmp_path):
    tiny = "image_size: 64\nnetwork: {channels: [8, 16], first_skip_level: 1, stem: 1}\n"
    said = check(tmp_path, f"{tiny}federation: {{join_seconds: 0}}\n").stdout
    assert re.search(r"sends the network, [1-9][0-9.]* kB, to every site", said)
    assert "the first round begins as soon as enough sites are connected" in said
    assert "0 seconds" not in said


def test_a_round_that_was_measured_here_tells_how_long_it_takes(tmp_path, tiny_plan):
    folder = run(Sites(), tiny_plan, tmp_path / "runs" / "first")
    folder.keep_rounds([r.model_copy(update={"seconds": 120.0}) for r in folder.rounds()])
    longer = tiny_plan.changed(finetuning={**tiny_plan.finetuning.model_dump(), "rounds": 30})
    said = "\n".join(page(longer, SITES, tmp_path / "runs"))
    assert "finetuning: about 1 hour, as a round took 2 minutes in earlier runs here" in said
    assert "together about 1 hour 2 minutes, then the test" in said
    other = longer.changed(image_size=64)
    assert "earlier runs" not in "\n".join(page(other, SITES, tmp_path / "runs"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("finetuning: {rounds: 3, learning_rate: 1e-3, quorum: 2}", "a round needs 3"),
        (
            "federation: {min_sites: 2}\nfinetuning: {rounds: 3, learning_rate: 1e-3, quorum: 4}",
            "4",
        ),
        ("federation: {offline_seconds: 99999}", "waits for no site longer than 12 hours"),
        ("federation: {max_share: 0.2}", "the largest share is at least 0.33"),
        ("federation: {server_learning_rate: 0.5}", "no effect without a server_optimiser"),
        ("finetuning: {rounds: 0, learning_rate: 1e-3}", "personal.steps has no effect"),
        ("evaluation: {validation_fraction: 0}", "the last one is used"),
        ("federation: {min_sites: 2}", "shows them what the others sent"),
    ],
)
def test_what_has_no_effect_or_a_price_is_a_note(tmp_path, text, words):
    said = check(tmp_path, text).stdout
    assert words in said[said.index("Note") :]


def test_the_default_plan_has_nothing_without_effect():
    assert list(without_effect(TrainingPlan())) == []


def test_an_empty_list_of_sites_is_said_in_words(tmp_path):
    shutil.copy(EXAMPLES / "server.yaml", tmp_path)
    result = CliRunner().invoke(app, ["sites", "list", "--home", str(tmp_path)])
    assert result.stdout.startswith("no site is approved yet")
