"""The examples of ``docs/extending.md``, installed as a package and run through a federation."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.datasets import read_folder
from mamfed_client.node.client_app import make_client_app
from mamfed_client.preparation.site_data import Site
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import DataError, PlanError, RunError
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import parse_plan
from mamfed_common.runtime import plugins
from mamfed_server.run.run import Job
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.federation import runner
from mamfed_simulations.federation.runner import run_federation
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
PACKAGE = "mamfed_example"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Lay the page's package out as pip does, where Python looks for packages."""
    folder = tmp_path / "site-packages"
    for text in blocks("python"):
        path = folder / text.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / PACKAGE / "__init__.py").touch()
    project = tomllib.loads(blocks("toml")[0])["project"]
    information = folder / f"{PACKAGE}-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {project['name']}\nVersion: 1.0\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder)
    yield project
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms")
    for name, look in list(VENDORS.items())[:2]:
        write_cohort(root / name, look, benign=4, malignant=8, seed=3, scale=0.06)
    return {path.name: path for path in sorted(root.iterdir())}


@pytest.fixture
def plan(tiny_plan):
    return tiny_plan.model_copy(update={"finetuning": tiny_plan.finetuning.lasting(1, 1)})


def run(plan, folders, tmp_path):
    sites = [Site(name, ((name, path),), tmp_path / "cache") for name, path in folders.items()]
    run_federation(sites, Job(plan=plan, folder=tmp_path / "run", num_nodes=2), threads=1)
    return load_checkpoint(RunFolder(tmp_path / "run").checkpoint_path("final")).state


def extended(plan):
    """Return a plan with what the page's plan names."""
    ours = parse_plan(blocks("yaml")[0], "the page")
    network = plan.network.model_copy(update={"name": ours.network.name})
    federation = {**plan.federation.model_dump(), "strategy": ours.federation.strategy}
    losses = {**plan.losses.model_dump(), "segmentation": ours.losses.segmentation}
    return plan.changed(network=network, losses=losses, federation=federation)


def test_a_network_a_loss_and_a_strategy_train_a_federation(installed, plan, folders, tmp_path):
    state = run(extended(plan), folders, tmp_path)
    assert "backbone.layers.0.weight" in state
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_packages_are_looked_for_once_and_anew_on_another_import_path(installed, monkeypatch):
    once = plugins.offered(plugins.Group.LOSSES)
    assert once is plugins.offered(plugins.Group.LOSSES)
    monkeypatch.setattr(sys, "path", sys.path[1:])
    assert not plugins.offered(plugins.Group.LOSSES)


def test_every_group_has_its_example(installed):
    assert installed["entry-points"].keys() == {group.value for group in plugins.Group}
    for group in plugins.Group:
        assert set(plugins.installed(group)) == set(installed["entry-points"][group])
        assert f"`{group}`" in PAGE.read_text()


def test_a_coordinator_without_the_network_or_the_strategy_names_it(plan, folders, tmp_path):
    ours = extended(plan)
    with pytest.raises(PlanError, match="strategy 'half_step' is not installed here"):
        run(plan.changed(federation=ours.federation), folders, tmp_path)
    with pytest.raises(PlanError, match="network 'shallow' is not installed here, found unet"):
        run(plan.changed(network=ours.network), folders, tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["network", "losses"])
def test_a_site_without_it_refuses_by_name(
    installed, plan, folders, tmp_path, monkeypatch, caplog, key
):
    """The coordinator has the package, and the sites do not."""
    ours = plan.changed(**{key: getattr(extended(plan), key)})
    found = plugins.offered

    def make_app(*args, **kwargs):
        app = make_client_app(*args, **kwargs)

        def at_a_site(message, context):
            with monkeypatch.context() as here:
                here.setattr(plugins, "offered", lambda group: ())
                return app(message, context)

        return at_a_site

    monkeypatch.setattr(runner, "make_client_app", make_app)
    with pytest.raises(RunError):
        run(ours, folders, tmp_path)
    assert plugins.offered is found
    noun, name = {"network": ("network", "shallow"), "losses": ("loss", "cross_entropy")}[key]
    assert f"{noun} {name!r} is not installed here" in caplog.text


def test_a_package_that_cannot_be_imported_is_named(installed, plan):
    network = plan.network.model_copy(update={"name": "shallow"})
    (Path(sys.path[0]) / PACKAGE / "network.py").write_text("import no_such_module\n")
    with pytest.raises(PlanError, match=r"cannot import mamfed_example\.network:Shallow"):
        MalignancyNetwork(network)


def test_a_layout_lists_a_folder_and_a_format_marks_its_image(installed, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    cv2.imwrite(str(folder / "one.png"), np.zeros((20, 30), np.uint8))
    (folder / "one.pts").write_text("2 2\n12 2\n12 9\n2 9\n")
    (folder / "pairs.txt").write_text("P1 malignant one.png one.pts\n")
    manifest = read_folder(folder)
    assert manifest.layout == "pairs"
    (row,) = manifest.rows
    assert read_annotations(row.annotations, 20, 30).mask.sum() == 10 * 7
    with pytest.raises(DataError, match=r"expected one of .*pairs"):
        read_folder(folder, "other")


def test_a_suffix_that_nobody_reads_is_told_by_content(tmp_path):
    """Without the package the file is of an unknown format."""
    path = tmp_path / "one.pts"
    path.write_text("2 2\n12 2\n")
    with pytest.raises(Exception, match="an annotation of unknown format"):
        read_annotations((Annotation(path),), 20, 30)


def test_an_older_plan_keeps_its_words_and_its_hash(plan):
    text = plan.to_yaml()
    assert "name:" not in text
    assert "strategy" not in text
    assert "segmentation" not in text
    assert state_of(MalignancyNetwork(plan.network)).keys()
