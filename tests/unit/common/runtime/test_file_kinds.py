"""Each of mamfed's own files where another is expected: one sentence, no complaint of keys."""

import pytest
from typer.testing import CliRunner

from mamfed_client.cli.main import app as client
from mamfed_client.site import identity
from mamfed_client.site.settings import SiteHome
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, save_checkpoint
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage
from mamfed_common.runtime.file_kinds import FileKind, kind_of
from mamfed_common.security.enrolment import write_document
from mamfed_server.admission.approval import approve
from mamfed_server.cli.main import app as server
from mamfed_server.settings import ServerHome


def run(app, *words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result, str(result.exception)


@pytest.fixture
def files(tmp_path, tiny_plan):
    """One file of each kind, made as it is made in life."""
    site, coordinator = SiteHome(tmp_path / "site"), ServerHome(tmp_path / "server")
    (tmp_path / "data").mkdir()
    run(client, "init", site.path, "--name", "north", "--data", tmp_path / "data")
    run(server, "init", coordinator.path, "--name", "Fed", "--host", "localhost")
    request, welcome = tmp_path / "a.request.json", tmp_path / "a.welcome.json"
    write_document(request, identity.build_request(site, "north", ""))
    write_document(welcome, approve(coordinator, identity.build_request(site, "north", "")))
    plan, checkpoint = tmp_path / "plan.yaml", tmp_path / "best.safetensors"
    plan.write_text(tiny_plan.to_yaml())
    sha256 = tiny_plan.sha256()
    facts = CheckpointFacts(
        plan=tiny_plan, plan_sha256=sha256, stage=Stage.FINETUNING, server_round=1
    )
    save_checkpoint(checkpoint, Checkpoint(state_of(build_network(tiny_plan.network, 0)), facts))
    bundle = tmp_path / "bundle" / "configs"
    bundle.mkdir(parents=True)
    (bundle / "metadata.json").write_text("{}")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "plan.yaml").write_text(tiny_plan.to_yaml())
    return {
        FileKind.REQUEST: request,
        FileKind.WELCOME: welcome,
        FileKind.PLAN: plan,
        FileKind.SITE_SETTINGS: site.settings_path,
        FileKind.SERVER_SETTINGS: coordinator.settings_path,
        FileKind.CHECKPOINT: checkpoint,
        FileKind.DESCRIPTION: checkpoint.with_suffix(".json"),
        FileKind.BUNDLE: tmp_path / "bundle",
        FileKind.RUN: tmp_path / "run",
        FileKind.PRIVATE_KEY: site.node_key,
        FileKind.CERTIFICATE: coordinator.ca,
    }


def test_each_kind_is_known_by_what_it_holds(files, tmp_path):
    assert {kind: kind_of(path) for kind, path in files.items()} == {kind: kind for kind in files}
    for number, (name, content) in enumerate(
        {"t.csv": b"image,mask\n", "x.json": b"[1]", "e.yaml": b"", "i.png": b"\x89PNG\r\n"}.items()
    ):
        path = tmp_path / f"{number}{name}"
        path.write_bytes(content)
        assert kind_of(path) is None
    assert kind_of(tmp_path / "none") is None


COMMANDS = {
    "join": (client, ["join", "{file}", "--home", "{home}"], FileKind.WELCOME),
    "preflight": (client, ["preflight", "--plan", "{file}", "--home", "{home}"], FileKind.PLAN),
    "plan approve": (client, ["plan", "approve", "{file}", "--home", "{home}"], FileKind.PLAN),
    "sites approve": (
        server,
        ["sites", "approve", "{file}", "--home", "{server}"],
        FileKind.REQUEST,
    ),
    "check": (server, ["check", "{file}"], FileKind.PLAN),
    "start": (
        server,
        ["start", "--plan", "{file}", "--run", "r", "--home", "{server}"],
        FileKind.PLAN,
    ),
    "evaluate": (
        client,
        ["evaluate", "--checkpoint", "{file}", "--data", "{data}", "--out", "{out}"],
        FileKind.CHECKPOINT,
    ),
    "predict": (
        client,
        ["predict", "{data}", "--checkpoint", "{file}", "--out", "{out}"],
        FileKind.CHECKPOINT,
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_of_another_kind_is_named_with_what_takes_it(files, tmp_path, name):
    app, words, expected = COMMANDS[name]
    places = {
        "home": files[FileKind.SITE_SETTINGS].parent,
        "server": files[FileKind.SERVER_SETTINGS].parent,
        "data": tmp_path / "data",
        "out": tmp_path / "out",
    }
    for kind, file in files.items():
        folder_refused = file.is_dir() and name == "predict"  # says so itself
        if kind is expected or folder_refused:
            continue
        result, said = run(app, *(word.format(file=file, **places) for word in words))
        assert result.exit_code, kind
        assert str(file) in said
        own = name == "join" and kind is FileKind.REQUEST
        assert ("this is your own request" if own else f"this is {kind.words} (") in said, kind
        assert "unknown key" not in said
        assert not (tmp_path / "out").exists()


def test_the_settings_of_the_other_role_are_named(files):
    site, coordinator = (files[k] for k in (FileKind.SITE_SETTINGS, FileKind.SERVER_SETTINGS))
    kept = coordinator.read_text()
    coordinator.write_text(site.read_text())
    _, said = run(server, "sites", "list", "--home", coordinator.parent)
    assert "this is the settings of a site" in said
    site.write_text(kept)
    _, said = run(client, "status", "--home", site.parent)
    assert "this is the settings of a coordinator" in said


@pytest.mark.parametrize(
    ("name", "better"),
    [("North Hospital", "North-Hospital"), ("Hôpital Nord", "Hopital-Nord"), ("../x", "x")],
)
def test_a_name_that_cannot_be_one_is_answered_with_one_that_can(tmp_path, name, better):
    (tmp_path / "data").mkdir()
    sentence = f"expected letters, digits and hyphens: try {better}"
    where = ("init", tmp_path / "home", "--data", tmp_path / "data")
    assert run(client, *where, "--name", name)[1] == f"--name {name!r}: {sentence}"
    data = f"{name}={tmp_path / 'data'}"
    _, said = run(client, *where[:2], "--name", "north", "--data", data, "--data", data)
    assert said == f"--data {name!r}: {sentence}"
    assert not (tmp_path / "home").exists()


def test_no_pattern_and_no_count_of_a_tuple_is_shown(files):
    path = files[FileKind.SITE_SETTINGS]
    path.write_text("name: North Hospital\ndata: [{name: a b, folder: x}]\n")
    _, said = run(client, "status", "--home", path.parent)
    assert said == (
        f"{path}: name: found 'North Hospital', expected a name of letters, digits and hyphens: "
        "try North-Hospital; data.0.name: found 'a b', expected a name of letters, digits and "
        "hyphens: try a-b"
    )
    path.write_text("name: a\ndata: []\n")
    _, said = run(client, "status", "--home", path.parent)
    assert said == f"{path}: data: found [], expected 1 or more of them"
