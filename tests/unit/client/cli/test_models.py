"""A site's own models by name: listed, and taken by predict and evaluate."""

import json
import os

import pytest
import yaml
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.models.model_store import ModelFolder, folder_for
from mamfed_client.site.settings import SiteHome
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, PersonalFacts, load_checkpoint
from mamfed_common.errors import CheckpointError, SetupError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage

runner = CliRunner()
SCORE = SiteScore(
    images=5,
    dice=0.625,
    lesions=5,
    lesions_found=4,
    images_without_malignancy=3,
    false_positive_pixels=1.5,
)


@pytest.fixture
def home(tmp_path):
    home = SiteHome(tmp_path / "home")
    home.path.mkdir()
    settings = {"name": "here", "data": [{"name": "here", "folder": "x"}]}
    home.settings_path.write_text(yaml.safe_dump(settings))
    return home


def keep(home, plan, run, *, seed=0, age=0, personal=True, shared_sha256=""):
    """Keep a run's models: shared weights of one seed, personal ones of another."""
    folder = ModelFolder(folder_for(home.models, run, plan))
    shared, own = (state_of(build_network(plan.network, s)) for s in (seed, seed + 100))
    facts = CheckpointFacts(
        plan=plan, plan_sha256=plan.sha256(), stage=Stage.FINETUNING, server_round=2, threshold=0.3
    )
    folder.keep_shared(Checkpoint(shared, facts), run)
    folder.note_score("shared", SCORE, run)
    if personal:
        adapted = PersonalFacts(
            site="here",
            steps=40,
            learning_rate=3e-4,
            share=0.5,
            shared_sha256=shared_sha256 or state_sha256(shared),
        )
        folder.keep_personal(Checkpoint(own, facts.model_copy(update={"personal": adapted})))
    for path in folder.path.iterdir():
        os.utime(path, (1e9 - age, 1e9 - age))
    return folder


def call(*words):
    return runner.invoke(app, [str(word) for word in words])


@pytest.fixture
def data(folder):
    for number in range(5):
        folder.malignant(f"M{number}").benign(f"B{number}")
    return folder.write()


@pytest.fixture
def evaluated(home, data, tmp_path):
    """Evaluates by the given options; returns the result's weights."""

    def run(*options):
        out = tmp_path / "result.json"
        done = call("evaluate", "--data", data, "--out", out, "--home", home.path, *options)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(out.read_text())

    return run


def digest(plan, seed):
    return state_sha256(state_of(build_network(plan.network, seed)))


def test_evaluate_takes_the_latest_run_s_model_or_a_named_one_s(home, tiny_plan, evaluated):
    keep(home, tiny_plan, "old", seed=1, age=50)
    keep(home, tiny_plan, "new", seed=2)
    own, shared = evaluated("--model", "personal"), evaluated("--model", "shared")
    assert own["weights_sha256"] == digest(tiny_plan, 102)
    assert own["personal_of"] == "here"
    assert own["threshold"] == 0.3
    assert shared["weights_sha256"] == digest(tiny_plan, 2)
    assert "personal_of" not in shared
    for run in ("old", f"old-{tiny_plan.sha256()[:12]}"):
        old = evaluated("--model", "personal", "--run", run)
        assert old["weights_sha256"] == digest(tiny_plan, 101)


