"""The MONAI Deploy application: its computations in a Python without mamfed, the rest as files."""

import ast
import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
import yaml
from packaging.requirements import Requirement

from mamfed_client.imaging.preprocess import prepare
from mamfed_client.imaging.reader import read_mammogram
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.training.inference import load_network, malignancy_of
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort

PACKAGES = str(Path(torch.__file__).parents[1])
COMPUTE = """
import json, sys
from pathlib import Path
sys.path[:0] = ["app"]
sys.path.append(sys.argv[2])
import malignancy, torch, numpy
assert "mamfed.zip" in malignancy.read_mammogram.__code__.co_filename, "mamfed comes from the ZIP"
model = malignancy.model_folder(Path("model"))
settings = json.loads((model / "preprocessing.json").read_text())
network = torch.jit.load(model / "models/model.ts").eval()
study = malignancy.read_study(Path(sys.argv[1]), settings)
for number, view in enumerate(study.views):
    found = malignancy.probability(network, view, settings)
    numpy.save(f"{number}.npy", found)
    data, regions = malignancy.segmentation(view, found, settings)
    Path(f"{number}.dcm").write_bytes(data)
print(json.dumps(study.left_out))
"""


@pytest.fixture
def study(tmp_path):
    """Two mammograms, and a file that is none."""
    folder = tmp_path / "study"
    write_cohort(tmp_path / "cohort", VENDORS["aurora"], benign=0, malignant=2, seed=3)
    folder.mkdir()
    for number, path in enumerate(sorted((tmp_path / "cohort").rglob("*.dcm"))[:2]):
        (folder / f"{number}.dcm").write_bytes(path.read_bytes())
    (folder / "9.dcm").write_text("no mammogram")
    return folder


def computed(folder, study):
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", COMPUTE, str(study), PACKAGES],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_application_computes_what_mamfed_does_without_mamfed(run, exported, study, tiny_plan):
    folder, _ = exported(run, "map")
    left_out = computed(folder, study)
    assert sum(left_out.values()) == 1
    state, facts, _ = load_checkpoint(run / "checkpoints/best.safetensors")
    network = load_network(state, facts.plan, torch.device("cpu"))
    for number, path in enumerate(sorted(study.glob("[01].dcm"))):
        sample, transform = prepare(read_mammogram(path), None, tiny_plan.image_size)
        expected = transform.invert(malignancy_of(network, sample, facts.plan, torch.device("cpu")))
        found = np.load(folder / f"{number}.npy")
        assert np.abs(found - expected).max() <= 1e-4
        source, result = pydicom.dcmread(path), pydicom.dcmread(folder / f"{number}.dcm")
        assert result.Modality == "SEG"
        assert result.StudyInstanceUID == source.StudyInstanceUID
        assert (result.Rows, result.Columns) == (source.Rows, source.Columns)
        near = np.abs(expected - 0.3) < 1e-4
        marked = result.pixel_array.reshape(expected.shape).astype(bool)
        assert (marked == (expected >= np.float32(0.3)))[~near].all()


def test_a_folder_without_a_mammogram_is_an_error(run, exported, tmp_path):
    folder, _ = exported(run, "map")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssertionError, match="found no usable mammogram among 0 files"):
        computed(folder, tmp_path / "empty")


def test_the_files_are_those_that_the_packager_reads(run, exported):
    folder, _ = exported(run, "map")
    for path in (folder / "app").glob("*.py"):
        ast.parse(path.read_text())
    settings = yaml.safe_load((folder / "app/app.yaml").read_text().partition("---")[2])
    assert {"title", "version", "inputFormats", "outputFormats"} <= set(settings["application"])
    assert {"cpu", "gpu", "memory"} <= set(settings["resources"])
    asked = [Requirement(line) for line in (folder / "app/requirements.txt").read_text().split("\n")
             if line]  # fmt: skip
    assert {"pydicom", "highdicom", "torch", "monai-deploy-app-sdk"} <= {r.name for r in asked}
    assert "flwr" not in {r.name for r in asked}
    with zipfile.ZipFile(folder / "app/mamfed.zip") as archive:
        names = archive.namelist()
    assert names == sorted(names)
    assert all(name.endswith(".py") for name in names)
    assert {name.partition("/")[0] for name in names} == {"mamfed_client", "mamfed_common"}


@pytest.mark.skipif(find_spec("holoscan") is None, reason="monai-deploy-app-sdk is not installed")
def test_the_application_runs_in_monai_deploy(run, exported, study, tmp_path):
    folder, _ = exported(run, "map")
    out = tmp_path / "results"
    words = ["app", "-i", study, "-o", out, "-m", folder / "model/malignancy"]
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["segmentations"] == len(list(out.glob("*.dcm"))) == 2
    assert summary["use"].startswith("Research use only")
