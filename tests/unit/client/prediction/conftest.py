"""A model, phantoms of every vendor and orientation, and the command that brings them together."""

import json
from typing import NamedTuple

import numpy as np
import pytest
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, save_checkpoint
from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.runtime.seeds import generator
from mamfed_simulations.phantoms.dicom_writer import mammogram_dataset, write_dicom
from mamfed_simulations.phantoms.phantom import draw_view, invent_patient
from mamfed_simulations.phantoms.vendors import VENDORS, apply_look

SHAPE = (300, 240)
SPACING_MM = 0.5


class File(NamedTuple):
    """A phantom on disk."""

    path: object
    phantom: object


def save_model(path, plan, *, stage=Stage.FINETUNING, seed=0, painter=True, **facts):
    facts = {"plan_sha256": plan.sha256(), "stage": stage, "server_round": 3} | facts
    network = build_network(plan.network, seed)
    beside = state_of(build_network(plan.network, seed + 1)) if painter else None
    facts = CheckpointFacts(plan=plan, **facts)
    save_checkpoint(path, Checkpoint(state_of(network), facts, beside))
    return path


@pytest.fixture(scope="session")
def plan():
    network = NetworkConfig(channels=(4, 8), first_skip_level=1, stem=1)
    return TrainingPlan(image_size=96, network=network)


@pytest.fixture
def checkpoint(tmp_path, plan):
    """A network that has learned nothing: its maps are smooth, arbitrary and never symmetric."""
    return save_model(tmp_path / "best.safetensors", plan, threshold=0.3)


def draw(vendor, side, view, *, malignant=True, seed=0):
    look, rng = VENDORS[vendor], generator(seed, vendor, side, view)
    patient = invent_patient(rng, look.population, malignant=malignant)
    patient = patient._replace(laterality=side, finding="mass" if malignant else "")
    phantom = draw_view(rng, SHAPE, look.population, patient, view)
    return look, phantom, apply_look(phantom, look, rng)


@pytest.fixture
def write_phantom(tmp_path):
    def write(vendor="aurora", side="L", view="CC", *, mirrored=False, folder="in", **elements):
        look, phantom, pixels = draw(vendor, side, view)
        if mirrored:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
            phantom = phantom._replace(mask=phantom.mask[:, ::-1])
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / f"{vendor}-{side}-{view}-{mirrored}.dcm"
        instance = 1 + ["L", "R"].index(side) + 2 * ["CC", "MLO"].index(view)
        patient = {"patient_id": f"SECRET-{vendor}", "spacing_mm": SPACING_MM, "instance": instance}
        if not elements:
            write_dicom(path, pixels, phantom, look, **patient)
        else:
            dataset = mammogram_dataset(pixels, phantom, look, **patient)
            for keyword, value in elements.items():
                setattr(dataset, keyword, value)
            dataset.save_as(path, enforce_file_format=True)
        return File(path, phantom)

    return write


@pytest.fixture
def predict(checkpoint, tmp_path):
    """Run the command; return its result, and what it printed as JSON where it printed some."""

    def run(*inputs, out=None, model=None, options=()):
        out = out or tmp_path / "out"
        command = ["predict", *inputs, "--checkpoint", model or checkpoint, "--out", out, *options]
        return CliRunner().invoke(app, [str(word) for word in (*command, "--format", "json")])

    return run


@pytest.fixture
def predicted(predict, tmp_path):
    """Predict, and return the record of every image and the folder that it lies in."""

    def run(*inputs, options=()):
        result = predict(*inputs, options=options)
        assert result.exit_code == 0, result.output
        document = json.loads((tmp_path / "out" / "predictions.json").read_text())
        return [(r, tmp_path / "out" / "images" / r["image"]) for r in document["per_image"]]

    return run
