import json
import os
import shutil
import stat

import cv2
import pytest
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_client.preparation import site_data as site_module
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, load_checkpoint, save_checkpoint
from mamfed_common.errors import CheckpointError, DataError, OutputError, PlanError
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage

runner = CliRunner()


def save(path, plan, **changes):
    facts = CheckpointFacts(
        plan=plan, plan_sha256=plan.sha256(), stage=Stage.FINETUNING, server_round=2, **changes
    )
    save_checkpoint(path, Checkpoint(state_of(build_network(plan.network, 0)), facts))
    return path


@pytest.fixture
def checkpoint(tmp_path, tiny_plan):
    return save(tmp_path / "best.safetensors", tiny_plan)


@pytest.fixture
def data(folder):
    for number in range(5):
        folder.malignant(f"M{number}").benign(f"B{number}")
    return folder.write()


def evaluate(checkpoint, data, out, *options):
    command = ["evaluate", "--checkpoint", checkpoint, "--data", data, "--out", out, *options]
    return runner.invoke(app, [str(part) for part in command])


def test_evaluate_writes_means_counts_and_every_image(checkpoint, data, tmp_path):
    out = tmp_path / "result.json"
    assert evaluate(checkpoint, data, out).exit_code == 0
    result = json.loads(out.read_text())
    assert (result["images"], result["images_without_malignancy"]) == (5, 5)
    assert [row["image"] for row in result["per_image"]] == [
        f"images/{n}.png" for n in (1, 3, 5, 7, 9)
    ]
    assert all(row["lesion_pixels"] > 0 for row in result["per_image"])
    mean = sum(row["dice"] for row in result["per_image"]) / 5
    assert result["mean_dice"] == pytest.approx(mean)
    assert {row["dice"] for row in result["per_image_without_malignancy"]} == {None}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_the_test_part_is_that_of_the_run(checkpoint, data, tmp_path):
    out = tmp_path / "result.json"
    evaluate(checkpoint, data, out, "--part", "test", "--site", "here")
    result = json.loads(out.read_text())
    assert (result["images"], result["part"]) == (1, "test")


def test_bad_rows_are_counted_and_the_rest_is_scored(checkpoint, data, tmp_path):
    (data / "images" / "1.png").write_bytes(b"garbage")
    (data / "masks" / "3.png").unlink()
    out = tmp_path / "result.json"
    assert evaluate(checkpoint, data, out).exit_code == 0
    result = json.loads(out.read_text())
    assert result["images"] == 3
    assert result["rejected"] == {"unreadable image": 1, "missing mask": 1}


def test_the_terminal_says_what_stands_behind_a_figure_and_what_does_not(
    checkpoint, data, tmp_path
):
    (data / "images" / "1.png").write_bytes(b"garbage")
    (data / "masks" / "3.png").unlink()
    said = evaluate(checkpoint, data, tmp_path / "result.json").output
    assert "scored: 8 images of 10 rows, 3 with malignancy" in said
    assert "not scored: 1 rejected: missing mask" in said
    assert "not scored: 1 rejected: unreadable image" in said
    part = evaluate(checkpoint, data, tmp_path / "part.json", "--part", "all", "--site", "here")
    assert "in other parts" not in part.output


