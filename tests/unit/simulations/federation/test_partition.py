"""``mamfed-simulate partition``: one cohort dealt to virtual hospitals, from the command line."""

import csv
import json
import stat
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from mamfed_client.imaging.breast_mask import find_breast_mask
from mamfed_client.imaging.mammogram import Mammogram
from mamfed_client.preparation.commands import Source, check
from mamfed_common.errors import DataError, OutputError
from mamfed_simulations.cli.main import app
from mamfed_simulations.federation.appearance import KNOWN, looks_of, with_look
from mamfed_simulations.federation.partition import deal_patients
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort

runner = CliRunner()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Ten patients with malignant images and eight without, as DICOM."""
    folder = tmp_path_factory.mktemp("cohort") / "data"
    look = next(iter(VENDORS.values()))
    write_cohort(folder, look, benign=16, malignant=20, seed=1, scale=0.06)
    return folder


@pytest.fixture
def pictures(cohort, tmp_path) -> Path:
    """The same as 8-bit PNG with a column of the site's own, made by its own means."""
    return as_pictures(cohort, tmp_path / "pictures")


def as_pictures(cohort: Path, folder: Path) -> Path:
    from mamfed_client.imaging.reader import read_mammogram

    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    table = rows(cohort)
    for row in table:
        grey = read_mammogram(cohort / row["image"]).grey
        row["image"] = row["image"].replace(".dcm", ".png")
        row["x_ward"] = "7"
        cv2.imwrite(str(folder / row["image"]), (grey >> 8).astype(np.uint8))
        if row["mask"]:
            (folder / row["mask"]).write_bytes((cohort / row["mask"]).read_bytes())
    with (folder / "labels.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, table[0])
        writer.writeheader()
        writer.writerows(table)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def partition(data, out, *more):
    return runner.invoke(app, ["partition", "--data", str(data), "--out", str(out), *more])


def grey(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_patients_are_dealt_whole_by_share_and_every_row_once(cohort, tmp_path):
    out = tmp_path / "out"
    result = partition(cohort, out, "--shares", "50,30,20", "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["hospitals"]
    assert [h["patients"] for h in found] == [9, 5, 4]
    where = defaultdict(set)
    for hospital in found:
        own = rows(out / hospital["name"])
        for row in own:
            where[row["patient_id"]].add(hospital["name"])
        malignant = sum(row["pathology"] == "malignant" for row in own)
        assert hospital["images"] == {
            "malignant": malignant,
            "benign": len(own) - malignant,
            "without_malignancy": len(own) - malignant,
        }
    assert all(len(names) == 1 for names in where.values())
    dealt = [row for h in found for row in rows(out / h["name"])]
    assert sorted(row.pop("image") for row in dealt) == [r["image"] for r in rows(cohort)]
    assert [h["images"]["malignant"] for h in found] == [10, 6, 4], "each kind by the shares"


def test_without_looks_files_and_cells_are_copied(pictures, tmp_path):
    out = tmp_path / "out"
    assert partition(pictures, out, "--sites", "2").exit_code == 0
    before = {row["image"]: row for row in rows(pictures)}
    for site in ("site-1", "site-2"):
        for row in rows(out / site):
            assert {k: row[k] for k in before[row["image"]]} == before[row["image"]]
            for name in filter(None, (row["image"], row["mask"])):
                assert (out / site / name).read_bytes() == (pictures / name).read_bytes()
                assert (out / site / name).stat().st_ino != (pictures / name).stat().st_ino


def test_a_look_changes_the_breast_only_and_keeps_bits_and_masks(pictures, tmp_path):
    out = tmp_path / "out"
    assert partition(pictures, out, "--sites", "3", "--looks").exit_code == 0
    for number in (1, 2, 3):
        for row in rows(out / f"site-{number}"):
            before, after = (
                grey(pictures / row["image"]),
                grey(out / f"site-{number}" / row["image"]),
            )
            assert (after.dtype, after.shape) == (np.uint8, before.shape)
            breast = find_breast_mask(before.astype(np.uint16) * np.uint16(257))
            assert np.array_equal(after[~breast], before[~breast])
            assert np.array_equal(after, before) is (number == 1), "the first keeps its look"
            if row["mask"]:
                mask = out / f"site-{number}" / row["mask"]
                assert mask.read_bytes() == (pictures / row["mask"]).read_bytes()


def test_a_dicom_with_a_look_is_a_16_bit_picture_of_which_the_table_knows_the_rest(
    cohort, tmp_path
):
    out = tmp_path / "out"
    assert partition(cohort, out, "--sites", "2", "--looks").exit_code == 0
    before = {row["image"]: row for row in rows(cohort)}
    own = rows(out / "site-2")
    assert own
    for row in own:
        assert row["image"].endswith(".dcm.png")
        assert grey(out / "site-2" / row["image"]).dtype == np.uint16
        original = before[row["image"].removesuffix(".png")]
        assert {k: row[k] for k in original if k != "image"} == {
            k: v for k, v in original.items() if k != "image"
        }
    intake, _ = check(Source(out / "site-2"))
    assert len(intake.accepted) == len(own)
    assert not intake.rejected


def test_a_folder_without_a_table_and_one_with_outlines_as_shapes_are_dealt(cohort, tmp_path):
    """Bare DICOM: who and what comes of the files. VIA: one document of outlines for all images."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in (cohort / "images").iterdir():
        (bare / path.name).write_bytes(path.read_bytes())
    result = partition(bare, tmp_path / "a", "--sites", "2")
    assert isinstance(result.exception, DataError), "no file says what was found"
    via = as_pictures(cohort, tmp_path / "via")
    table = rows(via)
    outline = {
        row["image"]: {
            "filename": Path(row["image"]).name,
            "size": -1,
            "regions": [
                {
                    "shape_attributes": {
                        "name": "polygon",
                        "all_points_x": [10, 20, 20, 10],
                        "all_points_y": [30, 30, 45, 45],
                    },
                    "region_attributes": {},
                }
            ],
            "file_attributes": {},
        }
        for row in table
        if row["mask"]
    }
    (via / "via.json").write_text(json.dumps(outline))
    for row in table:
        row["mask"] = "via.json" if row["mask"] else ""
    with (via / "labels.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, table[0])
        writer.writeheader()
        writer.writerows(table)
    assert partition(via, tmp_path / "b", "--sites", "2", "--looks").exit_code == 0
    for site in ("site-1", "site-2"):
        masks = [r["mask"] for r in rows(tmp_path / "b" / site) if r["pathology"] == "malignant"]
        assert masks
        for name in masks:
            mask = grey(tmp_path / "b" / site / name)
            assert set(np.unique(mask)) == {0, 255}
            assert mask[31:44, 11:19].all()
            assert mask.astype(bool).sum() < 200


def test_the_same_command_writes_the_same_bytes_for_its_owner_only(pictures, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second, second):
        assert partition(pictures, out, "--looks", "--seed", "3").exit_code == 0
    assert files(first) == files(second)
    for path in [first, *first.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_another_seed_deals_others(pictures, tmp_path):
    ids = []
    for seed in ("0", "1"):
        assert partition(pictures, tmp_path / seed, "--seed", seed).exit_code == 0
        ids.append({row["patient_id"] for row in rows(tmp_path / seed / "site-1")})
    assert ids[0] != ids[1]


def test_a_row_that_cannot_be_used_still_speaks_for_its_patient(pictures, tmp_path):
    """A benign patient's unreadable malignant image keeps her out of stage 1 as before."""
    table = rows(pictures)
    healthy = next(r for r in table if r["pathology"] != "malignant")
    table.append({**healthy, "image": "images/gone.png", "pathology": "malignant"})
    with (pictures / "labels.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, table[0])
        writer.writeheader()
        writer.writerows(table)
    out = tmp_path / "out"
    result = partition(pictures, out, "--sites", "2", "--format", "json")
    found = json.loads(result.stdout)
    assert found["left_out"] == {
        "rejected: missing image": 1,
        "left out: patient has BI-RADS 3-6 or malignant row": 2,
    }
    for hospital in found["hospitals"]:
        intake, _ = check(Source(out / hospital["name"]))
        served = {p: sum(p in c.purposes for c in intake.accepted) for p in hospital["images"]}
        assert served == hospital["images"]


def write_rows(folder: Path, table: list[dict[str, str]], name: str = "labels.csv") -> None:
    with (folder / name).open("w", newline="") as handle:
        writer = csv.DictWriter(handle, table[0])
        writer.writeheader()
        writer.writerows(table)


def test_what_a_person_has_checked_goes_with_each_row_usable_or_not(pictures, tmp_path):
    table = rows(pictures)
    for number, row in enumerate(table):
        row |= {"x_row": str(number), "reviewed": "yes" if number % 3 else "no"}
        row |= {"patient_checked": "yes" if number % 2 else ""}
    (pictures / table[5]["image"]).unlink()
    (pictures / "labels.csv").unlink()
    write_rows(pictures, table, "Labels.csv")
    assert partition(pictures, tmp_path / "out", "--sites", "2").exit_code == 0
    dealt = {r["x_row"]: r for s in ("site-1", "site-2") for r in rows(tmp_path / "out" / s)}
    assert len(dealt) == len(table)
    for row in table:
        kept = {k: v for k, v in row.items() if k not in {"image", "mask"}}
        assert {k: dealt[row["x_row"]][k] for k in kept} == kept
    assert dealt["5"]["image"] == dealt["5"]["mask"] == ""


def test_a_map_of_classes_is_dealt_as_the_mask_that_its_row_chose(pictures, tmp_path):
    table = rows(pictures)
    for row in table:
        row["mask_values"] = "2" if row["mask"] else ""
        if row["mask"]:
            marked = grey(pictures / row["mask"])
            marked[marked > 0] = 2
            marked[:3, :3] = 1
            cv2.imwrite(str(pictures / row["mask"]), marked)
    write_rows(pictures, table)
    before, _ = check(Source(pictures))
    assert partition(pictures, tmp_path / "out", "--sites", "2").exit_code == 0
    taken = [check(Source(tmp_path / "out" / site))[0] for site in ("site-1", "site-2")]
    assert not any(intake.rejected for intake in taken)
    shares = sorted(c.result.lesion_share for intake in taken for c in intake.accepted)
    assert shares == sorted(c.result.lesion_share for c in before.accepted)


def test_a_dry_run_writes_nothing(cohort, tmp_path):
    result = partition(cohort, tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert not (tmp_path / "out").exists()


def test_it_writes_into_no_folder_but_its_own(cohort, pictures, tmp_path):
    for out in (pictures, pictures / "below"):
        refused(partition(pictures, out), "choose a place outside of it", OutputError)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years")
    refused(partition(pictures, other), "holds other files", OutputError)
    refused(partition(pictures, other / "thesis.txt"), "is not a folder", OutputError)
    assert partition(pictures, tmp_path / "own").exit_code == 0
    refused(partition(pictures, tmp_path / "own", "--seed", "1"), "another partition", OutputError)
    refused(partition(cohort, tmp_path / "own"), "another partition", OutputError)


def refused(result, words, kind=DataError):
    assert isinstance(result.exception, kind), result.output
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)


def test_too_few_patients_for_so_many_sites_are_named(cohort, tmp_path):
    result = partition(cohort, tmp_path / "out", "--sites", "7")
    refused(result, "would get 2 of 18 patients, but needs 3")


@pytest.mark.parametrize(
    ("shares", "words"),
    [("60,40", "2 shares for 3"), ("60,30,20", "add up to 110"), ("60,x,20", "expected numbers"),
     ("60,50,-10", "above 0"), ("60,nan,20", "above 0")],
)  # fmt: skip
def test_wrong_shares_are_usage_errors(cohort, tmp_path, shares, words):
    result = partition(cohort, tmp_path / "out", "--shares", shares)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_patients_of_small_groups_are_not_all_dealt_to_the_largest_site():
    """Twenty groups of one: by rounding alone the first site would have every patient."""
    strata = [{f"patient {i}"} for i in range(20)]
    assert [len(p) for p in deal_patients(strata, (60, 30, 10), 0)] == [12, 6, 2]


def test_looks_differ_from_site_to_site_and_the_first_has_none():
    looks = looks_of(8, seed=0)
    assert looks[:5] == list(KNOWN)
    assert len(set(looks)) == 8
    assert looks[5:] == looks_of(8, 0)[5:] != looks_of(8, 1)[5:]


def test_padding_is_black_in_a_picture_and_levels_of_12_bits_stay_there():
    rng = np.random.default_rng(0)
    levels = np.zeros((128, 96), np.uint16)
    levels[16:112, 8:80] = rng.integers(800, 3000, (96, 72))
    levels[:, 90:] = 4095
    valid = np.ones_like(levels, bool)
    valid[:, 90:] = False
    shown = with_look(Mammogram(levels, valid), KNOWN[2], np.random.default_rng(1))
    assert shown.dtype == np.uint16
    assert shown.max() <= 3000
    assert not shown[:, 90:].any()
    brighter = shown[20:108, 12:76].mean() - levels[20:108, 12:76].mean()
    assert brighter > 200, "gamma below 1 lifts"


def test_a_public_data_set_as_it_downloads_becomes_plain_folders(cohort, tmp_path):
    """mini-MIAS: two images a patient, circles in the table, no file of a mask."""
    from mamfed_client.imaging.reader import read_mammogram

    mias = tmp_path / "mias"
    mias.mkdir()
    lines = []
    for number, row in enumerate(rows(cohort)[16:], start=1):
        shown = cv2.resize(read_mammogram(cohort / row["image"]).grey, (1024, 1024))
        cv2.imwrite(str(mias / f"mdb{number:03}.pgm"), (shown >> 8).astype(np.uint8))
        lines.append(f"mdb{number:03} G CIRC M 300 524 20")
    (mias / "Info.txt").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    result = partition(mias, out, "--sites", "2", "--looks")
    assert result.exit_code == 0, result.output
    for site in ("site-1", "site-2"):
        own = rows(out / site)
        assert {row["source"] for row in own} == {"mini-mias"}
        assert {row["spacing_mm"] for row in own} == {"0.2"}
        assert {Path(row["image"]).suffix for row in own} <= {".pgm", ".png"}
        mask = grey(out / site / own[0]["mask"]).astype(bool)
        assert mask[1023 - 524, 300]
        assert mask.sum() == pytest.approx(np.pi * 20**2, rel=0.02)
        intake, _ = check(Source(out / site))
        assert len(intake.accepted) == len(own) == 10
