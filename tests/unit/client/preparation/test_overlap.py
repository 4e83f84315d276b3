"""The same pictures under two names."""

import shutil

import pytest
from typer.testing import CliRunner

from mamfed_client.preparation.overlap import check_apart
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.errors import DataError
from mamfed_simulations.cli.main import app
from mamfed_simulations.federation.arms import describe_sites


@pytest.fixture
def twelve(folder):
    for number in range(12):
        folder.benign(f"P{number}")
    return folder.write()


@pytest.fixture
def copy(twelve, tmp_path):
    return shutil.copytree(twelve, tmp_path / "copy")


def site(name, *folders, cache):
    cohorts = [(name if n == 0 else f"{name}{n}", folder) for n, folder in enumerate(folders)]
    return Site(name, tuple(cohorts), cache)


def keep(folder, *images, split=None):
    """Keep some rows of a table, perhaps all in one part."""
    header, *rows = (folder / "labels.csv").read_text().splitlines()
    kept = [row for row in rows if row.split(",")[0] in {f"images/{n}.png" for n in images}]
    if split:
        header, kept = f"{header},split", [f"{row},{split}" for row in kept]
    (folder / "labels.csv").write_text("\n".join([header, *kept]) + "\n")


def test_a_copy_under_another_sites_name_is_refused(twelve, copy, tmp_path, tiny_plan):
    sites = [site("a", twelve, cache=tmp_path), site("b", copy, cache=tmp_path)]
    with pytest.raises(DataError, match=r"a and b share 12 pictures, \d+ of them"):
        describe_sites(sites, tiny_plan)


def test_a_dry_run_refuses_one_folder_under_two_names(twelve, tmp_path, tiny_plan):
    (tmp_path / "plan.yaml").write_text(tiny_plan.to_yaml())
    words = ["run", "--site", f"a={twelve}", "--site", f"b={twelve}", "--dry-run"]
    words += ["--plan", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*words, "--cache", str(tmp_path / "cache")])
    assert isinstance(result.exception, DataError)
    assert "share 12 pictures" in str(result.exception)


def test_data_sets_that_overlap_in_part_are_refused(twelve, copy, tmp_path, tiny_plan):
    keep(twelve, *range(1, 10), split="train")
    keep(copy, 9, 10, split="test")
    both = [site("a", twelve, cache=tmp_path), site("b", copy, cache=tmp_path)]
    with pytest.raises(DataError, match=r"share 1 picture, 1 of them"):
        describe_sites(both, tiny_plan)
    with pytest.raises(DataError, match="a and a1 share 1 picture"):
        load_site(site("a", twelve, copy, cache=tmp_path), tiny_plan)


def test_pictures_in_the_same_part_are_said(twelve, copy, tmp_path, tiny_plan):
    keep(twelve, *range(1, 10), split="train")
    keep(copy, 8, 9, split="train")
    sites = [site("a", twelve, cache=tmp_path), site("b", copy, cache=tmp_path)]
    cohorts = {one.name: load_site(one, tiny_plan).cohorts[0] for one in sites}
    assert check_apart(cohorts) == ("a and b share 2 pictures, which are used twice in training",)


def test_a_pool_of_all_sites_is_no_site_that_shares_their_pictures(
    twelve, copy, tmp_path, tiny_plan
):
    keep(twelve, 1, 2, 3, 4, 5)
    keep(copy, 6, 7, 8, 9, 10)
    one, two = site("a", twelve, cache=tmp_path), site("b", copy, cache=tmp_path)
    pool = Site("centralised", (*one.cohorts, *two.cohorts), tmp_path)
    assert describe_sites([one, two, pool], tiny_plan)["centralised"].rows == 10