class TestQuestion:
    def question(self, out):
        return json.loads(out.read_text())["question"]

    @pytest.mark.parametrize(
        ("named", "options"),
        [
            ("threshold", ["--threshold", "0.31"]),
            ("min images", ["--min-images", "3"]),
            ("part", ["--part", "test", "--site", "here"]),
        ],
    )
    def test_an_evaluation_of_other_options_replaces_and_says_so(
        self, checkpoint, data, tmp_path, named, options
    ):
        out = tmp_path / "result.json"
        evaluate(checkpoint, data, out)
        assert "the same evaluation exists" in evaluate(checkpoint, data, out).output
        said = " ".join(evaluate(checkpoint, data, out, *options).output.split())
        assert "replaces a different evaluation" in said
        assert f"{named} was" in said

    def test_of_other_weights_too(self, checkpoint, data, tmp_path, tiny_plan):
        out = tmp_path / "result.json"
        evaluate(checkpoint, data, out)
        before = self.question(out)
        state = state_of(build_network(tiny_plan.network, 0))
        next(iter(state.values())).view(-1)[0] += 1e-3
        facts = CheckpointFacts(
            plan=tiny_plan, plan_sha256=tiny_plan.sha256(), stage=Stage.FINETUNING, server_round=2
        )
        save_checkpoint(tmp_path / "other.safetensors", Checkpoint(state, facts))
        said = evaluate(tmp_path / "other.safetensors", data, out).output
        assert "weights sha256 was" in " ".join(said.split())
        assert self.question(out) != before

    @pytest.mark.parametrize("what", ["pixel of an image", "pixel of a mask", "row"])
    def test_of_other_data_too(self, checkpoint, data, tmp_path, what):
        out = tmp_path / "result.json"
        evaluate(checkpoint, data, out)
        before = self.question(out)
        if what == "row":
            text = (data / "labels.csv").read_text()
            (data / "labels.csv").write_text(text.replace(",L,", ",R,", 1))
        else:
            path = data / ("images" if what.endswith("image") else "masks") / "3.png"
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            pixels[90, 40] = 255 - pixels[90, 40]
            stat = path.stat()
            cv2.imwrite(str(path), pixels)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        site_module._loaded.clear()  # another process
        evaluate(checkpoint, data, out)
        after = self.question(out)
        assert after["images"] != before["images"]
        assert {**after, "images": ""} == {**before, "images": ""}

    def test_a_file_of_something_else_is_kept(self, checkpoint, data, tmp_path):
        for content in ("thesis", "{}", "[1]"):
            (tmp_path / "mine.json").write_text(content)
            refused = evaluate(checkpoint, data, tmp_path / "mine.json").exception
            assert isinstance(refused, OutputError)
            assert (tmp_path / "mine.json").read_text() == content


@pytest.mark.parametrize(
    ("part", "site", "culprit"), [("testing", "x", "'testing'"), ("test", "", "--site")]
)
def test_an_impossible_part_is_refused(checkpoint, data, tmp_path, part, site, culprit):
    result = evaluate(checkpoint, data, tmp_path / "r.json", "--part", part, "--site", site)
    assert isinstance(result.exception, DataError)
    assert culprit in str(result.exception)
    assert not (tmp_path / "r.json").exists()


def test_a_missing_checkpoint_folder_or_place_is_named(checkpoint, data, tmp_path):
    out = tmp_path / "r.json"
    missing = tmp_path / "nowhere"
    assert isinstance(evaluate(missing, data, out).exception, CheckpointError)
    assert isinstance(evaluate(checkpoint, missing, out).exception, DataError)
    result = evaluate(checkpoint, data, missing / "r.json")
    assert isinstance(result.exception, OutputError)
    assert str(missing) in str(result.exception)


def evaluated(checkpoint, data, tmp_path, *options):
    out = tmp_path / "result.json"
    assert evaluate(checkpoint, data, out, *options).exit_code == 0
    return json.loads(out.read_text())


def test_every_figure_has_an_interval_over_patients_and_its_counts(checkpoint, data, tmp_path):
    result = evaluated(checkpoint, data, tmp_path)
    dice = result["intervals"]["dice"]
    assert dice["value"] == pytest.approx(result["mean_dice"])
    assert (dice["patients"], dice["images"]) == (5, 5)
    assert dice["low"] <= dice["value"] <= dice["high"]
    sensitivity = result["intervals"]["sensitivity"]
    assert sensitivity["value"] == pytest.approx(result["lesions_found"] / result["lesions"])
    assert result["intervals"]["auroc"]["value"] == pytest.approx(result["auroc"])
    assert result["intervals"]["auroc"]["images"] == 10
    alarms = result["intervals"]["false_positive_pixels"]
    assert (alarms["value"], alarms["images"]) == (result["false_positive_pixels"], 5)


