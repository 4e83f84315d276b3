"""What a run is handed on as: files that other tools read, each compared with PyTorch."""

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from mamfed_client.imaging import geometry, preprocess
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import CheckpointError, DataError, OutputError, RunError
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import Stage
from mamfed_common.training.inference import load_network
from mamfed_server.export import checks, preprocessing
from mamfed_server.export.source import read_source
from mamfed_server.report.data import Interval, RunNotes, write_notes

from .conftest import save

TARGETS = ["onnx", "torchscript", "monai-bundle", "safetensors", "map"]
SITE_PACKAGES = sysconfig.get_path("purelib")
REAL = Path(__file__).parents[5] / "shared" / "data" / "cesm" / "images"


def image_of(height, width, seed=1):
    return np.random.default_rng(seed).random((height, width), np.float32)


def pytorch(path, image):
    """What mamfed itself makes of an image."""
    state, facts, _ = load_checkpoint(path)
    network = load_network(state, facts.plan, torch.device("cpu")).eval()
    with torch.no_grad():
        logits, redrawn = network.explain(torch.from_numpy(image[None, None]))
    return logits.sigmoid()[0, 0].numpy(), redrawn[0, 0].numpy()


def without_mamfed(folder, code):
    """Run code in a Python that has the machine's packages, but not mamfed."""
    prelude = (
        f"import sys; sys.path.append({SITE_PACKAGES!r})\n"
        "try:\n    import mamfed_common\nexcept ImportError:\n    pass\n"
        "else:\n    raise SystemExit('mamfed is here')\n"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", prelude + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def snippet(folder):
    """Return the Python that the export's README shows."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return code


@pytest.mark.parametrize("target", TARGETS)
def test_an_export_is_complete_private_and_says_how_near_it_is(run, exported, target):
    folder, printed = exported(run, target)
    present = {str(path) for path in folder.rglob("*") if path.is_file()}
    assert set(printed["files"]) == present
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o600}
    record = json.loads((folder / "export.json").read_text())
    assert 0 < record["largest_difference"] <= record["tolerance"] == 1e-4
    assert record["largest_difference_from_float32"] <= 1e-4
    assert (
        record["weights_sha256"]
        == load_checkpoint(run / "checkpoints/best.safetensors")[1].weights_sha256
    )
    assert len({tuple(shape[2:]) for shape in record["shapes"]}) == 2, "two sizes prove open axes"
    facts = json.loads((folder / "preprocessing.json").read_text())
    assert (facts["threshold"], facts["image_size"]) == (0.3, 32)
    assert facts["use"].startswith("Research use only")


@pytest.mark.parametrize("painter", [True, False])
def test_the_painter_goes_with_the_weights_and_is_told_missing_elsewhere(
    tmp_path, tiny_plan, exported, painter
):
    model = save(tmp_path / "model.safetensors", tiny_plan, painter=painter)
    checkpoint = load_checkpoint(model)
    folder, _ = exported(model, "safetensors")
    said = (folder / "README.md").read_text()
    assert (folder / "painter.safetensors").exists() == painter == ("`painter.saf" in said)
    if painter:
        found = load_file(folder / "painter.safetensors")
        sha256 = json.loads((folder / "export.json").read_text())["painter_sha256"]
        assert state_sha256(found) == checkpoint.facts.painter_sha256 == sha256
    other, _ = exported(model, "torchscript")
    assert not list(other.glob("painter*"))
    reason = "`mamfed-client predict` does" if painter else "the run had no stage 1"
    assert "cannot draw what healthy tissue" in (other / "README.md").read_text()
    assert reason in (other / "README.md").read_text()


@pytest.mark.parametrize("target", ["onnx", "torchscript"])
def test_its_own_readme_runs_it_without_mamfed(run, exported, target):
    folder, _ = exported(run, target)
    image = image_of(44, 36)
    np.save(folder / "image.npy", image)
    without_mamfed(folder, snippet(folder))
    expected, _ = pytorch(run / "checkpoints/best.safetensors", image)
    assert np.abs(np.load(folder / "malignancy.npy") - expected).max() <= 1e-4


def test_the_safetensors_readme_builds_the_network(run, exported, monkeypatch):
    folder, _ = exported(run, "safetensors")
    monkeypatch.chdir(folder)
    names = {}
    exec(snippet(folder), names)
    image = image_of(40, 40)
    with torch.no_grad():
        found = names["network"].eval()(torch.from_numpy(image[None, None])).sigmoid()[0, 0]
    expected, _ = pytorch(run / "checkpoints/best.safetensors", image)
    assert np.abs(found.numpy() - expected).max() <= 1e-5


class TestOnnx:
    def test_takes_any_batch_and_size_of_the_multiple(self, run, exported):
        import onnxruntime

        folder, _ = exported(run, "onnx")
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        for shape in ((1, 1, 16, 16), (3, 1, 48, 20), (2, 1, 20, 96)):
            images = np.random.default_rng(2).random(shape, np.float32)
            malignancy, redrawn = session.run(None, {"image": images})
            assert malignancy.shape == redrawn.shape == shape
            exact, drawn = pytorch(run / "checkpoints/best.safetensors", images[0, 0])
            assert np.abs(malignancy[0, 0] - exact).max() <= 1e-4
            assert np.abs(redrawn[0, 0] - drawn).max() <= 1e-4

    def test_holds_its_preprocessing_and_nothing_of_this_machine(self, run, exported):
        folder, _ = exported(run, "onnx")
        model = onnx.load(folder / "model.onnx")
        held = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(held["mamfed"]) == json.loads((folder / "preprocessing.json").read_text())
        assert [value.name for value in model.graph.input] == ["image"]
        assert [value.name for value in model.graph.output] == ["malignancy", "reconstruction"]
        data = (folder / "model.onnx").read_bytes()
        assert str(Path.home()).encode() not in data
        assert b"site-packages" not in data
        assert b"/mamfed_" not in data

    def test_of_a_network_without_subtraction_has_one_output(self, tmp_path, tiny_plan, exported):
        plan = tiny_plan.changed(
            network={**tiny_plan.network.model_dump(), "head": "direct"},
        )
        folder, _ = exported(save(tmp_path / "direct.safetensors", plan), "onnx")
        model = onnx.load(folder / "model.onnx")
        assert [value.name for value in model.graph.output] == ["malignancy"]


class TestBundle:
    def monai(self, folder, *words):
        command = [sys.executable, "-m", "monai.bundle", *words]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        return run.returncode, run.stdout + run.stderr

    def test_passes_monais_check_of_the_network(self, run, exported):
        folder, _ = exported(run, "monai-bundle")
        options = [
            *("--net_id", "network_def", "--bundle_root", "."),
            *("--meta_file", "configs/metadata.json"),
            *("--config_file", "configs/inference.json"),
        ]
        code, said = self.monai(folder, "verify_net_in_out", *options)
        assert code == 0, said
        assert "verified with no error" in said
        metadata = json.loads((folder / "configs/metadata.json").read_text())
        outputs = metadata["network_data_format"]["outputs"]
        outputs["pred"]["num_channels"] = 5
        (folder / "configs/metadata.json").write_text(json.dumps(metadata))
        code, _ = self.monai(folder, "verify_net_in_out", *options)
        assert code != 0, "MONAI's check can fail"

    def test_has_what_the_specification_asks_for(self, run, exported):
        folder, _ = exported(run, "monai-bundle")
        metadata = json.loads((folder / "configs/metadata.json").read_text())
        needed = "version changelog monai_version pytorch_version numpy_version task description"
        assert {*needed.split(), "authors", "copyright", "network_data_format"} <= set(metadata)
        for name in ("LICENSE", "docs/README.md", "models/model.pt", "models/model.ts"):
            assert (folder / name).stat().st_size > 0
        weights = torch.load(folder / "models/model.pt", weights_only=True)
        state, _, _ = load_checkpoint(run / "checkpoints/best.safetensors")
        assert {name: tensor.shape for name, tensor in weights.items()} == {
            name: tensor.shape for name, tensor in state.items()
        }

    def test_predicts_png_files_by_monais_own_command(self, run, exported):
        folder, _ = exported(run, "monai-bundle")
        image = (image_of(40, 48) * 65535).astype(np.uint16)
        (folder / "images").mkdir()
        cv2.imwrite(str(folder / "images" / "one.png"), image)
        code, said = self.monai(
            folder, "run", "--config_file", "configs/inference.json", "--bundle_root", "."
        )
        assert code == 0, said
        found = np.load(folder / "eval" / "one.npy")
        expected, _ = pytorch(
            run / "checkpoints/best.safetensors", image.astype(np.float32) / np.float32(65535)
        )
        assert np.abs(found[:40, :48] - expected).max() <= 1e-4

    def test_takes_pictures_of_8_bits_for_what_they_are_and_refuses_colours(self, run, exported):
        folder, _ = exported(run, "monai-bundle")
        image = (image_of(40, 48) * 255).astype(np.uint8)
        dark = image.astype(np.uint16)  # of 16 bits, with the levels of one of 8
        (folder / "images").mkdir()
        for name, picture in (("flat", image), ("deep", image * np.uint16(257)), ("dark", dark)):
            cv2.imwrite(str(folder / "images" / f"{name}.png"), picture)
        words = ("run", "--config_file", "configs/inference.json", "--bundle_root", ".")
        code, said = self.monai(folder, *words)
        assert code == 0, said
        flat, deep, black = (np.load(folder / f"eval/{n}.npy") for n in ("flat", "deep", "dark"))
        assert np.abs(flat - deep).max() <= 1e-4
        expected, _ = pytorch(
            run / "checkpoints/best.safetensors", dark.astype(np.float32) / np.float32(65535)
        )
        assert np.abs(black[:40, :48] - expected).max() <= 1e-4
        cv2.imwrite(str(folder / "images" / "a.png"), np.dstack([image] * 3))
        code, said = self.monai(folder, *words)
        assert code != 0
        assert "a.png: expected a grey PNG of 8 or 16 bits" in said


class TestCard:
    def test_tells_counts_results_plan_and_limits(self, run, exported, tiny_plan):
        write_notes(run, RunNotes(intervals={"north": Interval(low=0.5, high=0.7, patients=8)}))
        folder, _ = exported(run, "safetensors")
        card = (folder / "MODEL_CARD.md").read_text()
        assert "| north | 21 (11) / 3 (2) / 4 (2) | 17 (9) /" in card
        assert "Aurora / Imaging 60" in card, "a site's bar does not break the table"
        assert "| north | 12 | 0.625 | 0.500 to 0.700 (8) |" in card
        assert "9 of 14" in card
        assert "- north was late" in card
        assert tiny_plan.sha256() in card
        for words in ("Research use only", "## Limits", "not a\nmedical device", "not calibrated"):
            assert words in card
        header = card.split("---")[1]
        assert "pipeline_tag: image-segmentation" in header

    def test_of_a_bare_checkpoint_says_what_is_missing(self, tmp_path, tiny_plan, exported):
        folder, _ = exported(save(tmp_path / "best.safetensors", tiny_plan), "safetensors")
        card = (folder / "MODEL_CARD.md").read_text()
        assert "the sites' counts and vendors are\nmissing" in card
        assert "No test results: a checkpoint alone contains none." in card


class TestRefusals:
    def test_a_stage_1_model_is_refused_and_nothing_written(self, tmp_path, tiny_plan, export):
        early = save(tmp_path / "early.safetensors", tiny_plan, stage=Stage.PRETRAINING)
        result = export(early, "--to", "onnx", "--out", tmp_path / "out")
        assert isinstance(result.exception, CheckpointError)
        assert not (tmp_path / "out").exists()

    def test_other_weights_are_not_overwritten(self, run, export, exported, tiny_plan, tmp_path):
        folder, _ = exported(run, "torchscript")
        before = (folder / "model.ts").read_bytes()
        other = save(tmp_path / "other.safetensors", tiny_plan, seed=1)
        result = export(other, "--to", "torchscript", "--out", folder)
        assert isinstance(result.exception, OutputError)
        assert "weights sha256 was" in str(result.exception)
        assert (folder / "model.ts").read_bytes() == before
        exported(run, "torchscript")

    @pytest.mark.parametrize(
        ("named", "change"),
        [
            ("painter sha256", {"painter": False}),
            ("threshold", {"threshold": 0.4}),
            ("threshold from", {"threshold": None}),
        ],
    )
    def test_another_question_is_named_by_what_differs(
        self, run, export, exported, tiny_plan, tmp_path, named, change
    ):
        folder, _ = exported(run, "safetensors")
        other = save(tmp_path / "other.safetensors", tiny_plan, **change)
        result = export(other, "--to", "safetensors", "--out", folder)
        assert isinstance(result.exception, OutputError)
        assert f"{named} was" in str(result.exception)

    def test_files_of_others_are_not_thrown_away_with_an_old_export(self, run, export, exported):
        folder, _ = exported(run, "safetensors")
        (folder / "notes.txt").write_text("mine")
        result = export(run, "--to", "safetensors", "--out", folder)
        assert isinstance(result.exception, OutputError)
        assert "notes.txt" in str(result.exception)
        assert (folder / "notes.txt").read_text() == "mine"
        (folder / "notes.txt").unlink()
        exported(run, "safetensors")

    def test_a_folder_of_something_else_is_refused(self, run, export, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("mine")
        result = export(run, "--to", "onnx", "--out", tmp_path / "out")
        assert isinstance(result.exception, OutputError)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]

    def test_what_is_no_run_is_named(self, tmp_path, export):
        result = export(tmp_path, "--to", "onnx")
        assert isinstance(result.exception, RunError)

    def test_a_dry_run_writes_nothing(self, run, export, tmp_path):
        result = export(run, "--to", "onnx", "--out", tmp_path / "out", "--dry-run")
        assert json.loads(result.stdout)["written"] is False
        assert not (tmp_path / "out").exists()

    def test_a_folder_without_images_is_named(self, run, export, tmp_path):
        (tmp_path / "empty").mkdir()
        result = export(run, "--to", "onnx", "--images", tmp_path / "empty")
        assert isinstance(result.exception, DataError)

    def test_an_export_that_disagrees_is_refused(self, run):
        model = read_source(run, "best").model()
        batches = checks.batches_of(model, [image_of(32, 32)])
        exact = [pytorch(run / "checkpoints/best.safetensors", batch[0, 0]) for batch in batches]

        def off_by(error):
            answers = iter(batches)

            def predict(images):
                assert np.array_equal(images, next(answers))
                found = [pytorch(run / "checkpoints/best.safetensors", one[0]) for one in images]
                outputs = [np.stack(kind)[:, None] for kind in zip(*found, strict=True)]
                outputs[0][0, 0, 3, 3] += error
                return outputs

            return predict

        assert exact
        assert checks.compare(model, off_by(0), batches).float64 < 1e-5
        for error in (2e-4, np.nan):
            with pytest.raises(OutputError, match="differs from PyTorch"):
                checks.compare(model, off_by(error), batches)


def test_constants_are_those_of_the_hospitals_preparation():
    assert preprocessing.MARGIN == geometry.MARGIN
    assert preprocessing.BLACK_SHARE == preprocess.BLACK_SHARE
    assert preprocessing.WHITE_SHARE == preprocess.WHITE_SHARE
    assert preprocessing.PREPARE_VERSION == preprocess.PREPARE_VERSION


@pytest.mark.skipif(not REAL.is_dir(), reason="no real data on this machine")
def test_real_mammograms_at_512_and_1536_agree_within_a_ten_thousandth(
    tmp_path, tiny_plan, exported
):
    grey = cv2.imread(str(min(REAL.glob("*.png"))), cv2.IMREAD_GRAYSCALE)
    (tmp_path / "images").mkdir()
    for size in (512, 1536):
        resized = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / "images" / f"{size}.png"), resized)
    checkpoint = save(tmp_path / "best.safetensors", tiny_plan)
    folder, _ = exported(checkpoint, "onnx", "--images", tmp_path / "images")
    record = json.loads((folder / "export.json").read_text())
    assert record["compared_on"] == "given images"
    assert [shape[2:] for shape in record["shapes"][:2]] == [[1536, 1536], [512, 512]]
    assert record["largest_difference_from_float32"] <= 1e-4


def test_the_command_line_loads_no_torch():
    code = "import sys, mamfed_server.cli.main; assert not {'torch', 'onnx'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