def test_predict_takes_them_too_from_a_home_that_is_here(
    home, tiny_plan, data, tmp_path, monkeypatch
):
    keep(home, tiny_plan, "demo")
    monkeypatch.chdir(home.path)
    picture = next((data / "images").glob("*.png"))
    done = call("predict", picture, "--model", "personal", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert f"model {digest(tiny_plan, 100)[:12]}, personal model of here" in done.output


def test_what_lies_there_is_listed(home, tiny_plan):
    assert "no model yet" in call("models", "list", "--home", home.path).output
    keep(home, tiny_plan, "old", age=50, personal=False)
    keep(home, tiny_plan, "new").note_score("personal", SCORE.model_copy(update={"dice": 0.75}))
    head, old, new, *cards = call("models", "list", "--home", home.path).output.splitlines()
    plan = tiny_plan.sha256()[:12]
    assert head.split("  ")[0] == "run"
    assert old.split() == ["old", plan, "2", "0.625", "(5", "images)", "none"]
    assert new.split() == [
        "new",
        plan,
        "2",
        *["0.625", "(5", "images)"],
        *["0.750", "(5", "images)"],
    ]
    assert cards == [f"card: {home.models}/{run}-{plan}/card.md" for run in ("old", "new")]
    card = (home.models / f"new-{plan}" / "card.md").read_text()
    assert card.startswith("# The final model of run new\n")
    assert tiny_plan.sha256() in card
    assert (
        json.loads((home.models / f"new-{plan}" / "shared.json").read_text())["weights_sha256"]
        in card
    )
    assert "shared model: mean Dice 0.625 over 5 images, 4 of 5 lesions found" in card
    assert "(`personal.safetensors`): mean Dice 0.750 over 5 images" in card
    printed = call("models", "list", "--home", home.path, "--format", "json").stdout
    first, second = json.loads(printed)
    assert first["personal"] is None
    assert second["personal"]["steps"] == 40
    assert second["personal"]["score"]["dice"] == 0.75


def test_a_model_that_did_not_come_is_added_where_its_plan_came(home, tiny_plan, tmp_path):
    theirs = keep(SiteHome(tmp_path / "theirs"), tiny_plan, "first").file("shared")
    done = call("models", "add", theirs, "--run", "first", "--home", home.path)
    assert "which never arrived at this site" in str(done.exception)
    PlanStore(home.plans).remember(tiny_plan)
    done = call("models", "add", theirs, "--run", "first", "--home", home.path)
    (ours,) = home.models.glob("first-*/shared.safetensors")
    assert ours.read_bytes() == theirs.read_bytes()
    sha256 = load_checkpoint(theirs).facts.weights_sha256
    assert f"SHA-256 of its weights: {sha256}" in done.output
    card = (ours.parent / "card.md").read_text()
    assert "Added as a file by a person" in card
    assert "came from the federation's server" not in card
    personal = theirs.with_name("personal.safetensors")
    done = call("models", "add", personal, "--run", "first", "--home", home.path)
    assert "adapted by site here, expected the shared model" in str(done.exception)
    damaged = tmp_path / "half.safetensors"
    damaged.write_bytes(theirs.read_bytes()[:-9])
    done = call("models", "add", damaged, "--run", "first", "--home", home.path)
    assert isinstance(done.exception, CheckpointError)
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_damaged_file_is_named_and_the_rest_listed(home, tiny_plan, evaluated):
    folder = keep(home, tiny_plan, "demo")
    path = folder.file("personal")
    path.write_bytes(path.read_bytes()[:-7])
    done = call("models", "list", "--home", home.path)
    assert done.exit_code == 0
    assert "damaged" in done.output.splitlines()[1]
    assert str(path) in done.output.splitlines()[2]
    with pytest.raises(CheckpointError, match=r"personal\.safetensors: damaged"):
        evaluated("--model", "personal")
    assert evaluated("--model", "shared")


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_each_mistake_is_one_line(home, tiny_plan, evaluated, tmp_path):
    with pytest.raises(CheckpointError, match="no model yet") as error:
        evaluated("--model", "personal")
    one_line(error)
    keep(home, tiny_plan, "demo", personal=False)
    with pytest.raises(CheckpointError, match="left no personal model") as error:
        evaluated("--model", "personal")
    assert "--model shared" in one_line(error)
    with pytest.raises(CheckpointError, match="no run 'other', expected one of demo-") as error:
        evaluated("--model", "shared", "--run", "other")
    one_line(error)
    done = call("models", "list", "--home", tmp_path)
    assert isinstance(done.exception, SetupError)
    assert "site.yaml: not found; create a site" in str(done.exception)


def test_a_personal_model_of_another_plan_or_other_weights_is_refused(home, tiny_plan, evaluated):
    keep(home, tiny_plan, "demo", shared_sha256="0" * 64)
    with pytest.raises(CheckpointError, match="adapted from other weights") as error:
        evaluated("--model", "personal")
    one_line(error)
    other = tiny_plan.changed(seed=9)
    mine, theirs = keep(home, tiny_plan, "demo"), keep(home, other, "other")
    theirs.file("personal").replace(mine.file("personal"))
    with pytest.raises(CheckpointError, match=f"of plan {other.sha256()[:12]}, but the") as error:
        evaluated("--model", "personal", "--run", "demo")
    one_line(error)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "found neither"),
        (("--model", "shared", "--checkpoint", "x"), "found both"),
        (("--checkpoint", "x", "--run", "demo"), "--run goes with --model"),
        (("--model", "theirs"), "theirs"),
    ],
)
def test_options_that_name_no_model_or_two_are_refused(home, tmp_path, options, said):
    where = ("--data", tmp_path, "--out", tmp_path / "r.json", "--home", home.path)
    done = call("evaluate", *where, *options)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