def test_the_froc_curve_is_over_all_images(checkpoint, data, tmp_path):
    froc = evaluated(checkpoint, data, tmp_path)["froc"]
    assert (froc["images"], froc["lesions"]) == (10, 5)
    assert list(froc["sensitivity_at"]) == ["0.25", "0.5", "1", "2"]
    assert len(froc["false_positives_per_image"]) == len(froc["sensitivity"])


def test_the_pixel_size_is_that_of_the_plans_grid(checkpoint, folder, tmp_path):
    folder.malignant("M0", spacing_mm="0.5").malignant("M1").benign("B0")
    options = ("--threshold", "0.001")  # everything in the breast is marked
    result = evaluated(checkpoint, folder.write(), tmp_path, *options)
    known, unknown = result["per_image"]
    # The crop of the breast, 152 rows of 181 at 0.5 mm and a margin, on the grid's side.
    size = result["image_size"]
    breast_mm = 2 * 0.42 * 181 * 0.5
    assert 0 < known["hausdorff95_mm"] < breast_mm
    assert unknown["hausdorff95_mm"] is None
    assert result["hausdorff95_left_out"] == {"no pixel size": 1, "nothing marked": 0}
    assert result["intervals"]["hausdorff95_mm"]["images"] == 1
    # The lesion is a disc 15 pixels of 0.5 mm in radius: 177 mm2.
    assert [s["value"] for s in result["strata"] if s["property"] == "lesion_mm2"] == [
        "up to 314 mm2"
    ]
    grid_mm = (177 / known["lesion_pixels"]) ** 0.5
    assert grid_mm == pytest.approx(breast_mm / size, rel=0.1)


def test_a_larger_pixel_gives_a_larger_distance_in_proportion(checkpoint, folder, tmp_path):
    for number, spacing in enumerate(("0.1", "0.3")):
        folder.malignant(f"M{number}", spacing_mm=spacing)
    result = evaluated(checkpoint, folder.write(), tmp_path, "--threshold", "0.001")
    small, large = (row["hausdorff95_mm"] for row in result["per_image"])
    assert large == pytest.approx(3 * small, rel=0.05)


def test_images_with_malignancy_are_reported_by_what_the_table_says(checkpoint, folder, tmp_path):
    for number, vendor in enumerate(("ge", "ge", "ge", "fuji")):
        folder.malignant(f"M{number}", vendor=vendor, density="C").benign(f"B{number}")
    result = evaluated(checkpoint, folder.write(), tmp_path, "--min-images", "2")
    strata = {(s["property"], s["value"]): s for s in result["strata"]}
    assert strata["vendor", "ge"]["images"] == 3
    assert strata["vendor", "ge"]["dice"]["patients"] == 3
    assert strata["density", "C"]["lesions"] == 4
    assert strata["view", "CC"]["images"] == 4
    assert ("vendor", "fuji") not in strata
    reason = "fewer than 2 images"
    withheld = {"property": "vendor", "strata": 1, "images": 1, "reason": reason}
    assert withheld in result["strata_withheld"]


@pytest.mark.parametrize(
    ("chosen", "options", "threshold", "origin"),
    [
        (None, (), 0.5, "plan"),
        (0.3, (), 0.3, "checkpoint"),
        (0.3, ("--threshold", "0.7"), 0.7, "--threshold"),
    ],
)
def test_the_threshold_says_where_it_comes_from(
    tiny_plan, data, tmp_path, chosen, options, threshold, origin
):
    checkpoint = save(tmp_path / "best.safetensors", tiny_plan, threshold=chosen)
    result = evaluated(checkpoint, data, tmp_path, *options)
    assert (result["threshold"], result["threshold_from"]) == (threshold, origin)


def test_a_lower_threshold_marks_more(checkpoint, data, tmp_path):
    low, high = (
        evaluated(checkpoint, data, tmp_path, "--threshold", at)["false_positive_pixels"]
        for at in ("0.01", "0.99")
    )
    assert low > high


def test_an_impossible_threshold_is_refused(checkpoint, data, tmp_path):
    result = evaluate(checkpoint, data, tmp_path / "r.json", "--threshold", "1.5")
    assert isinstance(result.exception, PlanError)
    assert "--threshold" in str(result.exception)


def test_the_result_is_printed_with_counts_and_without_naming_an_image(checkpoint, data, tmp_path):
    out = tmp_path / "result.json"
    printed = evaluate(checkpoint, data, out).stdout
    assert "Dice:" in printed
    assert "5 images, 5 patients" in printed
    assert "Hausdorff 95 in mm: n/a, no images" in printed
    as_json = evaluate(checkpoint, data, out, "--format", "json").stdout
    assert json.loads(as_json)["mean_dice"] == json.loads(out.read_text())["mean_dice"]
    assert "images/" not in printed + as_json


@pytest.fixture
def divided(tmp_path, tiny_plan, data):
    """A checkpoint of a run of two sites: ``here``, which had ``data``, and ``far``."""
    here = load_site(Site("here", (("here", data),), tmp_path / "fixture"), tiny_plan).describe()
    splits = {"here": here.splits, "far": ("0" * 64,)}
    changes = {"expected": ("far", "here"), "splits": splits}
    return save(tmp_path / "divided.safetensors", tiny_plan, **changes)


def test_a_part_of_what_the_run_divided_is_scored(divided, data, tmp_path):
    found = evaluate(divided, data, tmp_path / "r.json", "--part", "test", "--site", "here")
    assert found.exit_code == 0
    assert "not checked" not in found.stderr


def another_name(data, tmp_path):
    return data, "hier"


def another_site(data, tmp_path):
    return data, "far"


def fewer_images(data, tmp_path):
    table = data / "labels.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    return data, "here"


def another_file(data, tmp_path):
    second = (data / "images/2.png").read_bytes()
    (data / "images/2.png").write_bytes(second + b"\0")
    return data, "here"


def a_split_column(data, tmp_path):
    header, *rows = (data / "labels.csv").read_text().splitlines()
    parts = ["train", "test", "val"]
    rows = [f"{row},{parts[n % 3]}" for n, row in enumerate(rows)]
    (data / "labels.csv").write_text("\n".join([f"{header},split", *rows]) + "\n")
    return data, "here"


def another_folder(data, tmp_path):
    other = shutil.copytree(data, tmp_path / "other")
    for name in ("images/1.png", "images/2.png"):
        picture = cv2.imread(str(other / name), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(other / name), picture // 2)
    return other, "here"


@pytest.mark.parametrize(
    "change",
    [another_name, another_site, fewer_images, another_file, a_split_column, another_folder],
)
@pytest.mark.parametrize("part", ["test", "val"])
def test_a_part_of_anything_else_is_refused_by_name(divided, data, tmp_path, change, part):
    changed, site = change(data, tmp_path)
    out = tmp_path / "r.json"
    failed = evaluate(divided, changed, out, "--part", part, "--site", site)
    assert isinstance(failed.exception, DataError)
    assert (
        f"the name {site!r} its split is not one of the checkpoint's run (sites far, here)"
        in str(failed.exception)
    )
    assert not out.exists()
    assert evaluate(divided, changed, out, "--part", "all").exit_code == 0


@pytest.mark.parametrize("splits", [{}, {"far": ("0" * 64,)}])
def test_a_checkpoint_that_does_not_say_is_believed_and_that_is_said(
    tiny_plan, data, tmp_path, splits
):
    path = save(tmp_path / "old.safetensors", tiny_plan, expected=("far", "here"), splits=splits)
    found = evaluate(path, data, tmp_path / "r.json", "--part", "test", "--site", "here")
    assert found.exit_code == 0
    assert "cannot be checked" in found.stderr


def test_a_fold_or_seed_of_another_run_is_another_division(data, tmp_path, tiny_plan, divided):
    evaluation = tiny_plan.evaluation.model_copy(update={"folds": 3, "fold": 1})
    plan = tiny_plan.model_copy(update={"evaluation": evaluation})
    mixed = load_checkpoint(divided).facts.model_copy(update={"plan": plan})
    path = tmp_path / "mixed.safetensors"
    save_checkpoint(path, Checkpoint(state_of(build_network(plan.network, 0)), mixed))
    failed = evaluate(path, data, tmp_path / "r.json", "--part", "test", "--site", "here")
    assert isinstance(failed.exception, DataError)
